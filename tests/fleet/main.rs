//! The fleet as it runs in production: a real nats-server, the real role binaries as processes of their own, real pytest
//! in the real sandbox, the real `nats` CLI. Only the model's replies come from a script.

#[path = "../common/aimock.rs"]
mod aimock_process;
mod harness;

mod deploy;
mod http_model;
mod smoke;

//! The fleet as it runs in production: a real nats-server, the real role binaries as processes of their own, real pytest
//! in the real sandbox, the real `nats` CLI. Only the model's replies come from a script.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::type_complexity,
    reason = "a test that meets the unexpected should stop there"
)]

#[path = "../common/aimock.rs"]
mod aimock_process;
mod bounds;
mod budgets;
mod canary;
mod cancel;
mod cancel_races;
mod chaos;
mod circles;
mod conduct;
mod contention;
mod contexts;
mod costs;
mod crash;
mod dead;
mod deploy;
mod doctor;
mod doctor_model;
mod doors;
mod drain;
mod evidence;
mod fence;
mod garbage;
mod harness;
mod http_model;
mod input;
mod interrupt;
mod later;
mod logins;
mod mcp;
mod mcp_servers;
mod migrate;
#[path = "../common/mountebank.rs"]
mod mountebank_process;
mod nats_cli;
#[path = "../common/npm.rs"]
mod npm;
mod outage;
#[path = "../common/pages.rs"]
mod pages;
mod people;
mod people_asked;
mod people_doors;
mod people_gates;
mod people_rights;
mod people_words;
mod proposals;
mod question_circles;
mod questions;
mod reading;
mod real_model;
mod retry;
mod share;
mod shell;
mod side_by_side;
mod smoke;
mod snapshot;
mod sources;
mod state;
mod story;
mod takeover;
mod tenants;
mod tool;
mod up;
mod upkeep;
mod watch;
mod worker_protocol;

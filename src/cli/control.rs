//! Asking the orchestrators' control door, for the commands that change a run.

use std::time::{Duration, Instant};

use async_nats::client::RequestErrorKind;
use bytes::Bytes;
use serde_json::Value;

use super::attach;
use super::config::Config;
use super::exit::{Exit, ended};
use crate::bus::{Bus, BusError, Use};
use crate::wire::{RunId, TaskId, run_and_task};

/// How long a control request may take.
const CONTROL_WAIT_S_MAX: u64 = 30;
/// How long one orchestrator may take over something that can be asked twice: it may sleep, and the server does not know.
const CONTROL_TRY_S: u64 = 2;

/// How long one may take over a page of what waits in all runs.
const CONTROL_SLOW_S: u64 = 10;

/// A connection to a fleet whose orchestrators answer.
pub(super) async fn fleet(config: &Config) -> anyhow::Result<Bus> {
    let nobody =
        "no fleet runs here, so nobody can do it; start one with `oarlock up`, or name its server with --server";
    attach::find(config).await?.ok_or_else(|| ended(Exit::Unreachable, nobody))
}

/// Asks a control verb; a refusal is an error that ends the command fittingly.
pub(super) async fn ask(bus: &Bus, verb: &str, request: &Value) -> anyhow::Result<Value> {
    ask_in_tries(bus, verb, request, CONTROL_WAIT_S_MAX).await
}

/// Asks a verb that does the same when it is done twice, one orchestrator after the other.
pub(super) async fn ask_each(bus: &Bus, verb: &str, request: &Value) -> anyhow::Result<Value> {
    ask_in_tries(bus, verb, request, CONTROL_TRY_S).await
}

/// Asks for something that may take an orchestrator a while, and that can be asked twice.
pub(super) async fn ask_slow(bus: &Bus, verb: &str, request: &Value) -> anyhow::Result<Value> {
    ask_in_tries(bus, verb, request, CONTROL_SLOW_S).await
}

/// Where a verb is asked: with the name of who speaks where it can be a part of a subject, so that the server's permissions can
/// bind the name to the login.
fn door(bus: &Bus, verb: &str, request: &Value) -> String {
    let plain =
        |who: &&str| !who.is_empty() && who.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_@".contains(&byte));
    match request.get("by").and_then(Value::as_str).filter(plain) {
        Some(who) => bus.root.control_door(&format!("{verb}.{who}")),
        None => bus.root.control_door(verb),
    }
}

async fn ask_in_tries(bus: &Bus, verb: &str, request: &Value, try_s: u64) -> anyhow::Result<Value> {
    let payload = Bytes::from(request.to_string());
    let door = door(bus, verb, request);
    let started = Instant::now();
    let answer = loop {
        let request = async_nats::Request::new().payload(payload.clone()).timeout(Some(Duration::from_secs(try_s)));
        let answer = tokio::select! {
            answer = bus.client.send_request(door.clone(), request) => answer,
            () = bus.denied(Use::Publish, &door) => return Err(BusError::Forbidden { subject: door }.into()),
        };
        let late = answer.as_ref().is_err_and(|error| error.kind() == RequestErrorKind::TimedOut);
        if !late || started.elapsed() >= Duration::from_secs(CONTROL_WAIT_S_MAX) {
            break answer;
        }
    };
    let answer = answer.map_err(|error| {
        ended(Exit::Unreachable, format!("no orchestrator answered ({error}); `oarlock ps` shows who is there"))
    })?;
    let code = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
    let text = String::from_utf8_lossy(&answer.payload);
    match code.map(|code| code.as_str()) {
        None => Ok(serde_json::from_str(&text)?),
        Some(code) => {
            let exit = match code {
                "400" | "413" => Exit::Usage,
                "404" => Exit::NotFound,
                "409" => Exit::Conflict,
                _ => Exit::Failed,
            };
            Err(ended(exit, text))
        }
    }
}

/// Reads `<run>` or `<run>/<task>`.
pub(super) fn parse(what: &str) -> anyhow::Result<(RunId, Option<TaskId>)> {
    run_and_task(what).map_err(|error| ended(Exit::Usage, format!("{error}; write it as <run> or <run>/<task>")))
}

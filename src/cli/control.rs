//! Asking the orchestrators' control door, for the commands that change a run.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::attach;
use super::config::Config;
use super::exit::{Exit, ended};
use crate::bus::Bus;
use crate::wire::{RunId, TaskId};

/// How long a control request may take.
const CONTROL_WAIT_S_MAX: u64 = 30;

/// A connection to a fleet whose orchestrators answer.
pub(super) async fn fleet(config: &Config) -> anyhow::Result<Bus> {
    let nobody =
        "no fleet runs here, so nobody can do it; start one with `oarlock up`, or name its server with --server";
    attach::find(config).await?.ok_or_else(|| ended(Exit::Unreachable, nobody))
}

/// Asks a control verb; a refusal is an error that ends the command fittingly.
pub(super) async fn ask(bus: &Bus, verb: &str, request: &Value) -> anyhow::Result<Value> {
    let payload = Bytes::from(request.to_string());
    let wait = Some(Duration::from_secs(CONTROL_WAIT_S_MAX));
    let request = async_nats::Request::new().payload(payload).timeout(wait);
    let answer = bus.client.send_request(bus.root.control_door(verb), request).await;
    let answer = answer.map_err(|error| ended(Exit::Unreachable, format!("no orchestrator answered ({error})")))?;
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
    let usage = |error: String| ended(Exit::Usage, format!("{error}; write it as <run> or <run>/<task>"));
    let (run, task) = what.split_once('/').map_or((what, None), |(run, task)| (run, Some(task)));
    let run = run.parse::<RunId>().map_err(|error| usage(error.to_string()))?;
    let task = task.map(str::parse::<TaskId>).transpose().map_err(|error| usage(error.to_string()))?;
    Ok((run, task))
}

//! `oarlock doctor`: what a fleet needs, one line each, with the fix for what is missing.

mod machine;
mod model;
mod server;

use serde::Serialize;

use super::answer::{out, out_marked};
use super::args::DoctorArgs;
use super::config::Config;
use super::exit::{Exit, ended};

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Note,
    Broken,
}

/// One check.
#[derive(Serialize)]
struct Line {
    level: Level,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

fn ok(what: impl Into<String>) -> Line {
    Line { level: Level::Ok, what: what.into(), fix: None }
}

fn note(what: impl Into<String>, fix: impl Into<String>) -> Line {
    Line { level: Level::Note, what: what.into(), fix: Some(fix.into()) }
}

fn broken(what: impl Into<String>, fix: impl Into<String>) -> Line {
    Line { level: Level::Broken, what: what.into(), fix: Some(fix.into()) }
}

pub(super) async fn doctor(config: &Config, args: DoctorArgs) -> anyhow::Result<()> {
    let mut lines = vec![machine::settings(config), machine::connection(config), machine::nats_binary(config).await];
    lines.extend(server::fleet(config).await);
    lines.extend(model::lines(config, &args).await);
    lines.push(machine::cache(config));
    lines.extend(machine::sandbox(config).await);
    lines.push(machine::web(config));
    let tools = super::mcp::trials(config).await;
    lines.extend(tools.into_iter().map(|found| found.map_or_else(|(what, fix)| broken(what, fix), ok)));
    lines.extend(machine::bounds(config));
    for line in lines.iter().filter(|_| !args.json) {
        let mark = match line.level {
            Level::Ok => "✓",
            Level::Note => "!",
            Level::Broken => "✗",
        };
        let fix = line.fix.as_ref().map(|fix| format!("\n    fix: {fix}")).unwrap_or_default();
        out_marked(&format!("{mark} {}{fix}", line.what), mark)?;
    }
    if args.json {
        out(&serde_json::to_string(&lines)?)?;
    }
    match lines.iter().filter(|line| line.level == Level::Broken).count() {
        0 => Ok(()),
        broken => Err(ended(
            Exit::Failed,
            format!("{broken} of {} checks found something broken; each has its fix beside it", lines.len()),
        )),
    }
}

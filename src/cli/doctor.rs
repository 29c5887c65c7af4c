//! `oarlock doctor`: what a fleet needs, one line each, with the fix for what is missing.

use serde::Serialize;

use super::answer::{out, out_marked};
use super::args::{JsonArgs, ModelArgs};
use super::attach;
use super::config::Config;
use super::connection::{Named, Origin};
use super::exit::{Exit, ended};
use super::ps::processes;
use super::worker::prepare;
use crate::bus::Bus;
use crate::model;
use crate::sources::Web;
use crate::wire::{Role, limits};

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Note,
    Broken,
}

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

fn not_ok(level: Level, what: impl Into<String>, fix: &str) -> Line {
    Line { level, what: what.into(), fix: Some(fix.to_owned()) }
}

pub(super) async fn doctor(config: &Config, args: JsonArgs) -> anyhow::Result<()> {
    let mut lines = vec![nats_binary(config).await];
    lines.extend(fleet(config).await);
    lines.push(model_line(config).await);
    lines.push(sandbox(config).await);
    lines.push(web(config));
    lines.extend(super::mcp::trials(config).await.into_iter().map(|found| match found {
        Ok(what) => ok(what),
        Err((what, fix)) => not_ok(Level::Broken, what, fix),
    }));
    lines.push(bounds(config));
    for line in &lines {
        let mark = match line.level {
            Level::Ok => "✓",
            Level::Note => "!",
            Level::Broken => "✗",
        };
        let fix = line.fix.as_ref().map(|fix| format!("\n    fix: {fix}")).unwrap_or_default();
        if !args.json {
            out_marked(&format!("{mark} {}{fix}", line.what), mark)?;
        }
    }
    if args.json {
        out(&serde_json::to_string(&lines)?)?;
    }
    match lines.iter().filter(|line| line.level == Level::Broken).count() {
        0 => Ok(()),
        broken => Err(ended(Exit::Failed, format!("{broken} of {} checks found something broken", lines.len()))),
    }
}

async fn nats_binary(config: &Config) -> Line {
    match config.server_sources.find().await {
        Ok(path) => ok(format!("nats-server for embedded use: {}", path.display())),
        Err(error) => not_ok(Level::Note, error.to_string(), "only `demo`, `up` and `run` without a fleet need it"),
    }
}

async fn fleet(config: &Config) -> Vec<Line> {
    match attach::server(config).await {
        Ok(reached) => served(&reached.bus).await,
        Err(error) if !matches!(config.connections.any(), Ok(Named { origin: Origin::Nobody, .. })) => {
            vec![not_ok(Level::Broken, format!("{error:#}"), "start the server, or name another with --server")]
        }
        Err(_) => vec![not_ok(Level::Note, "no fleet is running here", "oarlock up (`oarlock run` starts its own)")],
    }
}

async fn served(bus: &Bus) -> Vec<Line> {
    let version = bus.client.server_info().version;
    let mut lines = vec![ok(format!("NATS {version} is reachable, with JetStream"))];
    let counts = futures::future::join_all(Role::ALL.map(|role| processes(bus, role))).await;
    for (role, count) in Role::ALL.into_iter().zip(counts) {
        lines.push(match count {
            0 => not_ok(Level::Broken, format!("nobody serves role {role}"), &format!("oarlock worker {role}")),
            count => ok(format!("role {role}: {count} process{}", if count == 1 { "" } else { "es" })),
        });
    }
    lines
}

async fn model_line(config: &Config) -> Line {
    match model::choose(&config.models(&ModelArgs::default())).await {
        Ok(Some(choice)) => ok(format!("model {}/{}: {}", choice.spec.provider.id(), choice.spec.model, choice.why)),
        Ok(None) => not_ok(
            Level::Note,
            "no model is configured",
            "set ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY; or start Ollama; or give --base-url",
        ),
        Err(error) => {
            let what = format!("failed to {:#}", anyhow::Error::from(error));
            not_ok(Level::Broken, what, "mend OARLOCK_MODEL, the base URL or the key")
        }
    }
}

async fn sandbox(config: &Config) -> Line {
    match prepare(config.python_candidates(), config.cache.clone(), config.sandbox).await {
        Ok(sandbox) => ok(format!("sandbox for tests: {} ({})", sandbox.tier(), sandbox.layers().join(", "))),
        Err(why) => not_ok(Level::Broken, format!("no sandbox for tests: {why}"), "apt-get install bubblewrap python3"),
    }
}

fn web(config: &Config) -> Line {
    let reads = match config.sources.web {
        Web::Off => "no page (web = \"off\")",
        Web::Named => "the pages that goals and attached files name",
        Web::Open => "every page that a goal, a file or a model names (web = \"open\")",
    };
    let inside = match config.sources.fetcher.allowed() {
        0 => String::new(),
        count => format!(", and {count} hosts or networks of web_allow"),
    };
    match config.sources.web {
        Web::Off => ok(format!("the researcher reads {reads}")),
        _ => ok(format!("the researcher reads {reads}: public hosts{inside}")),
    }
}

fn bounds(config: &Config) -> Line {
    let rework = config.runs.rules.rework_max;
    let exchanges = match config.runs.exchanges_max {
        Some(max) => max.to_string(),
        None => format!("max(20, 2·(tasks+2)·(1+rework_max)), for 4 tasks {}", limits::exchanges_max(4, rework)),
    };
    ok(format!(
        "bounds of a run: rework_max {rework}, exchanges_max {exchanges}, plan_tasks_max {}",
        limits::PLAN_TASKS_MAX
    ))
}

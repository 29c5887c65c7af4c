//! What this machine has: settings, who names the server, a server to start, a cache, Python, a sandbox.

use super::super::config::Config;
use super::super::connection::Origin;
use super::{Line, broken, note, ok};
use crate::sandbox::{Python, Sandbox};
use crate::sources::Web;
use crate::wire::{Allowance, Purse, Role, Usd, limits};

pub(super) fn settings(config: &Config) -> Line {
    let files: Vec<String> = config.files().map(|file| file.display().to_string()).collect();
    match files.is_empty() {
        false => ok(format!("settings: {}", files.join(", then "))),
        true => ok("settings: the defaults; no file (`oarlock init` writes one)"),
    }
}

/// Who names the server that the next lines are about.
pub(super) fn connection(config: &Config) -> Line {
    match config.connections.any() {
        Ok(named) if matches!(named.origin, Origin::Nobody) => {
            ok("server: nobody names one; this folder's fleet, or else the default address")
        }
        Ok(named) => ok(format!("server: named by {}", named.by())),
        Err(error) => broken(format!("server: {error:#}"), "mend it, or go without: --no-context, --server URL"),
    }
}

pub(super) async fn nats_binary(config: &Config) -> Line {
    match config.server_sources.find().await {
        Ok(path) => ok(format!("nats-server for embedded use: {}", path.display())),
        Err(error) => note(error.to_string(), "only `demo`, `up` and `run` without a fleet need it"),
    }
}

/// The place of what is fetched once: it must be there to be written.
pub(super) fn cache(config: &Config) -> Line {
    let shown = config.cache.display();
    let tried = std::fs::create_dir_all(&config.cache)
        .and_then(|()| tempfile::Builder::new().prefix("doctor-").tempfile_in(&config.cache));
    match tried {
        Ok(_) => ok(format!("cache: {shown} can be written")),
        Err(error) => {
            broken(format!("cache: {shown} cannot be written ({error})"), "name another folder in OARLOCK_CACHE")
        }
    }
}

pub(super) async fn sandbox(config: &Config) -> Vec<Line> {
    let told = |error: crate::sandbox::SandboxError| format!("{:#}", anyhow::Error::from(error));
    let python = match Python::prepare(&config.python_candidates(), &config.cache).await {
        Ok(python) => python,
        Err(error) => {
            let fix = "apt-get install python3 python3-pip, or name one in OARLOCK_PYTHON";
            return vec![broken(format!("no Python for tests: {}", told(error)), fix)];
        }
    };
    let (major, minor) = python.version();
    let found = ok(format!("Python for tests: {} ({major}.{minor}), with pytest", python.executable().display()));
    let probed = match std::env::current_exe() {
        Ok(helper) => Sandbox::probe(config.sandbox, helper, python).await.map_err(told),
        Err(error) => Err(format!("our own executable is not to be found: {error}")),
    };
    vec![
        found,
        match probed {
            Ok(sandbox) => ok(format!("sandbox for tests: {} ({})", sandbox.tier(), sandbox.layers().join(", "))),
            Err(why) => broken(format!("no sandbox for tests: {why}"), "apt-get install bubblewrap"),
        },
    ]
}

pub(super) fn web(config: &Config) -> Line {
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

pub(super) fn bounds(config: &Config) -> Vec<Line> {
    let rules = &config.runs.rules;
    let (rework, no_progress) = (rules.rework_max, rules.no_progress_max);
    let attempts = rules.attempts_max();
    let exchanges = match config.runs.exchanges_max {
        Some(max) => max.to_string(),
        None => format!("max(20, 2·(tasks+2)·{attempts}), for 4 tasks {}", limits::exchanges_max(4, attempts)),
    };
    let hops = match config.runs.hops_max {
        Some(max) => max.to_string(),
        None => format!("max(20, 2·(tasks in a row+2)·{attempts}), for 4 in a row {}", limits::hops_max(4, attempts)),
    };
    let window = config.runs.window_max.unwrap_or(limits::WINDOW_MAX);
    let bounds = format!(
        "bounds of a run: rework_max {rework}, no_progress_max {no_progress}, exchanges_max {exchanges}, hops_max {hops}, \
         plan_tasks_max {}, window_max {window}",
        limits::PLAN_TASKS_MAX
    );
    let count = |bound: Option<u64>| bound.map_or("the run's".to_owned(), |bound| bound.to_string());
    let money = |bound: Option<Usd>| bound.map_or("the run's".to_owned(), |bound| bound.to_string());
    let run = &config.runs.budgets.run;
    let of_run = format!(
        "budget of a run: tasks {}, depth {}, time_s {}, tokens {}, usd {}, of calls whose price is known",
        count(run.tasks),
        count(run.depth),
        count(run.time_s),
        count(run.tokens),
        money(run.usd)
    );
    let of_roles = Role::ALL.into_iter().filter_map(|role| {
        let own = config.runs.budgets.roles.get(&role)?.allowance;
        let usd = own.cost_nano_usd.map(Usd::from_nano);
        (own != Allowance::default()).then(|| format!("{role} tokens {}, usd {}", count(own.tokens), money(usd)))
    });
    let of_roles: Vec<String> = of_roles.collect();
    let of_roles = match of_roles.is_empty() {
        true => "budget of a role in a run: the run's, for every role".to_owned(),
        false => format!("budget of a role in a run: {}; the others the run's", of_roles.join("; ")),
    };
    let times = Role::ALL.into_iter().filter(|role| role.plannable());
    let times = times.filter_map(|role| Some(format!("{role} {}", config.runs.limits.get(&role)?.as_secs())));
    let of_roles = format!("{of_roles}; timeout_s of a task: {}", times.collect::<Vec<_>>().join(", "));
    vec![ok(bounds), ok(of_run), ok(of_roles), ok(tenants(config))]
}

fn tenants(config: &Config) -> String {
    let budgets = &config.runs.budgets.tenants;
    let words = |purse: &Purse| format!("tokens {}, usd {}", purse.tokens, Usd::from_nano(purse.nano_usd));
    let mut named: Vec<String> =
        budgets.named.iter().map(|(tenant, purse)| format!("; {tenant} {}", words(purse))).collect();
    named.sort();
    format!("budget of a tenant in a UTC day: {}{}", words(&budgets.others), named.concat())
}

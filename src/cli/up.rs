//! `oarlock up`: a server and all roles on this machine, until Ctrl-C.

use std::time::{Duration, Instant};

use super::args::UpArgs;
use super::attach::{self, project_folder};
use super::config::Config;
use super::exit::{Exit, ended};
use super::fleet::{LocalFleet, ModelSource, Place, one_of_each};
use super::run::model_source;
use super::talk::say;
use crate::wire::Role;

pub(super) async fn up(config: &Config, args: UpArgs) -> anyhow::Result<()> {
    if config.connections.named()?.is_some() {
        let how = "start role binaries there instead: oarlock worker <role> --server URL";
        return Err(ended(
            Exit::Usage,
            format!(
                "`oarlock up` starts a server of its own; --server, --context, a variable or the configuration names another one; {how}"
            ),
        ));
    }
    if attach::find_project(config).await.is_some() {
        let what = "a fleet of this folder is up already; use it with `oarlock run`, look at it with `oarlock ps`";
        return Err(ended(Exit::Conflict, what));
    }
    if let Some(name) = config.connections.selected_name()? {
        say(&format!(
            "the selected nats context {name:?} is left alone: this fleet has a server of its own, for this folder"
        ));
    }
    let started = Instant::now();
    let source = model_source(config, &args.model).await?;
    let mut roles = one_of_each();
    for (role, count) in &args.roles {
        roles.iter_mut().filter(|(known, _)| known == role).for_each(|entry| entry.1 = *count);
    }
    let local = LocalFleet::start(config, Place::Project(project_folder()), roles.clone(), &source).await?;
    tell(&local, &roles, &source, started.elapsed()).await;
    let outcome = until_stopped().await;
    say("stopping");
    local.stop().await;
    outcome
}

async fn until_stopped() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

async fn tell(local: &LocalFleet, roles: &[(Role, usize)], source: &ModelSource, took: Duration) {
    let counts: Vec<String> = roles.iter().map(|(role, count)| format!("{role} {count}")).collect();
    let model = match source {
        ModelSource::Script(path) => format!("recorded replies from {}", path.display()),
        ModelSource::Model(choice) => format!("{}/{}", choice.spec.provider.id(), choice.spec.model),
    };
    say(&format!("nats    {}", local.url()));
    say(&format!("roles   {}", counts.join(", ")));
    say(&format!("model   {model}"));
    say(&format!("logs    {}", local.logs.display()));
    let processes: Vec<String> = local.processes().await.iter().map(|(role, pid)| format!("{role} {pid}")).collect();
    say(&format!("pids    {}", processes.join(", ")));
    say(&format!("ready   after {:.2} s; Ctrl-C stops it", took.as_secs_f32()));
    say(&format!("next    oarlock run \"…\"   or   nats -s {} req oarlock.run \"…\" --timeout 10m", local.url()));
}

//! `oarlock ps`: who serves which role, and what waits.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;

use super::answer::out;
use super::args::JsonArgs;
use super::attach;
use super::config::Config;
use crate::bus::{Bus, presence};
use crate::wire::Role;

/// How long worker processes have to say that they are there.
const PING_WAIT_MS: u64 = 300;

#[derive(Serialize)]
struct Line {
    role: Role,
    processes: usize,
    idle: usize,
    running: usize,
    waiting: u64,
}

pub(super) async fn ps(config: &Config, args: JsonArgs) -> anyhow::Result<()> {
    let reached = attach::server(config).await?;
    let bus = &reached.bus;
    let mut lines = Vec::new();
    for role in Role::ALL {
        let seen = presence(bus, role).await?;
        let (idle, running, waiting) = seen.map_or((0, 0, 0), |seen| (seen.idle, seen.running, seen.waiting));
        lines.push(Line { role, processes: 0, idle, running, waiting });
    }
    let counts = futures::future::join_all(lines.iter().map(|line| processes(bus, line.role))).await;
    lines.iter_mut().zip(counts).for_each(|(line, count)| line.processes = count);
    if args.json {
        return out(&serde_json::to_string(&lines)?);
    }
    out(&format!("{:<13}{:>10}{:>8}{:>9}{:>9}", "ROLE", "PROCESSES", "IDLE", "RUNNING", "WAITING"))?;
    for line in lines {
        let Line { role, processes, idle, running, waiting } = line;
        let note = match (processes, waiting) {
            (0, 0) => "   nobody serves this role".to_owned(),
            (0, _) => format!("   nobody serves this role, and {waiting} wait: oarlock worker {role}"),
            _ => String::new(),
        };
        out(&format!("{:<13}{processes:>10}{idle:>8}{running:>9}{waiting:>9}{note}", role.name()))?;
    }
    Ok(())
}

/// Counts the processes of a role that answer a ping.
pub(super) async fn processes(bus: &Bus, role: Role) -> usize {
    let inbox = bus.client.new_inbox();
    let Ok(mut answers) = bus.client.subscribe(inbox.clone()).await else { return 0 };
    let subject = format!("$SRV.PING.{}", bus.root.service(role));
    if bus.client.publish_with_reply(subject, inbox, Bytes::new()).await.is_err() {
        return 0;
    }
    let mut count = 0;
    let counting = async {
        while let Some(answer) = answers.next().await {
            count += usize::from(answer.status.is_none());
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(PING_WAIT_MS), counting).await;
    count
}

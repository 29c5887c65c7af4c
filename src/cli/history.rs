//! `oarlock history`: every exchange of a run, in the order in which the server stored them.

use serde::Serialize;

use super::answer::out;
use super::args::HistoryArgs;
use super::attach;
use super::config::Config;
use super::logs::moment;
use super::show::story;
use super::story::{Story, Try, first_line};
use crate::store::Store;
use crate::wire::{ContentHash, Input, ItemId, MessageType, Party, Role, Said, TaskId, one_line};

/// Digits of a hash that a line shows.
const HASH_DIGITS: usize = 12;

/// One exchange.
#[derive(Serialize)]
struct Line {
    at: String,
    from: Party,
    to: Party,
    #[serde(rename = "type")]
    kind: MessageType,
    task: TaskId,
    attempt: u32,
    /// Of a request: messages on the longest way from the goal to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hops: Option<u32>,
    /// Of a request: everything that the task gives its worker. Of a response: its content.
    hash: Option<ContentHash>,
    /// Bytes of the content.
    bytes: u64,
    /// Where the whole of it is kept.
    reference: String,
}

pub(super) async fn history(config: &Config, args: HistoryArgs) -> anyhow::Result<()> {
    let reached = attach::server(config).await?;
    let story = story(config, &reached, &args.run).await?;
    let lines = lines(&story, &|one| {
        let to = one.reply.as_ref().map(|reply| reply.subject());
        to.map(|to| reached.bus.root.result(&to)).unwrap_or_default()
    });
    let said = Store::new(&reached.bus).inputs.of_run(&args.run, 0).await?;
    let mut rows: Vec<(String, String)> = Vec::new();
    for line in lines {
        let text = if args.json { serde_json::to_string(&line)? } else { row(&line) };
        rows.push((line.at, text));
    }
    for heard in said {
        let (at, input) = (moment(heard.at), heard.input);
        let text = match args.json {
            true => serde_json::to_string(&Answer {
                at: at.clone(),
                kind: "input",
                from: &input.by,
                item: &input.item,
                says: &input.says,
            })?,
            false => said_row(clock(&at), &input),
        };
        rows.push((at, text));
    }
    // As text, times of one form stand in their order.
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    if !args.json {
        out(&format!(
            "{:<14}{:<13}  {:<13} {:<9} {:<9} {:<13}{:>8}",
            "TIME (UTC)", "FROM", "TO", "TYPE", "TASK", "HASH", "BYTES"
        ))?;
    }
    rows.iter().try_for_each(|(_, text)| out(text))
}

/// What a person said.
#[derive(Serialize)]
struct Answer<'a> {
    at: String,
    #[serde(rename = "type")]
    kind: &'static str,
    from: &'a str,
    item: &'a ItemId,
    says: &'a Said,
}

fn clock(at: &str) -> &str {
    at.split_once('T').map_or("", |(_, time)| time.trim_end_matches('Z'))
}

fn said_row(time: &str, input: &Input) -> String {
    let words = match &input.says {
        Said::Reject { reason: text } | Said::Answer { text } | Said::Note { text } => {
            one_line(&first_line(text), usize::MAX)
        }
        _ => String::new(),
    };
    let (to, kind, item) = (Role::Orchestrator.name(), input.says.name(), input.item.as_str());
    format!("{time:<14}{:<13}→ {to:<13} {kind:<9} {item:<9} {words}", input.by).trim_end().to_owned()
}

fn row(line: &Line) -> String {
    let task = if line.attempt > 1 { format!("{} #{}", line.task, line.attempt) } else { line.task.to_string() };
    let hash = line.hash.as_ref().map_or("", |hash| &hash.as_str()[..HASH_DIGITS]);
    let kind = match line.kind {
        MessageType::Request => "request",
        MessageType::Response => "response",
        MessageType::Question => "question",
    };
    let (time, from, to) = (clock(&line.at), line.from.to_string(), line.to.to_string());
    format!("{time:<14}{from:<13}→ {to:<13} {kind:<9} {task:<9} {hash:<13}{:>8}", line.bytes)
}

fn lines(story: &Story, reference: &dyn Fn(&Try) -> String) -> Vec<Line> {
    let orchestrator = Party::Role(Role::Orchestrator);
    let mut lines: Vec<(i64, Line)> = Vec::new();
    for one in &story.tries {
        let (role, attempt) = (Party::Role(one.role), one.attempt);
        if let (Some(request), Some(at)) = (&one.request, one.asked_at) {
            let about = &request.metadata;
            let line = Line {
                at: moment(at),
                from: request.from,
                to: request.to,
                kind: request.kind,
                task: one.task.clone(),
                attempt,
                hops: Some(about.hops),
                hash: about.input.clone(),
                bytes: about.bytes,
                reference: about.reference.clone().unwrap_or_default(),
            };
            lines.push((at, line));
        }
        if let (Some(reply), Some(at)) = (&one.reply, one.answered_at) {
            let text = reply.text();
            let line = Line {
                at: moment(at),
                from: role,
                to: one.request.as_ref().map_or(orchestrator, |request| request.from),
                kind: MessageType::Response,
                task: one.task.clone(),
                attempt,
                hops: None,
                hash: Some(ContentHash::of(text.as_bytes())),
                bytes: text.len() as u64,
                reference: reference(one),
            };
            lines.push((at, line));
        }
    }
    lines.sort_by_key(|(at, _)| *at);
    lines.into_iter().map(|(_, line)| line).collect()
}

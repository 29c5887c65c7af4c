//! `oarlock answer`: what a person says to a task that asks, through any orchestrator.

use serde_json::json;

use super::args::AnswerArgs;
use super::config::Config;
use super::control;
use super::people::meant;
use super::talk::say;
use crate::bus::Bus;
use crate::wire::RunId;

pub(super) async fn answer(config: &Config, args: AnswerArgs) -> anyhow::Result<()> {
    let (run, item) = control::parse(&args.what)?;
    let bus = control::fleet(config).await?;
    let by = args.who.who.unwrap_or_else(|| config.who.clone());
    let item = meant(&bus, &run, item, "answer", &by).await?;
    say(&tell(&bus, &run, &item, &by, &args.text).await?);
    Ok(())
}

/// Answers a question of a run; what came of it, in words.
///
/// # Errors
/// What stands instead, or why nobody heard it.
pub(super) async fn tell(bus: &Bus, run: &RunId, item: &str, by: &str, text: &str) -> anyhow::Result<String> {
    let request = json!({ "run": run, "item": item, "by": by, "text": text });
    let answer = control::ask_each(bus, "answer", &request).await?;
    let item = answer.get("item").and_then(serde_json::Value::as_str).unwrap_or_default();
    Ok(format!("{run}/{item} is answered"))
}

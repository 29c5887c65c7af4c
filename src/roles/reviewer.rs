//! The reviewer: a verdict, and findings with ids that the next attempt can answer.

use serde::Deserialize;
use serde_json::Value;

use super::briefing::Briefing;
use super::{Desk, Product, Stopped, state};
use crate::wire::{Failure, FailureKind, Finding, Report, Review, Task, Usage, Verdict, code_hash};

#[derive(Deserialize)]
struct Answer {
    verdict: Verdict,
    findings: Vec<FoundText>,
}

#[derive(Deserialize)]
struct FoundText {
    #[serde(default)]
    file: Option<String>,
    text: String,
}

pub(super) async fn work(desk: &Desk, briefing: &Briefing, usage: &mut Usage) -> Result<Product, Stopped> {
    if briefing.files.is_empty() && briefing.context.is_empty() {
        return Err(Failure::never(FailureKind::NoFiles, "there is nothing to review: no file and no result").into());
    }
    let read = |value: &Value| Ok((read(value, &briefing.task)?, state::proposed(&briefing.task, value)?));
    let (review, state) = desk.ask_json(briefing, usage, read).await?;
    Ok(Product { report: Some(Report::Review(review.clone())), ..Product::text(in_words(&review)) }.proposing(state))
}

fn read(value: &Value, task: &Task) -> Result<Review, Vec<String>> {
    let answer: Answer = serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
    if answer.verdict == Verdict::Changes && answer.findings.is_empty() {
        return Err(vec!["the verdict \"changes\" needs at least one finding that says what to change".into()]);
    }
    let findings = answer.findings.into_iter().enumerate().map(|(index, found)| Finding {
        id: format!("{}.{}.f{}", task.id, task.attempt, index + 1),
        file: found.file.filter(|file| !file.is_empty()),
        text: found.text,
    });
    Ok(Review { verdict: answer.verdict, findings: findings.collect(), judged: code_hash(&task.files) })
}

fn in_words(review: &Review) -> String {
    let verdict = match review.verdict {
        Verdict::Approve => "approved",
        Verdict::Changes => "changes are needed",
    };
    let line = |finding: &Finding| {
        let place = finding.file.as_ref().map(|file| format!("{file}: ")).unwrap_or_default();
        format!("- {} {place}{}", finding.id, finding.text)
    };
    let lines: Vec<String> = review.findings.iter().map(line).collect();
    format!("Review: {verdict}\n{}", lines.join("\n")).trim_end().to_owned()
}

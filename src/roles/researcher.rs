//! The researcher: findings with their sources, and what could not be found.

use serde::Deserialize;

use super::briefing::Briefing;
use super::{Desk, Product};
use crate::wire::{Failure, Usage};

#[derive(Deserialize)]
struct Answer {
    findings: Vec<Finding>,
    not_found: Vec<String>,
}

#[derive(Deserialize)]
struct Finding {
    text: String,
    source: String,
}

pub(super) async fn work(desk: &Desk, briefing: &Briefing, usage: &mut Usage) -> Result<Product, Failure> {
    let answer = desk.ask_json(briefing, usage, |value| {
        let answer: Answer = serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
        match answer.findings.is_empty() && answer.not_found.is_empty() {
            true => Err(vec!["say what was found, or what could not be found".into()]),
            false => Ok(answer),
        }
    });
    Ok(Product::text(in_words(&answer.await?)))
}

fn in_words(answer: &Answer) -> String {
    let mut lines: Vec<String> =
        answer.findings.iter().map(|finding| format!("- {} [{}]", finding.text, finding.source)).collect();
    if !answer.not_found.is_empty() {
        lines.push("Not found:".into());
        lines.extend(answer.not_found.iter().map(|text| format!("- {text}")));
    }
    lines.join("\n")
}

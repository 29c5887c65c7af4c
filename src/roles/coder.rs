//! The coder: files, whole, stored by their hash. Its reply names the whole set, so that the next attempt and the checks
//! work on what it says and nothing else. What a reviewer found it must answer, each finding by its id; a fault that is
//! "fixed" without a changed file is not.

use serde::Deserialize;
use serde_json::Value;

use super::briefing::{Briefing, storage};
use super::files::{self, WrittenFile};
use super::{Desk, Product, Stopped, state};
use crate::store::FileSet;
use crate::wire::{AnswerVerdict, Answers, Artifact, FilePath, Finding, FindingAnswer, Report, Role, Usage, clashes};

#[derive(Deserialize)]
struct Answer {
    files: Vec<WrittenFile>,
    #[serde(default)]
    deleted: Vec<String>,
    #[serde(default)]
    answers: Vec<FindingAnswer>,
    summary: String,
}

struct Change {
    written: FileSet,
    deleted: Vec<FilePath>,
    answers: Vec<FindingAnswer>,
    summary: String,
}

pub(super) async fn work(desk: &Desk, briefing: &Briefing, usage: &mut Usage) -> Result<Product, Stopped> {
    let task = &briefing.task;
    // A role file of one's own may know no answers; then none are asked for.
    let findings = if may_answer(desk.definition.output.as_ref()) { &task.findings[..] } else { &[] };
    let read = |value: &Value| Ok((read(value, &briefing.files, findings)?, state::proposed(task, value)?));
    let (change, state) = desk.ask_json(briefing, usage, read).await?;
    let stored = desk.store.artifacts.put(&task.run, Role::Coder, &change.written).await.map_err(storage)?;
    // What coders wrote before stays in the set, unless it was rewritten or deleted.
    let untouched = |file: &&Artifact| {
        file.role == Role::Coder && !change.written.contains_key(&file.path) && !change.deleted.contains(&file.path)
    };
    let mut artifacts: Vec<Artifact> = task.files.iter().filter(untouched).cloned().collect();
    artifacts.extend(stored);
    artifacts.sort_by(|one, other| one.path.cmp(&other.path));
    let names: Vec<String> = artifacts.iter().map(|file| file.path.to_string()).collect();
    let answered = in_words(&change.answers, findings);
    let content = format!("{}{answered}\n\nFiles: {}", change.summary.trim(), names.join(", "));
    let report = (!change.answers.is_empty()).then_some(Report::Answers(Answers { answers: change.answers }));
    Ok(Product { content, artifacts, report, state })
}

fn may_answer(shape: Option<&Value>) -> bool {
    shape.is_none_or(|shape| shape.pointer("/properties/answers").is_some())
}

/// The role's shape for a task: answers are asked for when there is something to answer, and otherwise not spoken of.
pub(super) fn shape(shape: &Value, findings: &[Finding]) -> Value {
    let mut shape = shape.clone();
    if findings.is_empty() {
        if let Some(properties) = shape.pointer_mut("/properties").and_then(Value::as_object_mut) {
            properties.remove("answers");
        }
    } else if may_answer(Some(&shape))
        && let Some(required) = shape.pointer_mut("/required").and_then(Value::as_array_mut)
    {
        required.push("answers".into());
    }
    shape
}

fn in_words(answers: &[FindingAnswer], findings: &[Finding]) -> String {
    let line = |answer: &FindingAnswer| {
        let found = findings.iter().find(|finding| finding.id == answer.finding);
        let text = found.map(|finding| finding.text.as_str()).unwrap_or_default();
        let verdict = match answer.verdict {
            AnswerVerdict::Fixed => "fixed",
            AnswerVerdict::Rejected => "rejected",
        };
        format!("\n- {} ({text}) {verdict}: {}", answer.finding, answer.why)
    };
    let lines: String = answers.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n\nAnswers to the findings:{lines}") }
}

fn read(value: &Value, known: &FileSet, findings: &[Finding]) -> Result<Change, Vec<String>> {
    let answer: Answer = serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
    let written = files::checked(&answer.files)?;
    let mut faults = Vec::new();
    let mut deleted = Vec::new();
    for name in &answer.deleted {
        match name.parse::<FilePath>() {
            Ok(path) if known.contains_key(&path) && !written.contains_key(&path) => deleted.push(path),
            Ok(path) => faults.push(format!("{path} is in \"deleted\" but is not there, or is written as well")),
            Err(bad) => faults.push(bad.to_string()),
        }
    }
    let mut whole: FileSet = known.iter().filter(|(path, _)| !deleted.contains(path)).map(copy).collect();
    whole.extend(written.iter().map(copy));
    faults.extend(clashes(whole.keys()));
    let changed = !deleted.is_empty() || written.iter().any(|(path, content)| known.get(path) != Some(content));
    let answers = answers(&answer.answers, findings, changed).unwrap_or_else(|wrong| {
        faults.extend(wrong);
        Vec::new()
    });
    if faults.is_empty() { Ok(Change { written, deleted, answers, summary: answer.summary }) } else { Err(faults) }
}

/// The answer to each finding, in the findings' order; what answers none is dropped.
fn answers(given: &[FindingAnswer], findings: &[Finding], changed: bool) -> Result<Vec<FindingAnswer>, Vec<String>> {
    let mut faults = Vec::new();
    let mut answers = Vec::new();
    for finding in findings {
        let id = &finding.id;
        match given.iter().filter(|answer| answer.finding == *id).collect::<Vec<_>>()[..] {
            [] => faults.push(format!(
                "\"answers\" has no answer to finding {id}; say \"fixed\", or \"rejected\" with the reason"
            )),
            [answer] if answer.verdict == AnswerVerdict::Fixed && !changed => faults.push(format!(
                "finding {id} is \"fixed\", but no file has changed; change what it is about, or reject it with the reason"
            )),
            [answer] => answers.push(answer.clone()),
            _ => faults.push(format!("finding {id} is answered more than once in \"answers\"")),
        }
    }
    if faults.is_empty() { Ok(answers) } else { Err(faults) }
}

fn copy((path, content): (&FilePath, &Vec<u8>)) -> (FilePath, Vec<u8>) {
    (path.clone(), content.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(ids: &[&str]) -> Vec<Finding> {
        ids.iter().map(|id| Finding { id: (*id).into(), file: None, text: "too short".into() }).collect()
    }

    fn complaints(answers: &Value, content: &str, ids: &[&str]) -> Vec<String> {
        let known = FileSet::from([("a.py".parse().unwrap(), b"x = 1\n".to_vec())]);
        let files = json!([{ "path": "a.py", "content": content }]);
        let value = json!({ "summary": "s", "files": files, "answers": answers });
        read(&value, &known, &found(ids)).err().unwrap_or_default()
    }

    #[test]
    fn each_finding_is_answered_and_a_mend_without_a_change_is_none() {
        let answer = |id: &str, verdict: &str| json!({ "finding": id, "verdict": verdict, "why": "so" });
        let (fixed, rejected) = (answer("t3.1.f1", "fixed"), answer("t3.1.f1", "rejected"));
        let (one, both) = (&["t3.1.f1"][..], &["t3.1.f1", "t4.1.f1"][..]);
        for (answers, content, ids, says) in [
            (json!([fixed]), "x = 2\n", one, ""),
            (json!([rejected]), "x = 1\n", one, ""),
            (json!([]), "x = 1\n", &[], ""),
            (json!([fixed, answer("t9.1.f1", "fixed")]), "x = 2\n", one, ""),
            (json!([]), "x = 2\n", one, "no answer to finding t3.1.f1"),
            (json!([fixed]), "x = 2\n", both, "no answer to finding t4.1.f1"),
            (json!([fixed]), "x = 1\n", one, "finding t3.1.f1 is \"fixed\", but no file has changed"),
            (json!([fixed, rejected]), "x = 2\n", one, "more than once"),
        ] {
            let said = complaints(&answers, content, ids);
            assert_eq!(said.is_empty(), says.is_empty(), "{answers}: {said:?}");
            assert!(said.join("; ").contains(says), "{answers}: {said:?}");
        }
    }

    #[test]
    fn answers_are_asked_for_only_when_there_is_something_to_answer() {
        let whole = json!({ "required": ["files"], "properties": { "files": {}, "answers": {} } });
        assert_eq!(shape(&whole, &found(&["f"]))["required"], json!(["files", "answers"]));
        assert_eq!(shape(&whole, &[])["properties"], json!({ "files": {} }));
        let old = json!({ "required": ["files"], "properties": { "files": {} } });
        assert_eq!((shape(&old, &found(&["f"])), may_answer(Some(&old))), (old.clone(), false));
    }
}

//! The control verbs: what people and tools ask about runs, and tell them. Each takes a run's id as plain text, with a task
//! behind a slash where it is about one, or the same as JSON; each answers in JSON.

use serde_json::{Value, json};

use super::inbox::{InboxAsked, inbox};
use super::request::{ControlRequest, Refused};
use super::{Orchestrator, answering, answers, cancel, retry, view};
use crate::bus::{Answer, DoorRequest};
use crate::wire::Said;
use crate::wire::subject::{HEADER_RUN, HEADER_STATUS};
use crate::worker::error_answer;

/// Runs that one `list` shows.
const LIST_MAX: usize = 100;
/// The verbs of this version.
const VERBS: [&str; 14] = [
    "list", "status", "cancel", "retry", "requeue", "drop", "inbox", "approve", "reject", "edit", "answer", "note",
    "pause", "resume",
];
/// Verbs that take words after the run.
const WORDY: [&str; 3] = ["reject", "answer", "note"];

pub(super) async fn control(of: &Orchestrator, request: &DoorRequest) -> Answer {
    let (verb, who) = addressed(&request.subject);
    if verb == "list" {
        return list(of).await;
    }
    if !VERBS.contains(&verb) {
        return Answer::error(501, &format!("there is no verb {verb:?}; there are: {}", VERBS.join(", ")));
    }
    if verb == "inbox" {
        return match InboxAsked::read(&request.payload) {
            Ok(asked) => answer(inbox(of, asked).await),
            Err(why) => Answer::error(400, &format!("{why}; send nothing, a run's id, or {{\"run\": id}}")),
        };
    }
    let asked =
        match ControlRequest::read(&request.payload, WORDY.contains(&verb)).and_then(|asked| asked.spoken_by(who)) {
            Ok(asked) => asked,
            Err(why) => return Answer::error(400, &format!("{why}; send a run's id, or {{\"run\": id}}")),
        };
    let run = asked.run.clone();
    let done = match verb {
        "status" => status(of, &asked).await,
        "cancel" => cancel::cancel(of, asked).await,
        "retry" => retry::retry(of, &asked).await,
        "requeue" => retry::requeue(of, &asked).await,
        "approve" | "reject" | "edit" => answers::decide(of, &asked, verb).await,
        "answer" => answering::answer(of, &asked).await,
        "note" => answers::note(of, &asked).await,
        "pause" => answers::hold(of, &asked, &Said::Pause).await,
        "resume" => answers::hold(of, &asked, &Said::Resume).await,
        _ => retry::drop_letter(of, &asked).await,
    };
    answer(done).header(HEADER_RUN, run.as_str())
}

/// The verb of a subject, and who speaks when it names somebody: `….control.approve.ann`.
fn addressed(subject: &str) -> (&str, Option<&str>) {
    let place = subject.rsplit(".control.").next().unwrap_or_default();
    place.split_once('.').map_or((place, None), |(verb, who)| (verb, Some(who)))
}

fn answer(done: Result<Value, Refused>) -> Answer {
    match done {
        Ok(value) => {
            let status = value.get("status").and_then(Value::as_str).unwrap_or_default().to_owned();
            Answer::ok(value.to_string()).header(HEADER_STATUS, &status)
        }
        Err(Refused::Because(code, why)) => Answer::error(code, &why),
        Err(Refused::Store(error)) => error_answer(error.into()),
    }
}

async fn list(of: &Orchestrator) -> Answer {
    match of.store.runs.list(LIST_MAX).await {
        Ok((runs, total)) => Answer::ok(json!({ "runs": runs, "total": total }).to_string()),
        Err(error) => error_answer(error.into()),
    }
}

async fn status(of: &Orchestrator, asked: &ControlRequest) -> Result<Value, Refused> {
    let view = view::view(&of.store, &asked.run, &of.settings.rules).await?;
    let view = view.ok_or_else(|| Refused::unknown(&asked.run))?;
    Ok(serde_json::to_value(&view).unwrap_or_default())
}

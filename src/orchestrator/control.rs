//! The control verbs: what people and tools ask about runs, and tell them. Each takes a run's id as plain text, with a task
//! behind a slash where it is about one, or the same as JSON; each answers in JSON.

use serde::Deserialize;
use serde_json::{Value, json};

use super::inbox::{InboxAsked, inbox};
use super::{Orchestrator, answering, answers, cancel, retry, view};
use crate::bus::{Answer, DoorRequest};
use crate::store::StoreError;
use crate::wire::subject::{HEADER_RUN, HEADER_STATUS};
use crate::wire::{ItemId, NOBODY, Plan, RunId, Said, TaskId, run_and_task};
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

/// What a control request is about.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// The run.
    pub(super) run: RunId,
    /// The task.
    #[serde(default)]
    pub(super) task: Option<TaskId>,
    /// Why, for a cancel.
    #[serde(default)]
    pub(super) reason: Option<String>,
    /// The generation that is meant, for a cancel; the one in force without it.
    #[serde(default)]
    pub(super) generation: Option<u32>,
    /// The task to begin from, for a retry.
    #[serde(default)]
    pub(super) from: Option<TaskId>,
    /// The plan from now on, for a retry or an edit.
    #[serde(default)]
    pub(super) plan: Option<Plan>,
    /// What is decided about.
    #[serde(default)]
    pub(super) item: Option<ItemId>,
    /// Who says it.
    #[serde(default)]
    pub(super) by: Option<String>,
    /// The words of a note or an answer.
    #[serde(default)]
    pub(super) text: Option<String>,
}

impl Asked {
    /// A request about the whole run.
    pub(super) fn about(run: RunId) -> Self {
        Self {
            run,
            task: None,
            reason: None,
            generation: None,
            from: None,
            plan: None,
            item: None,
            by: None,
            text: None,
        }
    }

    /// The same, said by whom the subject names: the server lets nobody else publish there, if its operator wants it so.
    ///
    /// # Errors
    /// When it claims to be from somebody else.
    fn spoken_by(mut self, who: Option<&str>) -> Result<Self, String> {
        let Some(who) = who else { return Ok(self) };
        match self.by.replace(who.to_owned()) {
            Some(by) if by != who => Err(format!("the subject speaks for {who:?}, and the request for {by:?}")),
            _ => Ok(self),
        }
    }

    /// Who says it, as far as anybody said so.
    pub(super) fn by(&self) -> &str {
        self.by.as_deref().unwrap_or(NOBODY)
    }
}

/// Why a control request was not done.
#[derive(Debug)]
pub(super) enum Refused {
    /// As an answer: the code as in HTTP, and what to say.
    Because(u16, String),
    /// The store could not be used.
    Store(StoreError),
}

impl<E: Into<StoreError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Refused::Store(error.into())
    }
}

impl Refused {
    pub(super) fn unknown(run: &RunId) -> Self {
        Refused::Because(404, format!("there is no run {run}; `oarlock ps` and `list` show those that are kept"))
    }
}

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
    let asked = match read(&request.payload, WORDY.contains(&verb)).and_then(|asked| asked.spoken_by(who)) {
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

/// `<run>`, `<run>/<task>`, or JSON. When the request is `wordy`, words may come after that.
fn read(payload: &[u8], wordy: bool) -> Result<Asked, String> {
    let text = std::str::from_utf8(payload).map_err(|error| format!("the request is not UTF-8 text ({error})"))?.trim();
    if text.starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("the request is not understood ({error})"));
    }
    let (name, words) = text.split_once(char::is_whitespace).filter(|_| wordy).unwrap_or((text, ""));
    let (run, task) = run_and_task(name).map_err(|error| error.to_string())?;
    let text = Some(words.trim().to_owned()).filter(|words| !words.is_empty());
    Ok(Asked { task, text, ..Asked::about(run) })
}

async fn list(of: &Orchestrator) -> Answer {
    match of.store.runs.list(LIST_MAX).await {
        Ok((runs, total)) => Answer::ok(json!({ "runs": runs, "total": total }).to_string()),
        Err(error) => error_answer(error.into()),
    }
}

async fn status(of: &Orchestrator, asked: &Asked) -> Result<Value, Refused> {
    let view = view::view(&of.store, &asked.run, &of.settings.rules).await?;
    let view = view.ok_or_else(|| Refused::unknown(&asked.run))?;
    Ok(serde_json::to_value(&view).unwrap_or_default())
}

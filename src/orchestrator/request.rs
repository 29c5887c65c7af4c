//! What comes to the control doors, and why it may not be done.

use serde::Deserialize;

use crate::store::StoreError;
use crate::wire::{ItemId, NOBODY, Plan, RunId, TaskId, run_and_task};

/// What a control request is about.
#[derive(Debug, Deserialize)]
pub(super) struct ControlRequest {
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

impl ControlRequest {
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

    /// `<run>`, `<run>/<task>`, or JSON. When the request is `wordy`, words may come after that.
    pub(super) fn read(payload: &[u8], wordy: bool) -> Result<Self, String> {
        let text =
            std::str::from_utf8(payload).map_err(|error| format!("the request is not UTF-8 text ({error})"))?.trim();
        if text.starts_with('{') {
            return serde_json::from_str(text).map_err(|error| format!("the request is not understood ({error})"));
        }
        let (name, words) = text.split_once(char::is_whitespace).filter(|_| wordy).unwrap_or((text, ""));
        let (run, task) = run_and_task(name).map_err(|error| error.to_string())?;
        let text = Some(words.trim().to_owned()).filter(|words| !words.is_empty());
        Ok(Self { task, text, ..Self::about(run) })
    }

    /// The same, said by whom the subject names: the server lets nobody else publish there, if its operator wants it so.
    ///
    /// # Errors
    /// When it claims to be from somebody else.
    pub(super) fn spoken_by(mut self, who: Option<&str>) -> Result<Self, String> {
        let Some(who) = who else { return Ok(self) };
        match self.by.replace(who.to_owned()) {
            Some(by) if by != who => Err(format!("the subject speaks for {who:?}, and the request for {by:?}")),
            _ => Ok(self),
        }
    }

    /// The item that is named, as one or, in plain text, in the place of a task.
    pub(super) fn item(&self) -> Option<ItemId> {
        self.item.clone().or_else(|| self.task.as_ref()?.as_str().parse().ok())
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

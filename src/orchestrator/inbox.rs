//! What waits for people, of one run or of all that go on: read side by side, and given in pages, because a fleet may have more
//! of it than one answer holds. One run that cannot be read is named, and hides none of the others.

use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::Refused;
use super::{Orchestrator, view};
use crate::store::{Recorded, StoreError};
use crate::wire::{ItemView, RunId, limits, run_and_task};

/// Runs that one page looks at.
const INBOX_RUNS_MAX: usize = 200;
/// Bytes of the items of one page, about; it has at least one.
const INBOX_BYTES_MAX: usize = 256 * 1024;
/// Runs that are read side by side.
const INBOX_AT_ONCE_MAX: usize = 16;
/// Bytes of a goal's first line, and of the reason why a run cannot be read.
const LINE_BYTES_MAX: usize = 200;
/// Names of unreadable inputs that are shown of a run.
const UNREADABLE_SHOWN_MAX: usize = 5;

/// What is asked.
#[derive(Debug, Default, Deserialize)]
pub(super) struct InboxAsked {
    /// One run alone.
    #[serde(default)]
    run: Option<RunId>,
    /// Where the page before ended, as it said.
    #[serde(default)]
    after: Option<String>,
}

/// One run's part.
#[derive(Default)]
struct Part {
    goal: String,
    items: Vec<ItemView>,
    unreadable: Option<String>,
}

impl InboxAsked {
    /// Nothing, a run's id, or JSON.
    pub(super) fn read(payload: &[u8]) -> Result<Self, String> {
        match payload.trim_ascii() {
            b"" | b"null" => Ok(Self::default()),
            json if json.starts_with(b"{") => serde_json::from_slice(json).map_err(|error| error.to_string()),
            text => {
                let run = String::from_utf8_lossy(text).parse::<RunId>().map_err(|error| error.to_string())?;
                Ok(Self { run: Some(run), after: None })
            }
        }
    }
}

/// A page of what waits.
pub(super) async fn inbox(of: &Orchestrator, asked: InboxAsked) -> Result<Value, Refused> {
    let after = asked.after.as_deref().map(run_and_task).transpose();
    let after = after.map_err(|error| Refused::Because(400, format!("after is not as a page said it: {error}")))?;
    let mut runs = match &asked.run {
        Some(run) if of.store.runs.record(run).await?.is_none() => return Err(Refused::unknown(run)),
        Some(run) => vec![run.clone()],
        None => going_on(of).await?,
    };
    if let Some((run, item)) = &after {
        runs.retain(|one| if item.is_some() { one >= run } else { one > run });
    }
    let mut more = runs.len() > INBOX_RUNS_MAX;
    runs.truncate(INBOX_RUNS_MAX);
    let all = asked.run.is_none();
    let mut parts = stream::iter(runs)
        .map(|run| async move {
            let part = part(of, &run, all).await;
            (run, part)
        })
        .buffered(INBOX_AT_ONCE_MAX);
    let (mut items, mut unreadable, mut bytes, mut last) = (Vec::new(), Vec::new(), 0, String::new());
    'page: while let Some((run, part)) = parts.next().await {
        let Part { goal, items: of_run, unreadable: why } = part?;
        for item in of_run {
            let name = item.item.as_str();
            if after
                .as_ref()
                .is_some_and(|(seen, item)| *seen == run && item.as_ref().is_some_and(|item| name <= item.as_str()))
            {
                continue;
            }
            let (at, one) = (format!("{run}/{name}"), json!({ "run": run, "goal": goal, "waits": item }));
            bytes += one.to_string().len();
            if bytes > INBOX_BYTES_MAX && !items.is_empty() {
                more = true;
                break 'page;
            }
            items.push(one);
            last = at;
        }
        unreadable.extend(why.map(|why| json!({ "run": run, "why": why })));
        if !last.starts_with(run.as_str()) {
            last = run.to_string();
        }
    }
    let after = more.then_some(last);
    Ok(json!({ "items": items, "unreadable": unreadable, "more": more, "after": after }))
}

/// The runs that are not over, in the order of their names.
async fn going_on(of: &Orchestrator) -> Result<Vec<RunId>, StoreError> {
    let mut runs = Vec::new();
    let see = |run: RunId, recorded: Recorded, _| {
        if !recorded.record.status.terminal() {
            runs.push(run);
        }
    };
    of.store.runs.each(see).await?;
    runs.sort_unstable();
    Ok(runs)
}

/// What waits of a run. Of one among many, what cannot be read is told and is no error.
async fn part(of: &Orchestrator, run: &RunId, one_of_many: bool) -> Result<Part, StoreError> {
    match read(of, run).await {
        Err(StoreError::Unreadable { what, kind }) if one_of_many => {
            let why = format!("its {kind} {what} cannot be read");
            Ok(Part { unreadable: Some(limits::cut(&why, LINE_BYTES_MAX)), ..Part::default() })
        }
        read => read,
    }
}

async fn read(of: &Orchestrator, run: &RunId) -> Result<Part, StoreError> {
    let rules = &of.settings.rules;
    // Most runs ask nobody: two reads tell that.
    let Some(goal) = of.store.runs.goal(run).await? else { return Ok(Part::default()) };
    if !goal.asks_people() && of.store.inputs.none(run).await? {
        return Ok(Part::default());
    }
    let Some(view) = view::view(&of.store, run, rules).await? else { return Ok(Part::default()) };
    let mut items = view.waiting;
    items.sort_by(|one, other| one.item.as_str().cmp(other.item.as_str()));
    let goal = limits::cut(view.goal.lines().next().unwrap_or_default(), LINE_BYTES_MAX);
    let names = view.unreadable.iter().take(UNREADABLE_SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    let count = view.unreadable.len();
    let unreadable = (count > 0).then(|| format!("{count} inputs of it cannot be read and count for nothing: {names}"));
    Ok(Part { goal, items, unreadable })
}

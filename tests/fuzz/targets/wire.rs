//! Every wire type, from bytes that anybody sent. The same bytes go to all of them: each refuses most inputs at once, and
//! a kept input of one is a near miss for another.

use std::fmt::Debug;
use std::str::FromStr;

use oarlock::wire::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Lengths that a text is cut to.
const CUTS: [usize; 4] = [0, 1, 7, 64];

pub fn run(data: &[u8]) {
    documents(data);
    parts(data);
    doors(data);
    if let Ok(text) = std::str::from_utf8(data) {
        words(text);
        subjects(text);
        files(text);
    }
}

/// What was read is written, and read again as the same.
pub fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(data).ok()?;
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written)
        .unwrap_or_else(|error| panic!("{} is not read back: {error}", String::from_utf8_lossy(&written)));
    assert_eq!(value, again, "another value was read back");
    assert_eq!(serde_json::to_vec(&again).expect("written once"), written, "another text was written");
    Some(value)
}

/// Payloads with a version.
fn documents(data: &[u8]) {
    let versions = [
        round_trip::<Goal>(data).map(|goal| goal.v),
        round_trip::<Task>(data).map(|task| task.v),
        round_trip::<Reply>(data).map(|reply| reply_promises(&reply)),
        round_trip::<Message>(data).map(|message| message.v),
        round_trip::<Event>(data).map(|event| event.v),
        round_trip::<Plan>(data).map(|plan| plan.v),
        round_trip::<RunRecord>(data).map(|record| record.v),
        round_trip::<RunView>(data).map(|view| view.v),
    ];
    let claimed = version_of(data);
    // A list is no object with a field `v`, although serde would fill a struct from one.
    if data.trim_ascii_start().starts_with(b"{") {
        for version in versions.into_iter().flatten() {
            assert_eq!(claimed, Some(version), "the version is read in two ways");
        }
    }
}

fn reply_promises(reply: &Reply) -> u32 {
    let root = Root::default();
    assert_eq!(root.parse(&root.result(&reply.subject())), Some(reply.subject()));
    let sent: Reply = serde_json::from_slice(&reply.to_payload()).expect("a payload is read back");
    assert_eq!(sent.subject(), reply.subject());
    assert_eq!(reply.failure().is_some(), matches!(reply.outcome, Outcome::Failed { .. }));
    // Every reply's cost is added up, whatever its worker claims.
    let mut sum = reply.usage;
    sum += reply.usage;
    assert!(
        sum.input >= reply.usage.input && sum.calls >= reply.usage.calls,
        "a sum of costs is less than one of them"
    );
    reply.v
}

/// Parts of payloads.
fn parts(data: &[u8]) {
    round_trip::<GoalRequest>(data);
    round_trip::<Attachment>(data);
    round_trip::<Ask>(data);
    round_trip::<RunSummary>(data);
    round_trip::<TaskView>(data);
    round_trip::<Owner>(data);
    round_trip::<Outcome>(data);
    round_trip::<Report>(data);
    round_trip::<TestReport>(data);
    round_trip::<Review>(data);
    round_trip::<Finding>(data);
    round_trip::<Failure>(data);
    round_trip::<Retry>(data);
    round_trip::<Content>(data);
    round_trip::<ContextItem>(data);
    round_trip::<Artifact>(data);
    round_trip::<Usage>(data);
    round_trip::<Party>(data);
    round_trip::<ContentHash>(data);
}

/// What comes to a door as plain text or JSON.
fn doors(data: &[u8]) {
    match GoalRequest::parse(data) {
        Ok(request) => {
            assert!(!request.goal.trim().is_empty() && request.goal.len() <= limits::GOAL_BYTES_MAX);
            assert!(request.attachments.len() <= limits::ATTACHMENTS_MAX);
            let written = serde_json::to_vec(&request).expect("a request can be written");
            assert_eq!(GoalRequest::parse(&written).expect("a request is taken again"), request);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match Ask::parse(data) {
        Ok(ask) => {
            assert!(!ask.description.trim().is_empty() && ask.description.len() <= limits::DESCRIPTION_BYTES_MAX);
            assert!(ask.context.iter().map(String::len).sum::<usize>() <= limits::INLINE_BYTES_MAX);
            let written = serde_json::to_vec(&ask).expect("a task can be written");
            assert_eq!(Ask::parse(&written).expect("a task is taken again"), ask);
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

/// A word that is taken is written as it was, in JSON too; a word that is refused in text is refused in JSON.
fn word<T>(text: &str) -> Option<T>
where
    T: FromStr + ToString + Serialize + DeserializeOwned + PartialEq + Debug,
{
    let json = serde_json::to_vec(text).expect("a text can be written");
    let parsed = text.parse::<T>().ok();
    assert_eq!(round_trip::<T>(&json), parsed, "text and JSON disagree about {text:?}");
    if let Some(value) = &parsed {
        assert_eq!(value.to_string(), text);
    }
    parsed
}

fn words(text: &str) {
    let is_id = (1..=limits::ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    assert_eq!(word::<RunId>(text).is_some(), is_id);
    if let Some(id) = word::<TaskId>(text) {
        let number = text.strip_prefix("over").unwrap_or_default();
        assert_eq!(id.is_over(), !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    }
    word::<Role>(text);
    word::<Party>(text);
    let _ = Role::for_words(text);
    if let Ok(root) = text.parse::<Root>() {
        assert_eq!(root.to_string(), text);
        let to = subject::TaskSubject::of_run(&RunId::from_key("", text), 1);
        assert_eq!(root.parse(&root.task(&to)), Some(to));
    }
    for bytes in CUTS {
        let cut = limits::cut(text, bytes);
        let kept = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= bytes).last().unwrap_or_default();
        let expected = format!("{}… ({} bytes more)", &text[..kept], text.len() - kept);
        assert!(if text.len() <= bytes { cut == text } else { cut == expected }, "{cut:?}");
    }
    assert!(word::<RunId>(RunId::from_key(text, text).as_str()).is_some(), "a key makes no legal id");
}

/// A subject that is read is one that this fleet would write: no two subjects stand for the same task.
fn subjects(text: &str) {
    let root = Root::default();
    for subject in text.lines() {
        let Some(to) = root.parse(subject) else { continue };
        let ours = [root.task(&to), root.due(&to), root.result(&to), root.stored(&to)];
        assert!(ours.iter().any(|known| known == subject), "{subject:?} is read as {to:?}");
    }
}

/// Names of files, one in each line.
fn files(text: &str) {
    let paths: Vec<FilePath> = text.lines().filter_map(word::<FilePath>).collect();
    for path in &paths {
        let name = path.as_str();
        assert!(!name.starts_with('/') && !name.contains(['\\', '\0', ':']), "{name:?}");
        assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")), "{name:?}");
        assert!(name.chars().count() <= limits::PATH_CHARS_MAX);
        assert!(name.ends_with(path.file_name()));
    }
    let faults = clashes(paths.iter());
    assert_eq!(faults.is_empty(), can_stand_together(&paths), "{faults:?}");
}

/// The same question as [`clashes`], asked in another way.
fn can_stand_together(paths: &[FilePath]) -> bool {
    let mut names: Vec<Vec<String>> =
        paths.iter().map(|path| path.as_str().to_lowercase().split('/').map(str::to_owned).collect()).collect();
    names.sort();
    names.windows(2).all(|pair| !pair[1].starts_with(&pair[0]))
}

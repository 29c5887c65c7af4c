//! Identities. Each is parsed once at the border; inside, a value that exists is a legal one.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::limits;

/// Characters of a run id; 20 base32 digits are 100 bits.
const RUN_ID_CHARS: usize = 20;
/// Characters of a person's voter id, hexadecimal digits of a hash.
const VOTER_CHARS: usize = 16;

/// Text that is no legal id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} must be 1 to {chars_max} ASCII letters and digits")]
pub struct BadId {
    what: &'static str,
    text: String,
    chars_max: usize,
}

fn checked(what: &'static str, text: &str, chars_max: usize) -> Result<String, BadId> {
    let legal = (1..=chars_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let shown = || text.chars().take(2 * chars_max).collect();
    if legal { Ok(text.to_owned()) } else { Err(BadId { what, text: shown(), chars_max }) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub(super) String);

        impl $name {
            /// The id as it stands in subjects and keys.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                checked($what, text, limits::ID_CHARS_MAX).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// One execution of a goal: letters and digits, legal as subject token and as key.
    RunId,
    "run id"
);
id!(
    /// One task of a run: `t1` to `tn` of the plan, or one of the fixed ids below.
    TaskId,
    "task id"
);

id!(
    /// One thing about a run that people decide: an attempt's result that waits for them, a pause, a note.
    ItemId,
    "item id"
);
id!(
    /// Under whose name an input is kept.
    VoterId,
    "voter id"
);

id!(
    /// On whose account a run is; `default` where a goal names nobody.
    Tenant,
    "tenant"
);

impl RunId {
    /// A new id, random, so that nobody can guess or reuse it.
    pub fn random() -> Self {
        Self::from_bytes(&rand::random::<[u8; 16]>())
    }

    /// The id of the run that `tenant` asked for under the idempotency key `key`: the same key is the same run.
    pub fn from_key(tenant: &str, key: &str) -> Self {
        let digest = Sha256::new().chain_update(tenant).chain_update([0]).chain_update(key).finalize();
        Self::from_bytes(&digest)
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let mut text = data_encoding::BASE32_NOPAD.encode(bytes).to_ascii_lowercase();
        text.truncate(RUN_ID_CHARS);
        Self(text)
    }
}

impl TaskId {
    /// The planner's task of a run.
    pub fn plan() -> Self {
        Self("plan".into())
    }

    /// The synthesizer's task of a run.
    pub fn answer() -> Self {
        Self("answer".into())
    }

    /// The run itself, as a task of the orchestrators; its attempt is the run's generation.
    pub fn run() -> Self {
        Self("run".into())
    }

    /// The first message of a run on the orchestrators' queue.
    pub fn start() -> Self {
        Self("start".into())
    }

    /// The message that shows a canceled run to an orchestrator.
    pub fn cancel() -> Self {
        Self("cancel".into())
    }

    /// A message that shows a run to an orchestrator when a deadline of it is over. Each is called anew: of a subject that was
    /// written twice, an unclean restart of the server can bring back the older message after the newer was removed.
    pub fn alarm(number: u32) -> Self {
        Self(format!("alarm{number}"))
    }

    /// A message that brings a parked run to an orchestrator, because somebody said something: the input with this revision,
    /// or anything that is called by a number of its own.
    pub fn input(number: u64) -> Self {
        Self(format!("in{number}"))
    }

    /// The message that hands a run over from the delivery with stream sequence `seq`.
    pub fn over(seq: u64) -> Self {
        Self(format!("over{seq}"))
    }

    /// True for an id made by [`TaskId::over`].
    pub fn is_over(&self) -> bool {
        self.0.strip_prefix("over").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    }

    /// A task asked for at a role's door.
    pub fn ask() -> Self {
        Self("ask".into())
    }

    /// The question that the attempt of a task asked; `None` when questions about questions have made the id too long.
    pub fn question(asker: &TaskId, attempt: u32) -> Option<Self> {
        format!("{asker}q{attempt}").parse().ok()
    }

    /// The task and attempt that asked, when this is a question.
    pub fn asker(&self) -> Option<(TaskId, u32)> {
        let (asker, attempt) = self.0.rsplit_once('q')?;
        let plain = !attempt.is_empty() && attempt.bytes().all(|byte| byte.is_ascii_digit());
        Some((asker.parse().ok()?, attempt.parse().ok().filter(|_| plain)?))
    }

    /// An id `t<n>` above all of these.
    pub fn unused<'a>(taken: impl IntoIterator<Item = &'a TaskId>) -> Self {
        let number = |id: &TaskId| id.0.strip_prefix('t')?.parse::<usize>().ok();
        Self::planned(taken.into_iter().filter_map(number).max().unwrap_or(0).saturating_add(1))
    }

    /// The `number`-th task of a plan, counted from 1.
    pub fn planned(number: usize) -> Self {
        Self(format!("t{number}"))
    }
}

impl ItemId {
    /// The result of one attempt of a task, the planner's included.
    pub fn of(task: &TaskId, attempt: u32) -> Self {
        Self(format!("{task}x{attempt}"))
    }

    /// The `number`-th pause or resumption of a generation, from 1.
    pub fn hold(generation: u32, number: u32) -> Self {
        Self(format!("hold{generation}x{number}"))
    }

    /// The number of a pause or resumption of this generation; `None` for anything else.
    pub fn held(&self, generation: u32) -> Option<u32> {
        let (of, number) = self.0.strip_prefix("hold")?.split_once('x')?;
        (of.parse() == Ok(generation)).then(|| number.parse().ok())?
    }

    /// What the run's tasks should know.
    pub fn note() -> Self {
        Self("note".into())
    }
}

impl VoterId {
    pub(super) fn of_hash(hash: &ContentHash) -> Self {
        Self(hash.as_str()[..VOTER_CHARS].to_owned())
    }

    /// Whoever was first: for what only one may say.
    pub fn set() -> Self {
        Self("set".into())
    }

    /// The orchestrators, when the time is over.
    pub fn lapse() -> Self {
        Self("lapse".into())
    }

    /// The orchestrators, when half of the time is over.
    pub fn escalated() -> Self {
        Self("escalated".into())
    }
}

/// Reads `<run>` or `<run>/<task>`, as people write what they mean.
pub fn run_and_task(text: &str) -> Result<(RunId, Option<TaskId>), BadId> {
    let (run, task) = text.split_once('/').map_or((text, None), |(run, task)| (run, Some(task)));
    Ok((run.parse()?, task.map(str::parse).transpose()?))
}

/// SHA-256 of some content, 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash(String);

impl ContentHash {
    /// The hash of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&Sha256::digest(content)))
    }

    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ContentHash {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        let legal = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if legal { Ok(Self(text)) } else { Err(BadId { what: "sha256", text, chars_max: 64 }) }
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> String {
        hash.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_letters_and_digits_only() {
        for good in ["t1", "over12", "Abc", "a"] {
            assert_eq!(good.parse::<TaskId>().unwrap().as_str(), good);
        }
        for bad in ["", "a.b", "*", ">", "a b", "é", "a-b", "\n", &"x".repeat(limits::ID_CHARS_MAX + 1)] {
            assert!(bad.parse::<RunId>().is_err(), "{bad:?} was taken");
            assert!(serde_json::from_value::<RunId>(serde_json::json!(bad)).is_err(), "{bad:?} was read");
        }
    }

    #[test]
    fn the_same_key_is_the_same_run_and_tenants_do_not_meet() {
        let first = RunId::from_key("a", "nightly");
        assert_eq!(first, RunId::from_key("a", "nightly"));
        assert_eq!(first.as_str().len(), RUN_ID_CHARS);
        assert_ne!(first, RunId::from_key("b", "nightly"));
        assert_ne!(RunId::from_key("ab", "c"), RunId::from_key("a", "bc"));
        assert_ne!(RunId::random(), RunId::random());
    }

    #[test]
    fn a_question_knows_who_asked() {
        let question = TaskId::question(&TaskId::planned(2), 3).unwrap();
        assert_eq!((question.as_str(), question.asker()), ("t2q3", Some((TaskId::planned(2), 3))));
        let deeper = TaskId::question(&question, 1).unwrap();
        assert_eq!(deeper.asker(), Some((question, 1)));
        for other in ["t1", "plan", "answer", "q1", "t1q", "t1qx"] {
            assert_eq!(other.parse::<TaskId>().unwrap().asker(), None, "{other}");
        }
        assert_eq!(TaskId::question(&"t".repeat(31).parse().unwrap(), 1), None);
    }

    #[test]
    fn only_over_and_a_number_is_a_takeover() {
        assert!(TaskId::over(7).is_over());
        for other in ["over", "over7x", "start", "t1"] {
            assert!(!other.parse::<TaskId>().unwrap().is_over(), "{other}");
        }
    }
}

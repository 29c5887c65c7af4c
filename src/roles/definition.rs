//! A role is a Markdown file: YAML front matter with its limits and the shape of its answers, and a prompt template.
//!
//! The built-in files are compiled in; a folder can replace any of them, so that a prompt is changed like a document and
//! reviewed like code.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::asking::Askable;
use crate::tools::Grant;
use crate::wire::{Allowance, Role, Usd};

/// Bytes of a role file.
const ROLE_FILE_BYTES_MAX: u64 = 256 * 1024;
/// Seconds of the longest pause between two attempts that a policy can lead to.
const RETRY_DELAY_S_MAX: f64 = 600.0;
/// Seconds of the longest pause that a failure can ask for: it may come from anybody's program.
const RETRY_ASKED_S_MAX: u64 = 3_600;
/// Most new attempts that a policy can allow.
const RETRY_ATTEMPTS_MAX: u32 = 20;

/// Most slots of a role file: each is a task that waits, and a pull at the server.
const SLOTS_MAX: usize = 1000;
/// Longest time of a role file, a week.
const TIME_S_MAX: u64 = 7 * 24 * 3600;
/// Most tool calls of a role file: each is a completion too.
const TOOL_CALLS_MAX: u32 = 50;
/// Lines of a role's `asks`: all roles, the user and other tasks.
const ASKS_MAX: usize = 10;
/// Lines of a role's `tools`.
const GRANTS_MAX: usize = 64;

/// One role's definition.
#[derive(Clone, Debug)]
pub struct RoleDefinition {
    /// The role.
    pub role: Role,
    /// What it does, in one sentence: its system prompt, and what `nats micro info` shows.
    pub description: String,
    /// JSON Schema of its answers; `None` for prose.
    pub output: Option<serde_json::Value>,
    /// The prompt, a minijinja template.
    pub prompt: String,
    /// Its bounds.
    pub limits: RoleLimits,
    /// What happens after its failures.
    pub retry: RetryPolicy,
    /// The tools that it may use; none unless its file names them.
    pub tools: Vec<Grant>,
    /// Whether its results wait for a person.
    pub approve: bool,
    /// Whom it may ask before it answers; nobody unless its file says so, and the user only in a run that somebody attends.
    pub asks: Vec<Askable>,
}

/// A role's bounds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleLimits {
    /// Seconds that one task may take, the queue included.
    pub time_s: u64,
    /// Tasks that one process does at the same time.
    pub slots: usize,
    /// Tokens of one completion.
    #[serde(default = "output_tokens")]
    pub output_tokens: u32,
    /// Calls of tools that one task may make.
    #[serde(default = "tool_calls")]
    pub tool_calls: u32,
    /// Tokens that all tasks of the role in one run may take together, and one that belongs to no run; the run's when absent.
    #[serde(default)]
    pub tokens: Option<u64>,
    /// The same in money.
    #[serde(default)]
    pub usd: Option<Usd>,
}

fn output_tokens() -> u32 {
    4096
}

fn tool_calls() -> u32 {
    8
}

impl RoleLimits {
    /// The time that one task may take.
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.time_s)
    }

    /// What the role may spend.
    pub fn allowance(&self) -> Allowance {
        Allowance { tokens: self.tokens, cost_nano_usd: self.usd.map(Usd::nano) }
    }
}

/// What happens after a failure that a new attempt may get past: how many new attempts, and how long before each.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// New attempts of one task.
    pub attempts: u32,
    /// Seconds before the first of them, at least; a failure can ask for more.
    pub delay_s: f64,
    /// What the delay is multiplied by for each further one.
    pub factor: f64,
    /// Part of the delay that is added at random, from 0 to this, so that many do not come back at once.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 3, delay_s: 0.5, factor: 2.0, jitter: 0.2 }
    }
}

impl RetryPolicy {
    /// The pause before the new attempt that follows the `failures`-th failure (from 1), when the failure itself asks for
    /// `asked`. `share` is where in the jitter this one lies, from 0 to 1: drawn from the task's name, so that two
    /// orchestrators come to the same pause. At most [`RETRY_DELAY_S_MAX`] seconds, or what was asked for up to
    /// [`RETRY_ASKED_S_MAX`].
    pub fn delay(&self, failures: u32, asked: Duration, share: f64) -> Duration {
        let doubled = self.delay_s * self.factor.powi(i32::try_from(failures).unwrap_or(i32::MAX).saturating_sub(1));
        let own = Duration::try_from_secs_f64(doubled.min(RETRY_DELAY_S_MAX)).unwrap_or_default();
        own.max(asked.min(Duration::from_secs(RETRY_ASKED_S_MAX))).mul_f64(1.0 + self.jitter * share.clamp(0.0, 1.0))
    }

    fn check(&self) -> Result<(), String> {
        let sound = |value: f64, from: f64, to: f64| value.is_finite() && (from..=to).contains(&value);
        match () {
            () if self.attempts > RETRY_ATTEMPTS_MAX => Err(format!("attempts is over {RETRY_ATTEMPTS_MAX}")),
            () if !sound(self.delay_s, 0.0, RETRY_DELAY_S_MAX) => {
                Err(format!("delay_s must be 0 to {RETRY_DELAY_S_MAX}"))
            }
            () if !sound(self.factor, 1.0, 10.0) => Err("factor must be 1 to 10".into()),
            () if !sound(self.jitter, 0.0, 1.0) => Err("jitter must be 0 to 1".into()),
            () => Ok(()),
        }
    }
}

impl RoleDefinition {
    /// The text of a built-in role file.
    pub fn built_in(role: Role) -> &'static str {
        match role {
            Role::Orchestrator => include_str!("../../roles/orchestrator.md"),
            Role::Planner => include_str!("../../roles/planner.md"),
            Role::Researcher => include_str!("../../roles/researcher.md"),
            Role::Coder => include_str!("../../roles/coder.md"),
            Role::Qa => include_str!("../../roles/qa.md"),
            Role::Reviewer => include_str!("../../roles/reviewer.md"),
            Role::Documenter => include_str!("../../roles/documenter.md"),
            Role::Synthesizer => include_str!("../../roles/synthesizer.md"),
        }
    }

    /// Reads a role file's text.
    ///
    /// # Errors
    /// [`RoleError`] says what is wrong with it.
    pub fn parse(role: Role, text: &str) -> Result<Self, RoleError> {
        parse(role, text).map_err(|why| RoleError { file: format!("{role}.md"), why })
    }
}

/// A role file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("role file {file} cannot be used: {why}")]
pub struct RoleError {
    file: String,
    why: String,
}

/// The front matter. `model` names a tier; there is one tier so far, `default`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FrontMatter {
    name: String,
    description: String,
    #[serde(default)]
    model: Option<String>,
    limits: RoleLimits,
    #[serde(default)]
    retry: RetryPolicy,
    #[serde(default)]
    output: Option<serde_json::Value>,
    #[serde(default)]
    tools: Vec<String>,
    #[serde(default)]
    approve: bool,
    #[serde(default)]
    asks: Vec<String>,
}

/// The definitions of all roles.
#[derive(Clone, Debug)]
pub struct RoleSet(BTreeMap<Role, RoleDefinition>);

impl RoleSet {
    /// The built-in roles, each replaced by `<name>.md` of `folder` where that exists.
    ///
    /// # Errors
    /// [`RoleError`] names the file and what is wrong with it.
    pub fn load(folder: Option<&Path>) -> Result<Self, RoleError> {
        let mut set = BTreeMap::new();
        for role in Role::ALL {
            let file = folder.map(|folder| folder.join(format!("{role}.md"))).filter(|file| file.exists());
            let definition = match file {
                Some(file) => read(role, &file)?,
                None => RoleDefinition::parse(role, RoleDefinition::built_in(role))?,
            };
            set.insert(role, definition);
        }
        Ok(Self(set))
    }

    /// The definition of a role.
    pub fn get(&self, role: Role) -> &RoleDefinition {
        &self.0[&role]
    }
}

fn read(role: Role, file: &Path) -> Result<RoleDefinition, RoleError> {
    let refused = |why: String| RoleError { file: file.display().to_string(), why };
    let bytes = std::fs::metadata(file).map_err(|error| refused(error.to_string()))?.len();
    if bytes > ROLE_FILE_BYTES_MAX {
        return Err(refused(format!("it has {bytes} bytes, more than role_file_bytes_max {ROLE_FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    parse(role, &text).map_err(refused)
}

fn parse(role: Role, text: &str) -> Result<RoleDefinition, String> {
    let text = text.replace("\r\n", "\n");
    let rest = text.strip_prefix("---\n").ok_or("it does not begin with '---' and YAML front matter")?;
    let (head, prompt) = rest.split_once("\n---\n").ok_or("its front matter has no closing '---'")?;
    let matter: FrontMatter = serde_saphyr::from_str(head).map_err(|error| format!("front matter: {error}"))?;
    if matter.name != role.name() {
        return Err(format!("its name is {:?}, not {role:?}", matter.name));
    }
    if let Some(tier) = matter.model.filter(|tier| tier != "default") {
        return Err(format!("its model is {tier:?}; the only tier is \"default\""));
    }
    if matter.limits.slots == 0
        || matter.limits.time_s == 0
        || matter.limits.output_tokens == 0
        || matter.limits.tokens == Some(0)
    {
        return Err("limits must be 1 or more".into());
    }
    matter.retry.check().map_err(|why| format!("retry: {why}"))?;
    if matter.limits.slots > SLOTS_MAX || matter.limits.time_s > TIME_S_MAX {
        return Err(format!("its limits are over slots_max {SLOTS_MAX} or time_s_max {TIME_S_MAX}"));
    }
    if matter.limits.tool_calls > TOOL_CALLS_MAX || matter.tools.len() > GRANTS_MAX {
        return Err(format!("it has more tool_calls than {TOOL_CALLS_MAX}, or more lines of tools than {GRANTS_MAX}"));
    }
    let tools: Result<Vec<Grant>, _> = matter.tools.iter().map(|text| text.parse()).collect();
    let tools = tools.map_err(|error| format!("tools: {error}"))?;
    if matter.asks.len() > ASKS_MAX {
        return Err(format!("it has more lines of asks than {ASKS_MAX}"));
    }
    let asks: Result<Vec<Askable>, String> = matter.asks.iter().map(|text| text.parse()).collect();
    super::prompt::check(prompt).map_err(|error| format!("prompt: {error}"))?;
    Ok(RoleDefinition {
        role,
        description: matter.description,
        output: matter.output,
        prompt: prompt.trim().to_owned(),
        limits: matter.limits,
        retry: matter.retry,
        tools,
        approve: matter.approve,
        asks: asks?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_built_in_roles_are_usable() {
        let set = RoleSet::load(None).unwrap();
        for role in Role::ALL {
            assert_eq!(set.get(role).role, role);
            assert!(!set.get(role).description.is_empty());
        }
        assert!(set.get(Role::Coder).output.is_some() && set.get(Role::Synthesizer).output.is_none());
    }

    #[test]
    fn a_bad_file_says_what_is_wrong() {
        let good = RoleDefinition::built_in(Role::Coder);
        for (text, says) in [
            ("no front matter".to_owned(), "begin with"),
            ("---\nname: coder\n".to_owned(), "closing"),
            (good.replace("name: coder", "name: tester"), "not Coder"),
            (good.replace("slots: 4", "slots: 0"), "1 or more"),
            (good.replace("slots: 4", "slot: 4"), "unknown field"),
            (good.replace("slots: 4", "slots: 18446744073709551615"), "slots_max 1000"),
            (good.replace("time_s: 900", "time_s: 18446744073709551615"), "time_s_max 604800"),
            (good.replace("model: default", "model: huge"), "only tier"),
            (good.replace("model: default", "tools: [everything]"), "server/tool"),
            (good.replace("asks: [user]", "asks: [boss]"), "asks names \"boss\""),
            (good.replace("asks: [user]", "asks: [orchestrator]"), "asks names"),
            (good.replace("asks: [user]", &format!("asks: [{}]", "user, ".repeat(11))), "more lines of asks"),
            (good.replace("slots: 4", "slots: 4\n  tool_calls: 51"), "tool_calls"),
            (good.replace("slots: 4", "slots: 4\n  tokens: 0"), "1 or more"),
            (good.replace("slots: 4", "slots: 4\n  tokens: -1"), "tokens"),
            (good.replace("slots: 4", "slots: 4\n  usd: 0"), "budget usd is 0"),
            (good.replace("slots: 4", "slots: 4\n  usd: .nan"), "budget usd is NaN"),
            (good.replace("limits:", "retry: { factor: .nan }\nlimits:"), "factor"),
            (good.replace("limits:", "retry: { delay_s: -1 }\nlimits:"), "delay_s"),
            (good.replace("limits:", "retry: { tries: 2 }\nlimits:"), "unknown field"),
            (good.replace("{% if evidence %}", "{% if %}"), "prompt"),
        ] {
            let why = parse(Role::Coder, &text).unwrap_err();
            assert!(why.contains(says), "{says}: {why}");
        }
    }

    #[test]
    fn the_pause_grows_and_is_never_shorter_than_what_was_asked_for() {
        let policy = RetryPolicy { attempts: 5, delay_s: 1.0, factor: 2.0, jitter: 0.5 };
        let pause = |failures, asked, share| policy.delay(failures, Duration::from_secs(asked), share).as_millis();
        assert_eq!([pause(1, 0, 0.0), pause(2, 0, 0.0), pause(3, 0, 0.0)], [1_000, 2_000, 4_000]);
        assert_eq!([pause(1, 30, 0.0), pause(1, 0, 1.0), pause(1, 30, 1.0)], [30_000, 1_500, 45_000]);
        assert_eq!(pause(u32::MAX, 0, 0.0), 600_000, "capped");
        assert_eq!(pause(1, u64::MAX, 0.0), 3_600_000, "capped");
    }

    #[test]
    fn a_folder_replaces_single_roles() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("qa.md"),
            RoleDefinition::built_in(Role::Qa).replace("time_s: 600", "time_s: 7"),
        )
        .unwrap();
        let set = RoleSet::load(Some(folder.path())).unwrap();
        assert_eq!((set.get(Role::Qa).limits.time_s, set.get(Role::Coder).limits.time_s), (7, 900));
    }
}

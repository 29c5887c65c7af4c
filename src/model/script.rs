//! The file format of recorded or invented answers.
//!
//! `{"version":1,"seed":7,"strict":true,"defaults":{…},"rules":[{"match":{…},"response":{…},"fault":{…}}]}`; the first
//! rule that applies answers. A script that is wrong must fail early and loudly, so unknown keys are refused with
//! their line, a rule must be able to answer, and an answer is held against the schema that was asked for.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Finish;
use super::latency::Latency;
use super::rules::{Conditions, Pattern, When};
use crate::wire::Usage;

/// Largest script.
pub const SCRIPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most rules of a script.
const RULES_MAX: usize = 10_000;
/// The only version there is.
const VERSION: u32 = 1;

/// A script, or a call of it, that is wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// The file is too large.
    #[error("read the script: it has {0} bytes, more than {SCRIPT_BYTES_MAX}; split it")]
    TooLong(usize),
    /// It is no JSON, or has a key that does not exist.
    #[error("read the script: {0}; mend that line")]
    Syntax(String),
    /// It was written for another version of this program.
    #[error("read the script: its version is {0}, known is {VERSION}; convert it or update oarlock")]
    Version(u32),
    /// A rule makes no sense.
    #[error("read the script: rule {number} {why}; mend the rule")]
    Rule {
        /// Which rule, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// No rule is for this call.
    #[error(
        "find a rule for role {role:?}, task {task:?} ({task_id}), attempt {attempt}: none matches; {nearest}; \
         add a rule, or set \"strict\": false"
    )]
    NoMatch {
        /// Role that asked.
        role: String,
        /// Description of its task, bounded.
        task: String,
        /// Id of its task.
        task_id: String,
        /// Attempt of the task.
        attempt: u32,
        /// The rule that came nearest, and why it does not match.
        nearest: String,
    },
    /// A rule's answer is not what was asked for.
    #[error("answer with rule {number}: it does not fit the schema {schema:?} ({complaints}); mend its response")]
    Shape {
        /// Which rule, from 1.
        number: usize,
        /// Name of the schema.
        schema: String,
        /// What is wrong with the answer.
        complaints: String,
    },
}

/// A parsed script.
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) seed: u64,
    pub(super) strict: bool,
    pub(super) latency: Latency,
    pub(super) whens: Vec<When>,
    pub(super) answers: Vec<RuleAnswer>,
}

/// What a rule does with a call.
#[derive(Clone, Debug)]
pub(super) struct RuleAnswer {
    pub(super) response: Option<Response>,
    pub(super) fault: Option<Fault>,
}

/// What a rule says.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) says: Says,
    pub(super) usage: Option<Usage>,
    pub(super) finish: Finish,
    pub(super) latency: Option<Latency>,
}

/// Where a response's text comes from.
#[derive(Clone, Debug)]
pub(super) enum Says {
    Text(String),
    Json(Value),
    Echo,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Status { status: u16, retry_after: Option<Duration>, kind: String },
    Timeout,
    Disconnect,
    Truncate,
    Malformed,
    Refusal,
    Slow(Latency),
}

impl Script {
    /// Reads a script.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        if text.len() > SCRIPT_BYTES_MAX {
            return Err(ScriptError::TooLong(text.len()));
        }
        let raw: RawScript = serde_json::from_str(text).map_err(|error| ScriptError::Syntax(error.to_string()))?;
        if raw.version != VERSION {
            return Err(ScriptError::Version(raw.version));
        }
        if raw.rules.len() > RULES_MAX {
            return Err(ScriptError::Syntax(format!("it has {} rules, more than {RULES_MAX}", raw.rules.len())));
        }
        let mut script = Self {
            seed: raw.seed,
            strict: raw.strict,
            latency: raw.defaults.latency_ms,
            whens: Vec::with_capacity(raw.rules.len()),
            answers: Vec::with_capacity(raw.rules.len()),
        };
        for (index, rule) in raw.rules.into_iter().enumerate() {
            let in_rule = |why| ScriptError::Rule { number: index + 1, why };
            script.whens.push(rule.when.into_when().map_err(in_rule)?);
            script.answers.push(into_answer(rule.response, rule.fault).map_err(in_rule)?);
        }
        Ok(script)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScript {
    version: u32,
    #[serde(default)]
    seed: u64,
    #[serde(default = "yes")]
    strict: bool,
    #[serde(default)]
    defaults: RawDefaults,
    rules: Vec<RawRule>,
}

fn yes() -> bool {
    true
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawDefaults {
    latency_ms: Latency,
    /// Only for other tools that read the format: a rule without usage is always estimated here.
    #[serde(rename = "tokens")]
    _tokens: Option<RawTokens>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawTokens {
    Estimate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    #[serde(rename = "match", default)]
    when: RawMatch,
    response: Option<RawResponse>,
    fault: Option<RawFault>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMatch {
    role: Option<String>,
    task: Option<String>,
    task_id: Option<String>,
    attempt: Option<u32>,
    model: Option<String>,
    system_contains: Option<String>,
    user_contains: Option<String>,
    schema: Option<String>,
    nth: Option<u32>,
    times: Option<u32>,
}

impl RawMatch {
    fn into_when(self) -> Result<When, String> {
        let pattern = |text: Option<String>| text.map(Pattern::new).transpose();
        let conditions = Conditions {
            role: pattern(self.role)?,
            task: pattern(self.task)?,
            task_id: self.task_id,
            attempt: self.attempt,
            model: pattern(self.model)?,
            system_contains: self.system_contains,
            user_contains: self.user_contains,
            schema: self.schema,
        };
        Ok(When { conditions, nth: self.nth, times: self.times })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResponse {
    content: Option<String>,
    json: Option<Value>,
    #[serde(default)]
    echo: bool,
    usage: Option<RawUsage>,
    finish: Option<String>,
    latency_ms: Option<Latency>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawUsage {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
    cost_nano_usd: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    kind: Option<RawFaultKind>,
    status: Option<u16>,
    retry_after_ms: Option<u64>,
    #[serde(rename = "type")]
    error_type: Option<String>,
    latency_ms: Option<Latency>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum RawFaultKind {
    Status,
    Timeout,
    Disconnect,
    Truncate,
    Malformed,
    Refusal,
    Slow,
}

fn into_answer(response: Option<RawResponse>, fault: Option<RawFault>) -> Result<RuleAnswer, String> {
    let response = response.map(RawResponse::into_response).transpose()?;
    let fault = fault.map(RawFault::into_fault).transpose()?;
    match (&response, &fault) {
        (None, None) => Err("has neither a response nor a fault".to_owned()),
        (Some(_), Some(Fault::Status { .. } | Fault::Timeout | Fault::Disconnect)) => {
            Err("has a response that its fault would never let through".to_owned())
        }
        (None, Some(Fault::Slow(_))) => Err("is slow and then has no response".to_owned()),
        _ => Ok(RuleAnswer { response, fault }),
    }
}

impl RawResponse {
    fn into_response(self) -> Result<Response, String> {
        let says = match (self.content, self.json, self.echo) {
            (Some(content), None, false) => Says::Text(content),
            (None, Some(json), false) => Says::Json(json),
            (None, None, true) => Says::Echo,
            _ => return Err("needs exactly one of content, json and \"echo\": true".to_owned()),
        };
        let usage = self.usage.map(|usage| Usage {
            calls: 1,
            input: usage.input,
            output: usage.output,
            cache_read: usage.cache_read,
            cache_write: usage.cache_write,
            priced_calls: u32::from(usage.cost_nano_usd.is_some()),
            cost_nano_usd: usage.cost_nano_usd,
            ..Usage::default()
        });
        let finish = match self.finish.as_deref() {
            None | Some("stop") => Finish::Stop,
            Some("length") => Finish::Length,
            Some("refusal") => Finish::Refusal,
            Some("pause") => Finish::Paused,
            Some(other) => Finish::Other(other.to_owned()),
        };
        Ok(Response { says, usage, finish, latency: self.latency_ms })
    }
}

impl RawFault {
    fn into_fault(self) -> Result<Fault, String> {
        let kind = match (self.kind, self.status) {
            (Some(kind), _) => kind,
            (None, Some(_)) => RawFaultKind::Status,
            (None, None) => return Err("has a fault without kind or status".to_owned()),
        };
        let is_status = kind == RawFaultKind::Status;
        if !is_status && (self.status.is_some() || self.retry_after_ms.is_some() || self.error_type.is_some()) {
            return Err("has a fault with status, retry_after_ms or type that is no status fault".to_owned());
        }
        if (kind == RawFaultKind::Slow) != self.latency_ms.is_some() {
            return Err("has a fault where latency_ms and the kind slow do not go together".to_owned());
        }
        Ok(match kind {
            RawFaultKind::Status => Fault::Status {
                status: self
                    .status
                    .filter(|status| (400..600).contains(status))
                    .ok_or("has no status from 400 to 599")?,
                retry_after: self.retry_after_ms.map(Duration::from_millis),
                kind: self.error_type.unwrap_or_else(|| "scripted_error".to_owned()),
            },
            RawFaultKind::Timeout => Fault::Timeout,
            RawFaultKind::Disconnect => Fault::Disconnect,
            RawFaultKind::Truncate => Fault::Truncate,
            RawFaultKind::Malformed => Fault::Malformed,
            RawFaultKind::Refusal => Fault::Refusal,
            RawFaultKind::Slow => Fault::Slow(self.latency_ms.unwrap_or_default()),
        })
    }
}

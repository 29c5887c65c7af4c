//! Asking for JSON of a given shape, and getting it or a reason.
//!
//! A model's JSON is read generously (`repair.rs`) and judged strictly: the schema, and what the caller checks beyond
//! it, decide which reading counts. When none does, the model is shown its answer and the complaints, once. An answer
//! that was cut off is never mended: half a plan is no plan, and the caller may give more tokens.

use serde_json::Value;

use super::repair::readings;
use super::{ChatMessage, ChatModel, ChatRequest, Finish, ModelError, Way, excerpt};
use crate::wire::Usage;

/// Longest answer that is read as JSON.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;
/// Complaints that are kept of one answer.
const COMPLAINTS_MAX: usize = 10;
/// Length of one complaint.
const COMPLAINT_CHARS_MAX: usize = 240;
/// Length of a refusal's words.
const REFUSAL_CHARS_MAX: usize = 300;
/// The part of its own wrong answer that a model is shown again.
const SHOWN_AGAIN_CHARS_MAX: usize = 32 * 1024;
/// Readings of one answer that are judged.
const READINGS_MAX: usize = 12;

/// A JSON answer that fits.
#[derive(Clone, Debug)]
pub struct JsonReply<T> {
    /// What the check made of the JSON.
    pub value: T,
    /// What it cost, a second question included.
    pub usage: Usage,
    /// True when the JSON had to be mended or asked for again.
    pub repaired: bool,
    /// True when the first answer did not fit and a second question, which shows the schema, was asked.
    pub asked_again: bool,
    /// The model that answered.
    pub model: String,
    /// How the last question was asked, and how its answer came.
    pub way: Way,
}

/// No JSON that fits.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The model could not be asked.
    #[error("get a completion")]
    Model {
        /// What was spent before.
        usage: Usage,
        /// Why not.
        source: Box<ModelError>,
    },
    /// The token limit ended the answer.
    #[error("read the JSON answer: it was cut off at {output_tokens} tokens; raise max_output_tokens or ask for less")]
    CutOff {
        /// What was spent.
        usage: Usage,
        /// The limit that was asked for.
        output_tokens: u32,
    },
    /// The model will not answer.
    #[error("read the JSON answer: the model refused ({said}); change the task or choose another model")]
    Refused {
        /// What was spent.
        usage: Usage,
        /// Its words, bounded.
        said: String,
    },
    /// The model stopped for a pause.
    #[error("read the JSON answer: the model paused before it was whole; ask for less at once")]
    Paused {
        /// What was spent.
        usage: Usage,
    },
    /// Two answers, and neither fits.
    #[error(
        "read the JSON answer: it does not fit, also when asked again ({}); \
         simplify the task or choose a stronger model",
        complaints.join("; ")
    )]
    Invalid {
        /// What was spent.
        usage: Usage,
        /// What is wrong with the last answer, bounded.
        complaints: Vec<String>,
    },
    /// The schema itself cannot be used.
    #[error("use the output schema {name}: {why}; mend the role's schema")]
    Schema {
        /// Name of the schema.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

impl JsonError {
    /// What was spent although nothing came of it.
    pub fn usage(&self) -> Usage {
        match self {
            Self::Model { usage, .. }
            | Self::CutOff { usage, .. }
            | Self::Refused { usage, .. }
            | Self::Paused { usage }
            | Self::Invalid { usage, .. } => *usage,
            Self::Schema { .. } => Usage::default(),
        }
    }
}

/// Asks for JSON that fits `request.schema`. Each of the at most two completions may take `request.timeout`.
pub async fn complete_json(model: &dyn ChatModel, request: ChatRequest) -> Result<JsonReply<Value>, JsonError> {
    complete_json_checked(model, request, |value| Ok(value.clone())).await
}

/// Like [`complete_json`], with a check beyond the schema: its complaints go to the model in the same second question,
/// and what it returns is the reply's value.
pub async fn complete_json_checked<T: Send>(
    model: &dyn ChatModel,
    request: ChatRequest,
    check: impl Fn(&Value) -> Result<T, Vec<String>> + Send + Sync,
) -> Result<JsonReply<T>, JsonError> {
    let judge = Judge::new(&request, check)?;
    let mut request = request;
    let mut usage = Usage::default();
    let mut complaints = Vec::new();
    for asked_again in [false, true] {
        let reply =
            model.complete(&request).await.map_err(|source| JsonError::Model { usage, source: Box::new(source) })?;
        usage += reply.usage;
        match reply.finish {
            Finish::Length => {
                return Err(JsonError::CutOff { usage, output_tokens: request.max_output_tokens });
            }
            Finish::Refusal => {
                return Err(JsonError::Refused { usage, said: excerpt(&reply.text, REFUSAL_CHARS_MAX) });
            }
            Finish::Paused => return Err(JsonError::Paused { usage }),
            Finish::Stop | Finish::Other(_) => {}
        }
        match judge.judge(&reply.text) {
            Ok((value, repaired)) => {
                usage.repairs += u32::from(repaired);
                let (model, way) = (reply.model, reply.way);
                return Ok(JsonReply { value, usage, repaired: repaired || asked_again, asked_again, model, way });
            }
            Err(found) => complaints = found,
        }
        usage.repairs += u32::from(!asked_again);
        tracing::debug!(model = model.name(), asked_again, ?complaints, "the JSON answer does not fit");
        ask_again(&mut request, &reply.text, &complaints);
    }
    Err(JsonError::Invalid { usage, complaints })
}

/// What an answer must be.
struct Judge<C> {
    schema: Option<jsonschema::Validator>,
    check: C,
}

impl<C> Judge<C> {
    fn new(request: &ChatRequest, check: C) -> Result<Self, JsonError> {
        let schema = match &request.schema {
            Some(output) => Some(jsonschema::validator_for(&output.schema).map_err(|error| JsonError::Schema {
                name: output.name.clone(),
                why: excerpt(&error.to_string(), COMPLAINT_CHARS_MAX),
            })?),
            None => None,
        };
        Ok(Self { schema, check })
    }

    /// The first reading that fits, or the complaints about the most trusted one.
    fn judge<T>(&self, text: &str) -> Result<(T, bool), Vec<String>>
    where
        C: Fn(&Value) -> Result<T, Vec<String>>,
    {
        if text.len() > JSON_BYTES_MAX {
            return Err(vec![format!(
                "the answer has {} bytes, more than json_bytes_max {JSON_BYTES_MAX}",
                text.len()
            )]);
        }
        let mut first_complaints = None;
        for reading in readings(text).take(READINGS_MAX) {
            let outcome = match self.schema.as_ref().map(|schema| violations(schema, &reading.value)) {
                Some(violations) if !violations.is_empty() => Err(violations),
                _ => (self.check)(&reading.value),
            };
            match outcome {
                Ok(value) => return Ok((value, reading.repaired)),
                Err(complaints) => first_complaints = first_complaints.or(Some(complaints)),
            }
        }
        let complaints = first_complaints.unwrap_or_else(|| {
            vec![format!("there is no whole JSON in the answer, which begins with {:?}", excerpt(text, 60))]
        });
        Err(complaints.iter().take(COMPLAINTS_MAX).map(|complaint| excerpt(complaint, COMPLAINT_CHARS_MAX)).collect())
    }
}

/// What a value lacks, with the path of each place.
pub(super) fn violations(schema: &jsonschema::Validator, value: &Value) -> Vec<String> {
    let place = |path: String| if path.is_empty() { "the answer".to_owned() } else { path };
    schema
        .iter_errors(value)
        .take(COMPLAINTS_MAX)
        .map(|error| {
            // The message begins with the value; of a large one only what is wrong with it is worth telling.
            let told = error.to_string();
            let told = if told.len() > COMPLAINT_CHARS_MAX / 2 { error.masked().to_string() } else { told };
            excerpt(&format!("{}: {told}", place(error.instance_path().to_string())), COMPLAINT_CHARS_MAX)
        })
        .collect()
}

fn ask_again(request: &mut ChatRequest, answer: &str, complaints: &[String]) {
    let shown = match answer.char_indices().nth(SHOWN_AGAIN_CHARS_MAX) {
        Some((end, _)) => &answer[..end],
        None => answer,
    };
    // An empty turn is refused by the vendors.
    let shown = if shown.trim().is_empty() { "(no answer)" } else { shown };
    request.messages.push(ChatMessage::assistant(shown));
    // Some servers take a schema and do not heed it: now the model sees it in any case.
    let shape = request.schema.as_ref().map(|output| format!("\nIt must fit this JSON Schema:\n{}", output.schema));
    request.messages.push(ChatMessage::user(format!(
        "That answer cannot be used:\n- {}\nAnswer again with the whole corrected JSON and nothing else.{}",
        complaints.join("\n- "),
        shape.unwrap_or_default()
    )));
}

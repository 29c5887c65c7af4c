//! The model: which one it is, and with `--model` whether it answers, and how well.

use std::time::{Duration, Instant};

use super::super::args::{DoctorArgs, ModelArgs};
use super::super::config::Config;
use super::{Line, broken, note, ok};
use crate::model::{
    self, CallContext, ChatMessage, ChatRequest, Choice, JsonError, JsonReply, ModelError, OutputSchema, ProgressSink,
    Provider, SchemaTold, complete_json,
};
use crate::wire::Usage;

/// How long the one small call may take: a local server may have to load its model first.
const CALL_S_MAX: u64 = 120;
/// Tokens that the answer may have; a reasoning model thinks within them.
const CALL_TOKENS_MAX: u32 = 1_024;
/// What the answer's number is called. The schema alone says it: a server that does not heed a schema is seen by it.
const NAME: &str = "oarlock_sum";

pub(super) async fn lines(config: &Config, args: &DoctorArgs) -> Vec<Line> {
    let named = args.model.clone().flatten();
    let flags = ModelArgs { model: named, base_url: args.base_url.clone(), script: None };
    let choice = match model::choose(&config.models(&flags)).await {
        Ok(choice) => choice,
        Err(error) => {
            let fix = remedy(&error);
            return vec![broken(format!("failed to {:#}", anyhow::Error::from(error)), fix)];
        }
    };
    let ways = "set ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY; or start Ollama; or give --base-url";
    match (choice, args.model.is_some()) {
        (None, true) => vec![broken("no model is configured, so none can be tried", ways)],
        (None, false) => vec![note("no model is configured", ways)],
        (Some(choice), tried) => {
            let chosen = ok(format!("model {}/{}: {}", choice.spec.provider.id(), choice.spec.model, choice.why));
            let mut lines = vec![chosen];
            if tried {
                lines.extend(call(config, &choice).await);
            }
            lines
        }
    }
}

/// One small question whose answer must have a shape that the question does not give away.
fn question() -> ChatRequest {
    let schema = serde_json::json!({
        "type": "object", "additionalProperties": false, "required": [NAME],
        "properties": { NAME: { "type": "integer" } },
    });
    ChatRequest {
        system: "You answer in JSON and nothing else.".into(),
        messages: vec![ChatMessage::user("What is 2 + 3?")],
        schema: Some(OutputSchema { name: "sum".into(), schema }),
        max_output_tokens: CALL_TOKENS_MAX,
        timeout: Duration::from_secs(CALL_S_MAX),
        context: CallContext {
            role: "doctor".into(),
            task: "answer a small question".into(),
            ..CallContext::default()
        },
        // Nobody listens, and with somebody to listen a server is asked to stream.
        progress: Some(ProgressSink::new(|_| {})),
    }
}

async fn call(config: &Config, choice: &Choice) -> Vec<Line> {
    let model = match model::open(&choice.spec, &config.model_options) {
        Ok(model) => model,
        Err(error) => return vec![silent(error)],
    };
    let began = Instant::now();
    match complete_json(model.as_ref(), question()).await {
        Ok(reply) => answered(&reply, choice.spec.provider, began.elapsed()),
        Err(error) => unanswered(error, began.elapsed()),
    }
}

fn answered(reply: &JsonReply<serde_json::Value>, provider: Provider, took: Duration) -> Vec<Line> {
    let mut lines = vec![
        ok(format!("the model answers, in {:.1} s, as {}", took.as_secs_f32(), reply.model)),
        shape(reply.way.schema, reply.repaired, reply.asked_again),
    ];
    if reply.value.get(NAME).and_then(serde_json::Value::as_i64) != Some(5) {
        lines.push(note(format!("it says that 2 + 3 is {}", reply.value), "take a larger model"));
    }
    lines.push(match reply.way.streamed {
        true => ok("streaming: the answer came as a stream"),
        false => note(
            "streaming: the server was asked for a stream and answered in one piece",
            "nothing must be done; nobody sees it being written",
        ),
    });
    lines.extend([counted(reply.usage), cached(reply.usage, provider)]);
    lines
}

/// What became of the schema: heeded, taken and not shown to be heeded, or refused.
fn shape(told: SchemaTold, repaired: bool, asked_again: bool) -> Line {
    let fits = match (asked_again, repaired) {
        (true, _) => "the answer fits when it is asked for again",
        (false, true) => "the answer fits after a repair",
        (false, false) => "the answer fits at once",
    };
    let slower = "nothing must be done; expect some second questions, and fewer of them of a larger model";
    match (told, asked_again || repaired) {
        (SchemaTold::Server, false) => ok(format!("schema: the server takes it and heeds it; {fits}")),
        (SchemaTold::Server, true) => {
            note(format!("schema: the server takes it and is not seen to heed it; {fits}"), slower)
        }
        (SchemaTold::Model | SchemaTold::Nobody, false) => note(
            format!("schema: the server refuses it, so the prompt carries it; {fits}"),
            "nothing must be done; a server with structured output needs fewer second questions",
        ),
        (SchemaTold::Model | SchemaTold::Nobody, true) => {
            note(format!("schema: the server refuses it, so the prompt carries it; {fits}"), slower)
        }
    }
}

fn counted(usage: Usage) -> Line {
    match usage.estimated {
        false => {
            let tokens = format!("{} tokens in, {} out, as the server counts them", usage.input, usage.output);
            ok(format!("usage: {tokens}; {}", usage.cost_in_words()))
        }
        true => note("usage: the server does not say, tokens are estimated (bytes / 4)", "turn on its usage reports"),
    }
}

fn cached(usage: Usage, provider: Provider) -> Line {
    match (usage.cache_read, usage.cache_write, provider) {
        (0, 0, Provider::Anthropic) => {
            ok("prompt cache: not asked for; what is written to it costs more, and few prompts are sent twice")
        }
        (0, 0, _) => ok("prompt cache: the server told of no cached tokens, which for a question this small is usual"),
        (read, write, _) => ok(format!("prompt cache: {read} tokens read, {write} written")),
    }
}

/// The lines of a model that was asked in vain: that it answers at all is told apart from what is wrong with the answer.
fn unanswered(error: JsonError, took: Duration) -> Vec<Line> {
    let answers = ok(format!("the model answers, in {:.1} s", took.as_secs_f32()));
    let told = |error: JsonError| format!("{:#}", anyhow::Error::from(error));
    match error {
        JsonError::Model { source, .. } => vec![silent(*source)],
        JsonError::CutOff { output_tokens, .. } => vec![
            answers,
            broken(
                format!("the answer is cut off at {output_tokens} tokens, or where the server's window ends"),
                "give the server a longer window, or take a model that thinks less",
            ),
        ],
        JsonError::Refused { said, .. } => vec![
            answers,
            broken(format!("the model refuses to say what 2 + 3 is: {said}"), "take another model, or mend its filter"),
        ],
        JsonError::Paused { .. } => vec![
            answers,
            broken("the model pauses before its answer is whole", "take a model that answers in one turn"),
        ],
        error @ JsonError::Invalid { .. } => vec![
            answers,
            broken(
                format!("schema: the answer does not fit, also when the model is shown it: {}", told(error)),
                "take a larger model: every role but the documenter and the synthesizer answers in JSON",
            ),
        ],
        error @ JsonError::Schema { .. } => vec![broken(told(error), "report it: the question is ours")],
    }
}

fn silent(error: ModelError) -> Line {
    let fix = remedy(&error);
    broken(format!("the model does not answer: {:#}", anyhow::Error::from(error)), fix)
}

/// What mends an error of this kind.
fn remedy(error: &ModelError) -> String {
    let key = |peer: &model::Peer| match peer.provider {
        Some(Provider::Ollama) | None => "set the key that the server wants".to_owned(),
        Some(provider) => format!("set {} to a key that may use this model", provider.key_variable()),
    };
    match error {
        ModelError::Settings(_) => "mend OARLOCK_MODEL, the base URL or the key".to_owned(),
        ModelError::Auth { peer, .. } => key(peer),
        ModelError::RateLimited { .. } => {
            "wait and try again; if it stays so, run fewer workers or raise the limit of the account".to_owned()
        }
        ModelError::Quota { .. } => "add credit to the account, or name another model with --model".to_owned(),
        ModelError::Unavailable { status: None, .. } => "start the server, or mend the base URL".to_owned(),
        ModelError::Unavailable { said, .. } if said.to_ascii_lowercase().contains("loading") => {
            "wait until the server has loaded its model, and try again".to_owned()
        }
        ModelError::Unavailable { .. } => "try again later; if it stays so, look at the server's log".to_owned(),
        ModelError::Timeout { .. } => "take a smaller model or a faster machine".to_owned(),
        ModelError::Silent { .. } => {
            "look at the server's load; raise first_byte_s or read_s if it needs longer".to_owned()
        }
        ModelError::Busy { limit, .. } => format!("raise {limit}"),
        ModelError::UnknownModel { .. } => "name a model that it has: --model, or OARLOCK_MODEL".to_owned(),
        ModelError::BadRequest { status: 404, .. } => "mend the model's name, or the base URL".to_owned(),
        ModelError::BadRequest { status: 300..=399, .. } => "set the base URL to where it redirects".to_owned(),
        ModelError::BadRequest { .. } => "name another model, or mend the server's settings".to_owned(),
        ModelError::Garbled { .. } => "mend the base URL: it must be that of a model API".to_owned(),
        ModelError::Truncated { .. } | ModelError::Malformed { .. } => {
            "try again; if it stays so, look at the server's log".to_owned()
        }
        ModelError::OverBudget(_) => "raise the budget".to_owned(),
        ModelError::Script(_) => "mend the script".to_owned(),
    }
}

//! What can go wrong when a model is asked, in kinds that a caller acts on.
//!
//! The worker turns these into a failure with `retry: never | after(duration)`, so each kind has one clear answer to
//! "is it worth asking again?". Texts say whom we asked, what they said and what to do next; what a server said is
//! bounded, on one line, and never contains our key.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::provider::Provider;
use super::script::ScriptError;

/// The longest wait that a server may ask of us within a call; beyond it the error goes to the caller at once.
pub const RETRY_AFTER_S_MAX: u64 = 120;

/// Whom we asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The protocol spoken; `None` for a script.
    pub provider: Option<Provider>,
    /// Host and port of the base URL.
    pub host: String,
    /// The model asked for.
    pub model: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.provider {
            Some(provider) => write!(f, "{provider} model {} at {}", self.model, self.host),
            None => write!(f, "scripted model {}", self.model),
        }
    }
}

/// A completion that did not come.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The settings cannot be used; nothing was sent.
    #[error("use the model settings: {0}")]
    Settings(String),
    /// The key is missing, wrong, or not allowed to do this.
    #[error("ask {peer}: {}; {}", key_complaint(*status, said), key_hint(peer))]
    Auth {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// HTTP status; `None` when no key was there to send.
        status: Option<u16>,
        /// What the server said.
        said: String,
    },
    /// Too many requests for now.
    #[error("ask {peer}: rate limited (429: {said}); {}", wait_hint(*retry_after))]
    RateLimited {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// What the server said.
        said: String,
        /// How long the server wants us to wait.
        retry_after: Option<Duration>,
        /// False when the server says that asking again is useless.
        retry: bool,
    },
    /// The account has no money or no allowance left; asking again does not help.
    #[error(
        "ask {peer}: the account's quota or credit is used up ({status}: {said}); add credit or choose another model"
    )]
    Quota {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// HTTP status.
        status: u16,
        /// What the server said.
        said: String,
    },
    /// The server could not be reached, broke off, or is in trouble.
    #[error("ask {peer}: unavailable ({said}); {}", unavailable_hint(peer, *status, *retry_after))]
    Unavailable {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// HTTP status; `None` when there was no complete answer.
        status: Option<u16>,
        /// What the server said, or what the connection did.
        said: String,
        /// How long the server wants us to wait.
        retry_after: Option<Duration>,
        /// False when the server says that asking again is useless.
        retry: bool,
        /// What the network library reported.
        source: Option<reqwest::Error>,
    },
    /// No answer in time.
    #[error(
        "ask {peer}: no answer within {} s; give the role a longer timeout or choose a faster model",
        limit.as_secs_f32()
    )]
    Timeout {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// The time that was allowed.
        limit: Duration,
    },
    /// A server that took the request and then said nothing for too long.
    #[error("ask {peer}: {silence} for {} s; {}", limit.as_secs_f32(), silence.hint())]
    Silent {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// What did not come.
        silence: Silence,
        /// The time that was allowed.
        limit: Duration,
    },
    /// This process has as many calls under way as it may have.
    #[error(
        "ask {peer}: no place within {} s among the {max} calls that {limit} allows at the same time; \
         raise it or run fewer workers",
        waited.as_secs_f32()
    )]
    Busy {
        /// Whom we wanted to ask.
        peer: Arc<Peer>,
        /// Name of the setting.
        limit: &'static str,
        /// Its value.
        max: usize,
        /// How long we waited.
        waited: Duration,
    },
    /// The server does not have this model.
    #[error(
        "ask {peer}: the server does not have this model ({status}: {said}); it has {}; {}",
        has.join(", "),
        name_hint(served.as_deref())
    )]
    UnknownModel {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// HTTP status.
        status: u16,
        /// What the server said.
        said: String,
        /// The first of the models that it has.
        has: Vec<String>,
        /// Its name for this model, when that is our `provider/model`, as gateways write it.
        served: Option<String>,
    },
    /// The server understood, and will not answer this.
    #[error("ask {peer}: the request was refused ({status}: {said}); {}", request_hint(*status))]
    BadRequest {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// HTTP status.
        status: u16,
        /// What the server said.
        said: String,
    },
    /// There was an answer, and it is no completion.
    #[error(
        "ask {peer}: the answer is not a completion ({why}); \
         check that the base URL is the model API's and not a web page's"
    )]
    Garbled {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// What is wrong with it, with its first characters.
        why: String,
    },
    /// The answer ended before it was whole.
    #[error("ask {peer}: the answer broke off ({why}); try again, and look at the server's log if it goes on")]
    Truncated {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// What happened.
        why: String,
        /// What the network library reported.
        source: Option<reqwest::Error>,
    },
    /// A piece of a streamed answer cannot be read.
    #[error("ask {peer}: a part of the answer cannot be read ({why}); try again, or ask another server")]
    Malformed {
        /// Whom we asked.
        peer: Arc<Peer>,
        /// What is wrong with it.
        why: String,
    },
    /// Too little is left of what may be spent; nothing was sent.
    #[error("ask its model within its share of the budget: {0}")]
    OverBudget(String),
    /// The script cannot answer this request.
    #[error("answer from the script")]
    Script(#[from] ScriptError),
}

/// What a server owed us when it fell silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Its first word.
    FirstByte,
    /// The next one.
    Between,
}

impl Silence {
    fn hint(self) -> &'static str {
        match self {
            Self::FirstByte => "raise first_byte_s if the model needs longer to read its prompt",
            Self::Between => "raise read_s if the model pauses that long",
        }
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstByte => "not a word",
            Self::Between => "nothing more",
        })
    }
}

impl ModelError {
    /// How long the server asked us to wait before the next request.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// True when the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { retry, .. } | Self::Unavailable { retry, .. } => *retry,
            Self::Timeout { .. } | Self::Silent { .. } | Self::Truncated { .. } => true,
            _ => false,
        }
    }
}

fn key_complaint(status: Option<u16>, said: &str) -> String {
    match status {
        Some(status) => format!("the key was refused ({status}: {said})"),
        None => format!("there is no key ({said})"),
    }
}

fn key_hint(peer: &Peer) -> String {
    match peer.provider {
        Some(Provider::Ollama) | None => "check the key".to_owned(),
        Some(provider) => format!("check {} and that the key may use this model", provider.key_variable()),
    }
}

fn wait_hint(retry_after: Option<Duration>) -> String {
    match retry_after {
        Some(wait) if wait.as_secs() > RETRY_AFTER_S_MAX => format!(
            "the server wants {} s, longer than the {RETRY_AFTER_S_MAX} s that a call waits: try again later",
            wait.as_secs()
        ),
        Some(wait) => format!("try again after {} s, or run fewer workers", wait.as_secs_f32()),
        None => "try again later, or run fewer workers".to_owned(),
    }
}

fn unavailable_hint(peer: &Peer, status: Option<u16>, retry_after: Option<Duration>) -> String {
    if retry_after.is_some() {
        return wait_hint(retry_after);
    }
    match (peer.provider, status) {
        (_, Some(_)) | (None, _) => "try again later".to_owned(),
        (Some(Provider::Ollama), None) => "check that `ollama serve` runs there".to_owned(),
        (Some(_), None) => "check the network and the base URL".to_owned(),
    }
}

fn name_hint(served: Option<&str>) -> String {
    match served {
        Some(name) => format!("to ask this gateway for {name}, name openai/{name}"),
        None => "name one of them".to_owned(),
    }
}

fn request_hint(status: u16) -> &'static str {
    match status {
        404 => "check the model's name and the base URL",
        413 => "give it less context",
        300..=399 => "set the base URL to where it redirects",
        _ => "check the model's name, its limits and the request's size",
    }
}

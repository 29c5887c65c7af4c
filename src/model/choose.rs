//! Which model to use when several could be meant.
//!
//! The order: what was named explicitly, a base URL, a vendor's key, a local server that is running, none. Whatever
//! was asked for and does not work is an error: falling through to another vendor would spend another account's money
//! and send the data somewhere else. The choice says why it was made.

use std::time::Duration;

use super::error::ModelError;
use super::listing::{models, shown};
use super::options::Waits;
use super::provider::Provider;
use super::spec::{ApiKey, ModelSpec};
use super::transport::Transport;

/// Models used when a vendor's key is there and no model is named: cheap ones that do the job. The names are those
/// of the vendors' lists of November 2026; the settings override them.
pub const DEFAULT_MODELS: [(Provider, &str); 3] = [
    (Provider::Anthropic, "claude-haiku-5-5"),
    (Provider::OpenAi, "gpt-6-luna"),
    (Provider::Gemini, "gemini-3.8-flash"),
];

/// Whose base URL counts when several are set.
const BASE_URL_ORDER: [Provider; 4] = [Provider::OpenAi, Provider::Anthropic, Provider::Gemini, Provider::Ollama];
/// Where a local Ollama listens.
const OLLAMA_URL: &str = "http://127.0.0.1:11434";
/// Where llama-server listens.
const LLAMA_SERVER_URL: &str = "http://127.0.0.1:8080";
/// How long a local server has to answer that nobody asked for.
const PROBE_MS_MAX: u64 = 200;
/// How long a server has to list its models when the user named it.
const LIST_S_MAX: u64 = 10;
/// Parts of the names of models that do not chat.
const NOT_CHAT: [&str; 2] = ["embed", "rerank"];

/// What the user set about one provider.
#[derive(Clone, Debug, Default)]
pub struct ProviderSettings {
    /// Another server than the vendor's.
    pub base_url: Option<String>,
    /// The key.
    pub api_key: Option<String>,
    /// The model to use when none is named; overrides [`DEFAULT_MODELS`].
    pub model: Option<String>,
}

/// Everything that the choice depends on. Empty strings count as not set.
#[derive(Clone, Debug, Default)]
pub struct ModelSettings {
    /// `provider/model`, a provider alone, or a bare model name with a base URL.
    pub model: Option<String>,
    /// Where to ask for the explicit model.
    pub base_url: Option<String>,
    /// OpenAI and everything compatible.
    pub openai: ProviderSettings,
    /// Anthropic.
    pub anthropic: ProviderSettings,
    /// Gemini.
    pub gemini: ProviderSettings,
    /// Ollama.
    pub ollama: ProviderSettings,
    /// Where to look for a running server when nothing is set.
    pub probes: Probes,
}

/// Addresses of local servers that are tried last.
#[derive(Clone, Debug)]
pub struct Probes {
    /// An Ollama.
    pub ollama: String,
    /// A llama-server, or anything OpenAI-compatible.
    pub llama_server: String,
}

impl Default for Probes {
    fn default() -> Self {
        Self { ollama: OLLAMA_URL.to_owned(), llama_server: LLAMA_SERVER_URL.to_owned() }
    }
}

/// A model, and why it was chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The model.
    pub spec: ModelSpec,
    /// One line for people.
    pub why: String,
}

/// Picks the model. `Ok(None)` means that nothing was set and nothing is running.
pub async fn choose(settings: &ModelSettings) -> Result<Option<Choice>, ModelError> {
    if let Some(named) = set(&settings.model) {
        return explicit(settings, named).await.map(Some);
    }
    if let Some(url) = set(&settings.base_url) {
        return at_base_url(settings, Provider::OpenAi, url, "a base URL is set").await.map(Some);
    }
    for provider in BASE_URL_ORDER {
        if let Some(url) = set(&settings.of(provider).base_url) {
            return at_base_url(settings, provider, url, &format!("a base URL is set for {provider}")).await.map(Some);
        }
    }
    for provider in [Provider::Anthropic, Provider::OpenAi, Provider::Gemini] {
        if set(&settings.of(provider).api_key).is_some() {
            let why = format!("{} is set", provider.key_variable());
            return with_model(settings, provider, None, None, why).await.map(Some);
        }
    }
    if let Some(choice) = probe(settings, Provider::Ollama, &settings.probes.ollama).await {
        return Ok(Some(choice));
    }
    Ok(probe(settings, Provider::OpenAi, &settings.probes.llama_server).await)
}

impl ModelSettings {
    fn of(&self, provider: Provider) -> &ProviderSettings {
        match provider {
            Provider::OpenAi => &self.openai,
            Provider::Anthropic => &self.anthropic,
            Provider::Gemini => &self.gemini,
            Provider::Ollama => &self.ollama,
        }
    }

    fn spec(&self, provider: Provider, base_url: Option<&str>, model: &str) -> Result<ModelSpec, ModelError> {
        Ok(ModelSpec {
            provider,
            model: model.to_owned(),
            base_url: base_url.map(str::to_owned),
            api_key: set(&self.of(provider).api_key).map(ApiKey::new).transpose()?,
        })
    }
}

fn set(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.trim().is_empty())
}

/// The model that was named.
async fn explicit(settings: &ModelSettings, named: &str) -> Result<Choice, ModelError> {
    let named = named.trim();
    let (provider, model) = match named.split_once('/') {
        Some((id, model)) => (Provider::from_id(id), model),
        None => (Provider::from_id(named), ""),
    };
    let why = format!("the model {named} is named");
    if let Some(provider) = provider {
        let base_url = set(&settings.base_url).or(set(&settings.of(provider).base_url));
        return match model {
            "" => with_model(settings, provider, base_url, None, format!("the provider {named} is named")).await,
            model => with_model(settings, provider, base_url, Some(model), why).await,
        };
    }
    // A bare name, which may have a slash of its own (Qwen/Qwen3-8B): whoever has a base URL serves it.
    let at = BASE_URL_ORDER.into_iter().find_map(|provider| Some((provider, set(&settings.of(provider).base_url)?)));
    match set(&settings.base_url).map(|url| (Provider::OpenAi, url)).or(at) {
        Some((provider, url)) => with_model(settings, provider, Some(url), Some(named), why).await,
        None => {
            let ids: Vec<_> = Provider::ALL.iter().map(|provider| format!("{}/…", provider.id())).collect();
            let ids = ids.join(", ");
            Err(ModelError::Settings(format!("{named:?} names no provider; write {ids}, or set a base URL")))
        }
    }
}

async fn at_base_url(
    settings: &ModelSettings,
    provider: Provider,
    url: &str,
    reason: &str,
) -> Result<Choice, ModelError> {
    with_model(settings, provider, Some(url), None, format!("{reason} ({url})")).await
}

/// Fills in the model when none is named: the settings', the vendor's default, or the first that the server has.
async fn with_model(
    settings: &ModelSettings,
    provider: Provider,
    base_url: Option<&str>,
    model: Option<&str>,
    why: String,
) -> Result<Choice, ModelError> {
    if let Some(model) = model {
        return Ok(Choice { spec: settings.spec(provider, base_url, model)?, why });
    }
    if let Some(model) = set(&settings.of(provider).model) {
        let why = format!("{why}; {} names the model", provider.model_variable());
        return Ok(Choice { spec: settings.spec(provider, base_url, model)?, why });
    }
    let default = DEFAULT_MODELS.iter().find(|(other, _)| *other == provider);
    let default = default.map(|(_, model)| *model);
    let mut spec = settings.spec(provider, base_url, "")?;
    match default.filter(|_| spec.is_at_vendor()) {
        Some(model) => {
            spec.model = model.to_owned();
            Ok(Choice { spec, why: format!("{why}; no model is named, and {model} is the default") })
        }
        None => {
            let limit = Duration::from_secs(LIST_S_MAX);
            let (model, listed) = first_model(&spec, default, limit).await?;
            spec.model = model;
            Ok(Choice { spec, why: format!("{why}; {listed}") })
        }
    }
}

/// A server that nobody asked for: silence, errors and other programs on its port all mean that it is not there.
async fn probe(settings: &ModelSettings, provider: Provider, url: &str) -> Option<Choice> {
    let mut spec = settings.spec(provider, Some(url), "").ok()?;
    let (model, listed) = first_model(&spec, None, Duration::from_millis(PROBE_MS_MAX)).await.ok()?;
    spec.model = model;
    Some(Choice { spec, why: format!("nothing is set, and a server answers at {url}; {listed}") })
}

/// The model to take of those that a server lists, and one line on what it has.
async fn first_model(
    spec: &ModelSpec,
    preferred: Option<&str>,
    limit: Duration,
) -> Result<(String, String), ModelError> {
    let base = spec.base()?;
    let transport = Transport::new(spec, &base, Waits::default())?;
    let list = models(&transport, spec.provider, &base, limit).await?.names;
    let chats = |name: &&String| !NOT_CHAT.iter().any(|part| name.contains(part));
    let shown = shown(&list).join(", ");
    let preferred = preferred.and_then(|preferred| list.iter().find(|name| name.as_str() == preferred));
    match preferred.or_else(|| list.iter().find(chats)) {
        Some(model) if list.len() == 1 => Ok((model.clone(), format!("{model} is its only model"))),
        Some(model) => Ok((model.clone(), format!("{model} taken of its models: {shown}"))),
        None if list.is_empty() => Err(transport.garbled("it lists no model; name one")),
        None => Err(transport.garbled(format!("it lists no chat model, only {shown}; name one"))),
    }
}

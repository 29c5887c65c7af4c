//! What models a server has.

use std::time::Duration;

use reqwest::Url;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::error::ModelError;
use super::provider::Provider;
use super::transport::Transport;

/// Models that a message lists.
pub(super) const LISTED_MAX: usize = 8;
/// Length of one name in a message.
const NAME_CHARS_MAX: usize = 80;

/// What a server says that it has.
pub(super) struct Listing {
    /// The names of models, without Gemini's `models/`.
    pub(super) names: Vec<String>,
    /// True when the server has more of them on further pages.
    pub(super) more: bool,
}

impl Listing {
    /// True when all models are named, and `model` is none of them, in whichever of its spellings.
    pub(super) fn lacks(&self, model: &str) -> bool {
        !self.more && !self.names.is_empty() && !self.names.iter().any(|name| plain(name) == plain(model))
    }
}

/// A model's name without what servers add or leave out: Gemini's `models/`, Ollama's `:latest`.
fn plain(name: &str) -> &str {
    let name = name.trim();
    let name = name.strip_prefix("models/").unwrap_or(name);
    name.strip_suffix(":latest").unwrap_or(name)
}

/// The first page of the models of the server at `base`, asked for at most `limit`.
pub(super) async fn models(
    transport: &Transport,
    provider: Provider,
    base: &Url,
    limit: Duration,
) -> Result<Listing, ModelError> {
    match timeout(limit, transport.get(list_url(provider, base))).await {
        Ok(list) => {
            let list = list?;
            Ok(Listing { names: names(&list), more: has_more(&list) })
        }
        Err(_) => Err(ModelError::Timeout { peer: transport.peer().clone(), limit }),
    }
}

/// The first of `names` as a message shows them, with a mark when there are more.
pub(super) fn shown(names: &[String]) -> Vec<String> {
    let mut shown: Vec<String> =
        names.iter().take(LISTED_MAX).map(|name| super::excerpt(name, NAME_CHARS_MAX)).collect();
    if names.len() > LISTED_MAX {
        shown.push(format!("… ({} more)", names.len() - LISTED_MAX));
    }
    shown
}

fn list_url(provider: Provider, base: &Url) -> Url {
    let mut url = base.clone();
    if provider == Provider::Ollama {
        // Its own list is in order of use; the compatible one is not.
        let path = url.path().trim_end_matches("/v1").to_owned();
        url.set_path(&format!("{path}/api/tags"));
    } else {
        url.set_path(&format!("{}/models", base.path()));
    }
    url
}

/// Anthropic and Gemini give their lists in pages.
fn has_more(list: &Map<String, Value>) -> bool {
    let next = list.get("nextPageToken").and_then(Value::as_str).is_some_and(|token| !token.is_empty());
    next || list.get("has_more").and_then(Value::as_bool) == Some(true)
}

/// Names in the lists of OpenAI and Anthropic (`data[].id`) and of Ollama and Gemini (`models[].name`).
fn names(list: &Map<String, Value>) -> Vec<String> {
    let items = |key: &str| list.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let data = items("data").iter().filter_map(|item| item.get("id")?.as_str());
    let models = items("models").iter().filter_map(|item| item.get("name")?.as_str());
    let named: Vec<String> = data.map(str::to_owned).collect();
    if !named.is_empty() {
        return named;
    }
    models.map(|name| name.strip_prefix("models/").unwrap_or(name).to_owned()).collect()
}

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

/// The names of the models of the server at `base`, asked for at most `limit`.
pub(super) async fn models(
    transport: &Transport,
    provider: Provider,
    base: &Url,
    limit: Duration,
) -> Result<Vec<String>, ModelError> {
    match timeout(limit, transport.get(list_url(provider, base))).await {
        Ok(list) => Ok(names(&list?)),
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

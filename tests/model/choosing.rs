//! Which model is chosen, and that nothing is fallen through silently.

use oarlock::model::{ModelError, ModelSettings, Probes, Provider, ProviderSettings, choose};
use serde_json::{Value, json};

use crate::support::{Act, Server};

const NOTHING: &str = "http://127.0.0.1:9";

/// Settings under which nothing on this machine is found by accident.
fn nothing() -> ModelSettings {
    ModelSettings {
        probes: Probes { ollama: NOTHING.into(), llama_server: NOTHING.into() },
        ..ModelSettings::default()
    }
}

fn key(key: &str) -> ProviderSettings {
    ProviderSettings { api_key: Some(key.into()), ..ProviderSettings::default() }
}

fn at(url: &str) -> ProviderSettings {
    ProviderSettings { base_url: Some(url.into()), ..ProviderSettings::default() }
}

async fn listing(list: Value) -> Server {
    Server::start(vec![Act::ok(&list)]).await
}

async fn chosen(settings: &ModelSettings) -> (Provider, String, String) {
    let choice = choose(settings).await.unwrap().unwrap();
    (choice.spec.provider, choice.spec.model, choice.why)
}

#[tokio::test]
async fn nothing_set_and_nothing_running_is_none() {
    assert!(choose(&nothing()).await.unwrap().is_none());
    let blank = ModelSettings { model: Some(" ".into()), openai: key(""), ..nothing() };
    assert!(choose(&blank).await.unwrap().is_none());
}

#[tokio::test]
async fn a_named_model_wins_over_everything() {
    let settings = ModelSettings { anthropic: key("a"), openai: at("http://x"), ..nothing() };
    for (named, provider, model) in [
        ("openai/gpt-x-high", Provider::OpenAi, "gpt-x-high"),
        ("anthropic/claude-x", Provider::Anthropic, "claude-x"),
        ("gemini/g", Provider::Gemini, "g"),
        ("ollama/qwen3:8b", Provider::Ollama, "qwen3:8b"),
        ("anthropic", Provider::Anthropic, "claude-haiku-5-5"),
        ("Qwen/Qwen3-8B", Provider::OpenAi, "Qwen/Qwen3-8B"),
    ] {
        let settings = ModelSettings { model: Some(named.into()), ..settings.clone() };
        let (got, name, why) = chosen(&settings).await;
        assert_eq!((got, name.as_str()), (provider, model), "{why}");
        assert!(why.contains(named));
    }
    let lost = ModelSettings { model: Some("gpt-x".into()), anthropic: key("a"), ..nothing() };
    let text = choose(&lost).await.unwrap_err().to_string();
    assert!(text.contains("gpt-x") && text.contains("openai/"), "{text}");
}

#[tokio::test]
async fn keys_are_tried_in_order_and_defaults_can_be_replaced() {
    let all = ModelSettings { anthropic: key("a"), openai: key("o"), gemini: key("g"), ..nothing() };
    assert_eq!(chosen(&all).await.0, Provider::Anthropic);
    let two = ModelSettings { anthropic: ProviderSettings::default(), ..all.clone() };
    assert_eq!(chosen(&two).await.1, "gpt-6-luna");
    let one = ModelSettings { openai: ProviderSettings::default(), ..two };
    let (provider, model, why) = chosen(&one).await;
    assert_eq!((provider, model.as_str()), (Provider::Gemini, "gemini-3.8-flash"));
    assert!(why.contains("GEMINI_API_KEY") && why.contains("no model is named"), "{why}");
    let replaced = ModelSettings { anthropic: ProviderSettings { model: Some("mine".into()), ..key("a") }, ..all };
    let (_, model, why) = chosen(&replaced).await;
    assert_eq!((model.as_str(), why.as_str()), ("mine", "ANTHROPIC_API_KEY is set; ANTHROPIC_MODEL names the model"));
    let bad = ModelSettings { anthropic: key("a\n"), ..nothing() };
    assert!(choose(&bad).await.unwrap_err().to_string().contains("line break"));
}

#[tokio::test]
async fn a_base_url_comes_before_keys_and_its_models_are_listed() {
    let server = listing(json!({"data": [{"id": "nomic-embed-text"}, {"id": "llama"}, {"id": "qwen"}]})).await;
    let settings = ModelSettings { openai: at(&server.url), anthropic: key("a"), ..nothing() };
    let (provider, model, why) = chosen(&settings).await;
    assert_eq!((provider, model.as_str()), (Provider::OpenAi, "llama"));
    assert!(why.contains("qwen") && why.contains(&server.url), "{why}");
    assert!(server.seen()[0].head.starts_with("GET /v1/models "));

    let settings = ModelSettings { anthropic: at(&format!("{}/v1/", server.url)), ..nothing() };
    assert_eq!(chosen(&settings).await.0, Provider::Anthropic);
    let vendor = ModelSettings {
        openai: ProviderSettings { api_key: Some("o".into()), ..at("https://api.openai.com/v1") },
        ..nothing()
    };
    assert_eq!(chosen(&vendor).await.1, "gpt-6-luna", "a vendor's list is not asked");
}

#[tokio::test]
async fn a_base_url_that_fails_is_an_error_and_no_fall_through() {
    let empty = listing(json!({"data": []})).await;
    let embeds = listing(json!({"data": [{"id": "nomic-embed-text"}]})).await;
    let refusing = Server::start(vec![Act::Answer(401, "", "{}".into())]).await;
    for (url, part) in [
        (NOTHING, "connection refused"),
        (empty.url.as_str(), "lists no model"),
        (embeds.url.as_str(), "nomic-embed-text"),
        (refusing.url.as_str(), "401"),
        ("not a url", "not a URL"),
    ] {
        let settings = ModelSettings { openai: at(url), anthropic: key("a"), ..nothing() };
        let text = choose(&settings).await.unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn running_servers_are_found_last() {
    let ollama = listing(json!({"models": [{"name": "nomic-embed-text"}, {"name": "qwen3:8b"}]})).await;
    let llama = listing(json!({"data": [{"id": "smol"}]})).await;
    let web = Server::start(vec![Act::Answer(200, "content-type: text/html\r\n", "<html>".into())]).await;
    let silent = Server::start(vec![Act::Silence]).await;
    let with = |ollama: &str, llama: &str| ModelSettings {
        probes: Probes { ollama: ollama.into(), llama_server: llama.into() },
        ..ModelSettings::default()
    };
    let (provider, model, _) = chosen(&with(&ollama.url, &llama.url)).await;
    assert_eq!((provider, model.as_str()), (Provider::Ollama, "qwen3:8b"));
    assert!(ollama.seen()[0].head.starts_with("GET /api/tags "));
    let (provider, model, why) = chosen(&with(&web.url, &llama.url)).await;
    assert_eq!((provider, model.as_str()), (Provider::OpenAi, "smol"));
    assert!(why.contains(&llama.url), "{why}");
    let started = std::time::Instant::now();
    assert!(choose(&with(&silent.url, &web.url)).await.unwrap().is_none());
    assert!(started.elapsed().as_millis() < 1000, "{:?}", started.elapsed());
}

#[tokio::test]
async fn errors_of_choosing_are_model_errors_with_a_next_step() {
    let settings = ModelSettings { model: Some("mistral/large".into()), ..nothing() };
    let error = choose(&settings).await.unwrap_err();
    assert!(matches!(&error, ModelError::Settings(_)));
    assert!(error.to_string().contains("anthropic/…"), "{error}");
}

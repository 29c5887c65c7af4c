//! What goes over the wire to each provider, and what is read from its replies.

use oarlock::model::{
    ChatMessage, ChatModel, Finish, HttpModel, ModelError, ModelSpec, Provider, SchemaTold, Waits, Way,
};
use serde_json::{Value, json};

use crate::support::{Act, Seen, Server, ask, request, spec, with_schema};

fn openai_reply(text: &str, finish: &str) -> Value {
    json!({
        "model": "served-name", "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 5}}
    })
}

fn has_header(seen: &Seen, line: &str) -> bool {
    seen.head.lines().any(|header| header.eq_ignore_ascii_case(line))
}

#[tokio::test]
async fn openai_names_limits_and_key_are_sent_as_given() {
    for (model, limit) in [
        ("gpt-6-luna-high", "max_completion_tokens"),
        ("gpt-5", "max_completion_tokens"),
        ("qwen3-zero", "max_tokens"),
        ("ns::m-low", "max_tokens"),
        ("org/model-none", "max_tokens"),
    ] {
        let server = Server::start(vec![Act::ok(&openai_reply("hi", "stop"))]).await;
        let mut asked = with_schema(request("hello"));
        asked.messages.extend([ChatMessage::assistant("yes?"), ChatMessage::user("go")]);
        let reply = ask(&spec(Provider::OpenAi, &format!("{}/v1/", server.url), model), &asked).await.unwrap();
        assert_eq!((reply.text.as_str(), reply.finish, reply.model.as_str()), ("hi", Finish::Stop, "served-name"));
        assert_eq!(reply.way, Way { schema: SchemaTold::Server, streamed: false });
        let usage = reply.usage;
        assert_eq!((usage.calls, usage.input, usage.output), (1, 100, 7));
        assert_eq!((usage.cache_read, usage.cache_write, usage.estimated), (60, 5, false));

        let seen = &server.seen()[0];
        assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", seen.head);
        assert!(has_header(seen, "authorization: Bearer sk-hunter2"));
        assert_eq!(seen.body["model"], model);
        assert_eq!(seen.body[limit], 256);
        let roles: Vec<_> = seen.body["messages"].as_array().unwrap().iter().map(|m| m["role"].clone()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        let format = &seen.body["response_format"]["json_schema"];
        assert_eq!((&format["name"], &format["strict"]), (&json!("answer"), &json!(true)));
        assert_eq!(format["schema"]["properties"]["answer"]["minLength"], 1);
        let allowed = ["model", "stream", "messages", limit, "response_format"];
        assert!(seen.body.as_object().unwrap().keys().all(|key| allowed.contains(&key.as_str())), "{}", seen.body);
    }
}

#[tokio::test]
async fn anthropic_gets_its_headers_and_no_temperature() {
    let reply = json!({
        "model": "claude-served", "stop_reason": "end_turn",
        "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "he"}, {"type": "text", "text": "llo"}],
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 5, "output_tokens": 7}
    });
    let server = Server::start(vec![Act::ok(&reply)]).await;
    let spec = spec(Provider::Anthropic, &server.url, "claude-haiku-5-5-high");
    let reply = ask(&spec, &with_schema(request("hello"))).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("hello", Finish::Stop));
    assert_eq!((reply.usage.input, reply.usage.cache_read, reply.usage.cache_write), (75, 60, 5));

    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("POST /v1/messages HTTP/1.1"), "{}", seen.head);
    assert!(has_header(seen, "x-api-key: sk-hunter2") && has_header(seen, "anthropic-version: 2023-06-01"));
    assert!(!seen.head.to_lowercase().contains("authorization"));
    assert_eq!(seen.body["model"], "claude-haiku-5-5-high");
    assert_eq!((&seen.body["max_tokens"], &seen.body["system"]), (&json!(256), &json!("Be brief.")));
    let schema = &seen.body["output_config"]["format"]["schema"];
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["answer"], json!({"type": "string"}), "bounds are not sent");
    assert!(seen.body.get("temperature").is_none() && seen.body.get("thinking").is_none());
}

#[tokio::test]
async fn gemini_has_the_model_in_the_path() {
    let reply = json!({
        "modelVersion": "gemini-served",
        "candidates": [{"finishReason": "STOP", "content": {"parts": [{"text": "hm", "thought": true}, {"text": "hello"}]}}],
        "usageMetadata": {"promptTokenCount": 100, "cachedContentTokenCount": 60, "candidatesTokenCount": 7, "thoughtsTokenCount": 3}
    });
    let server = Server::start(vec![Act::ok(&reply)]).await;
    let spec = spec(Provider::Gemini, &server.url, "gemini-3.8-flash-high");
    let reply = ask(&spec, &with_schema(request("hello"))).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.model.as_str()), ("hello", "gemini-served"));
    assert_eq!((reply.usage.input, reply.usage.cache_read, reply.usage.output), (100, 60, 10));

    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("POST /v1beta/models/gemini-3.8-flash-high:generateContent "), "{}", seen.head);
    assert!(has_header(seen, "x-goog-api-key: sk-hunter2"));
    assert_eq!(seen.body["generationConfig"]["maxOutputTokens"], 256);
    assert_eq!(seen.body["generationConfig"]["responseMimeType"], "application/json");
}

#[tokio::test]
async fn a_key_is_needed_at_the_vendor_only() {
    let server = Server::start(vec![Act::ok(&openai_reply("hi", "stop"))]).await;
    let keyless = |provider, base_url: Option<&str>| ModelSpec {
        provider,
        model: "m".into(),
        base_url: base_url.map(str::to_owned),
        api_key: None,
    };
    for provider in [Provider::OpenAi, Provider::Ollama] {
        ask(&keyless(provider, Some(&server.url)), &request("hello")).await.unwrap();
    }
    assert!(server.seen().iter().all(|seen| !seen.head.to_lowercase().contains("authorization")));
    for provider in [Provider::OpenAi, Provider::Anthropic, Provider::Gemini] {
        let error = HttpModel::new(&keyless(provider, None), Waits::default()).err().unwrap();
        assert!(matches!(&error, ModelError::Auth { status: None, .. }));
        assert!(error.to_string().contains(provider.key_variable()), "{error}");
    }
}

#[tokio::test]
async fn endings_are_told_apart() {
    let refused =
        json!({"choices": [{"message": {"content": null, "refusal": "I will not."}, "finish_reason": "stop"}]});
    let anthropic = |reason: &str| json!({"content": [{"type": "text", "text": "x"}], "stop_reason": reason});
    let gemini = |reason: &str| json!({"candidates": [{"finishReason": reason}]});
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}});
    for (provider, reply, expected) in [
        (Provider::OpenAi, openai_reply("x", "length"), Finish::Length),
        (Provider::OpenAi, openai_reply("x", "content_filter"), Finish::Refusal),
        (Provider::OpenAi, openai_reply("x", "tool_calls"), Finish::Other("tool_calls".into())),
        (Provider::OpenAi, refused, Finish::Refusal),
        (Provider::Anthropic, anthropic("max_tokens"), Finish::Length),
        (Provider::Anthropic, anthropic("refusal"), Finish::Refusal),
        (Provider::Anthropic, anthropic("pause_turn"), Finish::Paused),
        (Provider::Gemini, gemini("MAX_TOKENS"), Finish::Length),
        (Provider::Gemini, gemini("SAFETY"), Finish::Refusal),
        (Provider::Gemini, blocked, Finish::Refusal),
    ] {
        let server = Server::start(vec![Act::ok(&reply)]).await;
        let got = ask(&spec(provider, &server.url, "m"), &request("hello")).await.unwrap();
        assert_eq!(got.finish, expected, "{provider} {reply}");
    }
}

#[tokio::test]
async fn missing_usage_is_estimated_and_says_so() {
    for usage in [json!(null), json!({}), json!({"prompt_tokens": 0, "completion_tokens": 0})] {
        let reply = json!({"choices": [{"message": {"content": "12345678"}}], "usage": usage});
        let server = Server::start(vec![Act::ok(&reply)]).await;
        let usage = ask(&spec(Provider::OpenAi, &server.url, "m"), &request("hello")).await.unwrap().usage;
        assert_eq!((usage.calls, usage.input, usage.output, usage.estimated), (1, 4, 2, true));
    }
}

#[tokio::test]
async fn a_server_without_structured_output_gets_the_schema_in_the_prompt() {
    // The second and third are llama.cpp's.
    for said in [
        "This response_format type is unavailable now",
        "Failed to initialize samplers: failed to parse grammar",
        "Failed to parse grammar",
    ] {
        let refusal = json!({"error": {"code": 400, "type": "invalid_request_error", "message": said}});
        let fits = Act::ok(&openai_reply("{\"answer\":\"x\"}", "stop"));
        let server = Server::start(vec![Act::Answer(400, "", refusal.to_string()), fits]).await;
        let model = HttpModel::new(&spec(Provider::OpenAi, &server.url, "m"), Waits::default()).unwrap();
        for _ in 0..2 {
            let reply = model.complete(&with_schema(request("hello"))).await.unwrap();
            assert_eq!(reply.way, Way { schema: SchemaTold::Model, streamed: false }, "{said}");
        }
        let seen = server.seen();
        assert_eq!(seen.len(), 3, "{said}: refused once, then known");
        for seen in &seen[1..] {
            assert!(seen.body.get("response_format").is_none());
            assert!(seen.body["messages"][0]["content"].as_str().unwrap().contains("JSON Schema"));
        }
    }
}

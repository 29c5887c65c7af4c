//! The real client over real HTTP against `@copilotkit/aimock`, a stand-in for the vendors' APIs that others keep in
//! step with them.

use std::time::{Duration, Instant};

use oarlock::model::{Finish, ModelError, ModelOptions, Provider, complete_json};
use serde_json::{Value, json};

use crate::aimock_process::Aimock;
use crate::support::{ask, request, spec, with_schema};

fn fixtures() -> Value {
    json!([
        {"match": {"userMessage": "limited", "sequenceIndex": 0}, "response":
            {"error": {"message": "Rate limit reached", "type": "rate_limit_error"}, "status": 429, "retryAfter": 1}},
        {"match": {"userMessage": "limited"}, "response": {"content": "after the wait"}},
        {"match": {"userMessage": "broken"}, "response":
            {"error": {"message": "The server had an error", "type": "server_error"}, "status": 500}},
        {"match": {"userMessage": "cut"}, "response": {"content": "and then", "finishReason": "length"}},
        {"match": {"userMessage": "json"}, "response": {"content": "{\"answer\":\"yes\"}"}},
        {"match": {"userMessage": "hello"}, "response":
            {"content": "hi there", "usage": {"prompt_tokens": 123, "completion_tokens": 45, "total_tokens": 168,
             "input_tokens": 123, "output_tokens": 45}}}
    ])
}

#[tokio::test]
async fn both_shapes_answer_with_usage() {
    let Some(aimock) = Aimock::start(fixtures()).await else {
        return;
    };
    for provider in [Provider::OpenAi, Provider::Anthropic] {
        let spec = spec(provider, &aimock.url, "some-model");
        let reply = ask(&spec, &request("hello")).await.unwrap();
        assert_eq!((reply.text.as_str(), reply.finish), ("hi there", Finish::Stop), "{provider}");
        assert_eq!((reply.usage.input, reply.usage.output, reply.usage.estimated), (123, 45, false), "{provider}");
        assert_eq!(ask(&spec, &request("cut")).await.unwrap().finish, Finish::Length, "{provider}");
        let model = oarlock::model::open(&spec, &ModelOptions::default()).unwrap();
        let reply = complete_json(&*model, with_schema(request("json"))).await.unwrap();
        assert_eq!((reply.value, reply.repaired), (json!({"answer": "yes"}), false), "{provider}");
    }
}

#[tokio::test]
async fn gemini_answers_too() {
    let Some(aimock) = Aimock::start(fixtures()).await else {
        return;
    };
    let reply = ask(&spec(Provider::Gemini, &aimock.url, "gemini-3.8-flash"), &request("hello")).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("hi there", Finish::Stop));
}

#[tokio::test]
async fn a_rate_limit_is_waited_for() {
    for provider in [Provider::OpenAi, Provider::Anthropic] {
        let Some(aimock) = Aimock::start(fixtures()).await else {
            return;
        };
        let started = Instant::now();
        let reply = ask(&spec(provider, &aimock.url, "some-model"), &request("limited")).await.unwrap();
        assert_eq!(reply.text, "after the wait", "{provider}");
        assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn errors_have_their_kinds() {
    let Some(aimock) = Aimock::start(fixtures()).await else {
        return;
    };
    for provider in [Provider::OpenAi, Provider::Anthropic] {
        let spec = spec(provider, &aimock.url, "some-model");
        let error = ask(&spec, &request("broken")).await.unwrap_err();
        assert!(matches!(&error, ModelError::Unavailable { status: Some(500), .. }), "{error}");
        assert!(error.to_string().contains("The server had an error"), "{error}");
        let error = ask(&spec, &request("nobody knows this")).await.unwrap_err();
        assert!(matches!(&error, ModelError::BadRequest { .. }), "{error}");
    }
}

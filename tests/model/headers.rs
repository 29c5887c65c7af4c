//! What aimock cannot send, from `mountebank`, which nobody here wrote either: retry headers, and streams with something
//! wrong in their midst.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use oarlock::model::{
    ChatModel, ChatRequest, Finish, LIMITED_S, ModelError, ModelOptions, Prices, Progress, ProgressSink, Provider,
};
use serde_json::{Value, json};

use crate::mountebank_process::Mountebank;
use crate::support::{request, spec};

const BOTH: [Provider; 2] = [Provider::OpenAi, Provider::Anthropic];

fn answer(status: u16, headers: &Value, body: &str) -> Value {
    json!({"is": {"statusCode": status, "headers": headers, "body": body}})
}

fn good(provider: Provider) -> Value {
    let body = match provider {
        Provider::Anthropic => json!({"content": [{"type": "text", "text": "fine"}], "stop_reason": "end_turn"}),
        _ => json!({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}),
    };
    answer(200, &json!({"content-type": "application/json"}), &body.to_string())
}

fn streamed(events: &[Value], end: &str) -> Value {
    let lines: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    answer(200, &json!({"content-type": "text/event-stream"}), &format!("{lines}{end}"))
}

/// What comes of a call that is answered so, and the pauses between its requests.
async fn outcome(
    mountebank: &Mountebank,
    provider: Provider,
    stream: bool,
    answers: Vec<Value>,
) -> (Result<String, ModelError>, Vec<i128>) {
    let server = mountebank.serve(answers).await;
    let model = oarlock::model::open(&spec(provider, &server.url, "m"), &ModelOptions::default()).unwrap();
    let progress = stream.then(|| ProgressSink::new(|_| {}));
    let outcome = model.complete(&ChatRequest { progress, ..request("hello") }).await.map(|reply| reply.text);
    let asked = server.asked_ms().await;
    (outcome, asked.windows(2).map(|pair| pair[1] - pair[0]).collect())
}

#[tokio::test]
async fn the_server_s_headers_decide() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    // Status, headers, the pause before the second request; none when it is asked once. Ours would be 375 to 500 ms.
    let rows = [
        (429, json!({"retry-after-ms": "1300", "retry-after": "9"}), Some(1_300)),
        (503, json!({"retry-after-ms": "1300"}), Some(1_300)),
        (429, json!({"retry-after": "0"}), Some(375)),
        (429, json!({"retry-after-ms": "121000"}), None),
        (529, json!({"x-should-retry": "false"}), None),
        (429, json!({"x-should-retry": "false", "retry-after": "1"}), None),
        (422, json!({"x-should-retry": "true", "retry-after-ms": "1300"}), Some(1_300)),
        (401, json!({"x-should-retry": "true", "retry-after-ms": "1300"}), Some(1_300)),
    ];
    for provider in BOTH {
        for (status, headers, pause_ms) in &rows {
            let body = json!({"error": {"type": "x", "message": "no"}}).to_string();
            let answers = vec![answer(*status, headers, &body), good(provider)];
            let (outcome, gaps) = outcome(mountebank, provider, false, answers).await;
            let about = format!("{provider} {status} {headers}: {outcome:?} {gaps:?}");
            match pause_ms {
                None => assert!(outcome.is_err() && gaps.is_empty(), "{about}"),
                Some(pause_ms) => {
                    assert!(outcome.is_ok() && gaps.len() == 1, "{about}");
                    assert!((*pause_ms..pause_ms + 1_500).contains(&gaps[0]), "{about}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_spend_limit_is_final_and_a_reset_connection_is_not() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    let spent = json!({"type": "error", "error": {
        "type": "rate_limit_error", "message": "no", "details": {"error_code": "enforced_spend_limit_reached"}
    }});
    for provider in BOTH {
        let answers = vec![answer(429, &json!({}), &spent.to_string()), good(provider)];
        let (refused, gaps) = outcome(mountebank, provider, false, answers).await;
        assert!(matches!(refused, Err(ModelError::Quota { .. })) && gaps.is_empty(), "{refused:?}");
        let answers = vec![json!({"fault": "CONNECTION_RESET_BY_PEER"}), good(provider)];
        let (again, gaps) = outcome(mountebank, provider, true, answers).await;
        assert!(again.is_ok() && gaps.len() == 1 && (375..2_000).contains(&gaps[0]), "{again:?} {gaps:?}");
    }
}

/// The first words of a streamed answer.
fn words(provider: Provider) -> Vec<Value> {
    match provider {
        Provider::Anthropic => vec![
            json!({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half"}}),
        ],
        _ => {
            vec![json!({"model": "m", "choices": [{"index": 0, "delta": {"content": "half"}, "finish_reason": null}]})]
        }
    }
}

#[tokio::test]
async fn a_stream_that_just_ends_is_not_whole() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    for provider in BOTH {
        // Between two events, and in the midst of one.
        for end in ["", "data: {\"cho"] {
            let answers = vec![streamed(&words(provider), end), good(provider)];
            let (again, gaps) = outcome(mountebank, provider, true, answers).await;
            assert!(again.is_ok() && gaps.len() == 1, "{provider}: {again:?} {gaps:?}");
        }
        let (ends, gaps) = outcome(mountebank, provider, true, vec![streamed(&words(provider), "data: {\"cho")]).await;
        assert!(matches!(&ends, Err(ModelError::Truncated { .. })) && gaps.len() == 3, "{provider}: {ends:?}");
    }
}

#[tokio::test]
async fn a_broken_event_and_an_error_event_are_told_apart() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    let overloaded = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let exhausted = json!({"error": {"type": "insufficient_quota", "message": "You exceeded"}});
    for provider in BOTH {
        let broken = vec![streamed(&words(provider), "data: {\"cho\n\n")];
        let (broken, gaps) = outcome(mountebank, provider, true, broken).await;
        let is_it = matches!(&broken, Err(ModelError::Malformed { why, .. }) if why.contains("no JSON object"));
        assert!(is_it && gaps.is_empty(), "{provider}: {broken:?}");

        let with = |event: &Value| streamed(&[words(provider), vec![event.clone()]].concat(), "");
        let (again, gaps) = outcome(mountebank, provider, true, vec![with(&overloaded), good(provider)]).await;
        assert!(again.is_ok() && gaps.len() == 1 && gaps[0] >= 375, "{provider}: {again:?} {gaps:?}");
        let (refused, gaps) = outcome(mountebank, provider, true, vec![with(&exhausted), good(provider)]).await;
        assert!(matches!(refused, Err(ModelError::Quota { .. })) && gaps.is_empty(), "{provider}: {refused:?}");
    }
}

/// The vendors count cached tokens each in their own way; here they are a part of what was read, streamed too.
#[tokio::test]
async fn cached_tokens_are_counted_in_streams_as_well() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    let openai = [
        json!({"model": "m", "choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 5}}}),
    ];
    let anthropic = [
        json!({"type": "message_start", "message": {"model": "m", "usage": {
            "input_tokens": 35, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 5, "output_tokens": 1}}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ];
    // The last counts are of the whole call; those that are not told again stand.
    let updated = [
        json!({"type": "message_start", "message": {"model": "m", "usage": {
            "input_tokens": 20, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 5, "output_tokens": 1}}}),
        json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {
            "input_tokens": 35, "cache_read_input_tokens": 60, "output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ];
    let gemini = [
        json!({"candidates": [{"content": {"parts": [{"text": "hm", "thought": true}, {"text": "x"}]}}]}),
        json!({"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 100,
            "cachedContentTokenCount": 60, "candidatesTokenCount": 4, "thoughtsTokenCount": 3}}),
    ];
    let all = [
        (Provider::OpenAi, streamed(&openai, "data: [DONE]\n\n"), 5),
        (Provider::Anthropic, streamed(&anthropic, ""), 5),
        (Provider::Anthropic, streamed(&updated, ""), 5),
        (Provider::Gemini, streamed(&gemini, ""), 0),
    ];
    for (provider, answer, written) in all {
        let server = mountebank.serve(vec![answer]).await;
        let prices =
            "[models]\n\"openai/m\" = { in = 1, out = 1 }\n\"anthropic/m\" = { in = 1, out = 1, cache_read = 0 }";
        let prices = Arc::new(Prices::with_own(prices).unwrap());
        let options = ModelOptions { prices, ..ModelOptions::default() };
        let model = oarlock::model::open(&spec(provider, &server.url, "m"), &options).unwrap();
        let progress = Some(ProgressSink::new(|_| {}));
        let reply = model.complete(&ChatRequest { progress, ..request("hello") }).await.unwrap();
        let usage = reply.usage;
        assert_eq!((reply.text.as_str(), usage.input, usage.output), ("x", 100, 7), "{provider}");
        assert_eq!((usage.cache_read, usage.cache_write), (60, written), "{provider}");
        let cost = match provider {
            Provider::OpenAi => Some(107_000),
            Provider::Anthropic => Some(47_000),
            _ => None,
        };
        assert_eq!((usage.cost_nano_usd, usage.priced_calls), (cost, u32::from(cost.is_some())), "{provider}");
    }
}

#[tokio::test]
async fn refusals_come_in_streams_as_well() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    let openai = [
        json!({"choices": [{"delta": {"role": "assistant", "content": "", "refusal": "I cannot "}, "finish_reason": null}]}),
        json!({"choices": [{"delta": {"refusal": "help with that"}, "finish_reason": null}]}),
        json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
    ];
    let gemini =
        [json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 9}})];
    for (provider, answer, says) in [
        (Provider::OpenAi, streamed(&openai, "data: [DONE]\n\n"), "I cannot help with that"),
        (Provider::Gemini, streamed(&gemini, ""), "PROHIBITED_CONTENT"),
    ] {
        let server = mountebank.serve(vec![answer]).await;
        let model = oarlock::model::open(&spec(provider, &server.url, "m"), &ModelOptions::default()).unwrap();
        let progress = Some(ProgressSink::new(|_| {}));
        let reply = model.complete(&ChatRequest { progress, ..request("hello") }).await.unwrap();
        assert_eq!((reply.text.as_str(), reply.finish), (says, Finish::Refusal), "{provider}");
        assert_eq!(server.asked_ms().await.len(), 1, "{provider}");
    }
}

#[tokio::test]
async fn who_cannot_stream_is_asked_for_the_whole() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    for provider in BOTH {
        let refusal = json!({"error": {"message": "stream is not supported by this deployment"}}).to_string();
        let answers = vec![answer(400, &json!({}), &refusal), good(provider)];
        let (told, gaps) = outcome(mountebank, provider, true, answers).await;
        assert_eq!((told.unwrap().as_str(), gaps.len()), ("fine", 1), "{provider}");
        // What is upstream has nothing to do with it.
        let refusal = json!({"error": {"message": "the upstream server refused the request"}}).to_string();
        let answers = vec![answer(400, &json!({}), &refusal), good(provider)];
        let (told, gaps) = outcome(mountebank, provider, true, answers).await;
        assert!(matches!(told, Err(ModelError::BadRequest { .. })) && gaps.is_empty(), "{provider}: {told:?}");
        // Some just answer in one piece.
        let (told, gaps) = outcome(mountebank, provider, true, vec![good(provider)]).await;
        assert_eq!((told.unwrap().as_str(), gaps.len()), ("fine", 0), "{provider}");
    }
}

#[tokio::test]
async fn a_model_that_the_server_does_not_have_is_told_with_those_that_it_has() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    let data = |names: &[&str]| json!({"data": names.iter().map(|name| json!({"id": name})).collect::<Vec<_>>()});
    let models = |names: &[&str]| json!({"models": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()});
    let many: Vec<String> = (1..=12).map(|number| format!("model-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (provider, said, list, shown) in [
        (Provider::OpenAi, "The model `m` does not exist", data(&many), "model-1, model-2"),
        (Provider::Anthropic, "model: m", data(&["claude-a", "claude-b"]), "it has claude-a, claude-b;"),
        (Provider::Gemini, "models/m is not found for API version v1beta", models(&["models/gemini-a"]), "gemini-a;"),
        (Provider::Ollama, "model 'm' not found", models(&["qwen3:8b"]), "it has qwen3:8b;"),
    ] {
        let refusal = answer(404, &json!({}), &json!({"error": {"message": said}}).to_string());
        let list = answer(200, &json!({"content-type": "application/json"}), &list.to_string());
        let (told, gaps) = outcome(mountebank, provider, true, vec![refusal.clone(), list]).await;
        let text = told.unwrap_err().to_string();
        assert!(text.contains(shown) && text.contains(said) && text.len() < 500, "{provider}: {text}");
        assert!(!text.contains("model-9"), "the list is cut: {text}");
        assert_eq!(gaps.len(), 1, "{provider}: one look at the list");
        // A gateway's own name for it has our provider before it, however far down its list.
        let own = format!("{}/m", provider.id());
        let far: Vec<&str> = many.iter().copied().chain([own.as_str()]).collect();
        let list = answer(200, &json!({}), &data(&far).to_string());
        let said_little = answer(404, &json!({}), "Not Found");
        let (told, _) = outcome(mountebank, provider, false, vec![said_little, list]).await;
        let text = told.unwrap_err().to_string();
        assert!(text.contains(&format!("to ask this gateway for {own}, name openai/{own}")), "{text}");
        // A list that has it, by whichever name, or has more than it shows, or none at all: then it was something else.
        let paged = [
            json!({"data": [{"id": "a"}], "has_more": true}),
            json!({"models": [{"name": "models/a"}], "nextPageToken": "x"}),
        ];
        let lists = [data(&["m"]), models(&["m:latest"]), models(&["models/m"])].into_iter().chain(paged);
        let lists = lists.map(|list| answer(200, &json!({}), &list.to_string()));
        for list in lists.chain([answer(500, &json!({}), "")]) {
            let (told, _) = outcome(mountebank, provider, false, vec![refusal.clone(), list]).await;
            assert!(matches!(told, Err(ModelError::BadRequest { status: 404, .. })), "{provider}: {told:?}");
        }
    }
}

#[tokio::test]
async fn a_web_page_is_no_model() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    let page = answer(200, &json!({"content-type": "text/html"}), "<!doctype html><title>Welcome</title>");
    for (provider, stream) in BOTH.into_iter().flat_map(|provider| [(provider, false), (provider, true)]) {
        let (told, gaps) = outcome(mountebank, provider, stream, vec![page.clone()]).await;
        let text = told.unwrap_err().to_string();
        assert!(text.contains("<!doctype html>") && text.contains("base URL"), "{provider}: {text}");
        assert!(gaps.is_empty(), "{provider}: {gaps:?}");
    }
}

#[tokio::test]
async fn a_rate_limit_tells_how_long_the_fleet_should_pause() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    for (headers, heard_s) in [(json!({"retry-after": "300"}), 300), (json!({}), LIMITED_S)] {
        let server = mountebank.serve(vec![answer(429, &headers, "{}")]).await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = heard.clone();
        let sink = ProgressSink::new(move |progress| {
            if let Progress::Limited(wait) = progress {
                hearing.lock().unwrap().push(wait);
            }
        });
        let model = oarlock::model::open(&spec(Provider::OpenAi, &server.url, "m"), &ModelOptions::default()).unwrap();
        let outcome = model.complete(&ChatRequest { progress: Some(sink), ..request("hello") }).await;
        assert!(matches!(outcome, Err(ModelError::RateLimited { .. })), "{outcome:?}");
        assert_eq!(*heard.lock().unwrap(), [Duration::from_secs(heard_s)]);
    }
}

//! Answers that come word by word: the pieces are the whole, and the usage is the same.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oarlock::model::{
    CallLimits, ChatModel, ChatReply, ChatRequest, Finish, HttpModel, ModelError, ModelOptions, Progress, ProgressSink,
    Provider, SchemaTold, Script, ScriptedModel, Waits, Way,
};
use serde_json::json;

use crate::aimock_process::Aimock;
use crate::support::{Act, Server, request, spec, with_schema};

/// What was heard of a call: `None` for a beginning.
type Heard = Arc<Mutex<Vec<Option<String>>>>;

fn listening(request: ChatRequest) -> (ChatRequest, Heard) {
    let heard = Heard::default();
    let hearing = heard.clone();
    let sink = ProgressSink::new(move |progress| match progress {
        Progress::Begun => hearing.lock().unwrap().push(None),
        Progress::Text(text) => hearing.lock().unwrap().push(Some(text.to_owned())),
        Progress::Limited(_) => {}
    });
    (ChatRequest { progress: Some(sink), ..request }, heard)
}

async fn ask(provider: Provider, url: &str, request: &ChatRequest) -> Result<ChatReply, ModelError> {
    let model = oarlock::model::open(&spec(provider, url, "gemini-3.8-flash"), &ModelOptions::default()).unwrap();
    model.complete(request).await
}

#[tokio::test]
async fn the_pieces_are_the_whole_in_all_three_formats() {
    let words = "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)  # ünïcode\n";
    let usage = json!({
        "prompt_tokens": 123, "completion_tokens": 45, "total_tokens": 168, "input_tokens": 123, "output_tokens": 45,
        "promptTokenCount": 123, "candidatesTokenCount": 45, "totalTokenCount": 168
    });
    let fixture =
        json!([{"match": {"userMessage": "write"}, "chunkSize": 7, "response": {"content": words, "usage": usage}}]);
    let Some(aimock) = Aimock::start(fixture).await else { return };
    for provider in [Provider::OpenAi, Provider::Anthropic, Provider::Gemini] {
        let (request, heard) = listening(with_schema(request("write")));
        let reply = ask(provider, &aimock.url, &request).await.unwrap();
        assert_eq!((reply.text.as_str(), reply.finish), (words, Finish::Stop), "{provider}");
        assert_eq!((reply.usage.input, reply.usage.output), (123, 45), "{provider}");
        assert!(!reply.usage.estimated, "{provider}");
        assert_eq!(reply.way, Way { schema: SchemaTold::Server, streamed: true }, "{provider}");
        let heard = heard.lock().unwrap().clone();
        assert_eq!(heard[0], None, "{provider}");
        let pieces: Vec<String> = heard[1..].iter().map(|piece| piece.clone().unwrap()).collect();
        assert!(pieces.len() > 5, "{provider}: {pieces:?}");
        assert_eq!(pieces.concat(), words, "{provider}");
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_is_heard_in_one_piece() {
    let whole = json!({"choices": [{"message": {"content": "all at once"}, "finish_reason": "stop"}]});
    let server = Server::start(vec![Act::Answer(500, "retry-after-ms: 1\r\n", "{}".into()), Act::ok(&whole)]).await;
    let (request, heard) = listening(request("write"));
    ask(Provider::OpenAi, &server.url, &request).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), [None, None, Some("all at once".to_owned())], "a second beginning");
    let script = Script::parse(r#"{"version":1,"rules":[{"response":{"content":"recorded"}}]}"#).unwrap();
    let (request, heard) = listening(request);
    ScriptedModel::new(Arc::new(script), "m").complete(&request).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), [None, Some("recorded".to_owned())]);
}

#[tokio::test]
async fn a_stream_is_bounded_by_event_and_in_all() {
    let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let event: &'static str = format!("{begin}data: {}\n\n", "x".repeat(1024 * 1024 + 1)).leak();
    let word = json!({"choices": [{"delta": {"content": "x".repeat(1024 * 512)}}]});
    let all: &'static str = format!("{begin}{}", format!("data: {word}\n\n").repeat(17)).leak();
    for (answer, says) in [(event, "an event has more than"), (all, "more than 8 MiB")] {
        let server = Server::start(vec![Act::Raw(answer)]).await;
        let (request, _) = listening(request("write"));
        let text = ask(Provider::OpenAi, &server.url, &request).await.unwrap_err().to_string();
        assert!(text.contains(says), "{text}");
        assert_eq!(server.seen().len(), 1);
    }
}

/// What comes after the reason of the end, or does not, makes the answer neither worse nor dearer.
#[tokio::test]
async fn an_answer_that_is_whole_is_not_paid_for_again() {
    let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n";
    let word = json!({"choices": [{"delta": {"content": "all of it"}, "finish_reason": "stop"}]});
    let whole = format!("{begin}data: {word}\n\n");
    let broken: &'static str = whole.clone().leak();
    let garbled: &'static str = format!("{whole}data: {{\"cho\n\n").leak();
    let failed: &'static str = format!("{whole}data: {{\"error\":{{\"type\":\"server_error\"}}}}\n\n").leak();
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 123, "completion_tokens": 45}});
    let counted: &'static str = format!("{whole}data: {usage}\n\n").leak();
    let acts = [
        (Act::Raw(broken), true, 0),
        (Act::Raw(garbled), true, 0),
        (Act::Raw(failed), true, 0),
        (Act::Open(broken), true, 3),
        (Act::Drip(counted, Duration::from_millis(200), ": still here\n\n"), false, 3),
    ];
    for (act, estimated, took_s) in acts {
        let server = Server::start(vec![act]).await;
        let (request, _) = listening(request("write"));
        let began = Instant::now();
        let reply = ask(Provider::OpenAi, &server.url, &request).await.unwrap();
        assert_eq!((reply.text.as_str(), reply.finish, reply.usage.estimated), ("all of it", Finish::Stop, estimated));
        assert!((took_s..took_s + 3).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert_eq!(server.seen().len(), 1);
    }
}

/// Signs of life are no words, thoughts are.
#[tokio::test]
async fn the_wait_for_the_first_word_is_no_longer_for_signs_of_life() {
    let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let often = Duration::from_millis(100);
    let role = r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
    let alive: &'static str = format!("{begin}{role}\n\n").leak();
    let thinks = "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n";
    let waits = Waits { first_byte: Duration::from_millis(900), read: Duration::from_millis(600) };
    let asked = ChatRequest { timeout: Duration::from_secs(3), ..listening(request("write")).0 };
    for (more, says) in [(": alive\n\n", "not a word for 0.9 s"), (thinks, "no answer within 3 s")] {
        let server = Server::start(vec![Act::Drip(alive, often, more)]).await;
        let model = HttpModel::new(&spec(Provider::OpenAi, &server.url, "m"), waits).unwrap();
        let text = model.complete(&asked).await.unwrap_err().to_string();
        assert!(text.contains(says), "{text}");
    }
}

/// Who waits for one model's place holds none that another model of its provider could have.
#[tokio::test]
async fn a_wait_for_one_model_keeps_no_place_from_another() {
    let server = Server::start(vec![Act::Silence]).await;
    let calls = CallLimits::new([("*".to_owned(), 2)].into(), [("openai/a".to_owned(), 1)].into());
    let options = ModelOptions { calls: Arc::new(calls), ..ModelOptions::default() };
    let open = |model| oarlock::model::open(&spec(Provider::OpenAi, &server.url, model), &options).unwrap();
    let (one, same, other) = (open("a"), open("a"), open("b"));
    let asked = ChatRequest { timeout: Duration::from_millis(1_500), ..request("hello") };
    // It gives up while the place is still held.
    let sooner = ChatRequest { timeout: Duration::from_millis(1_000), ..asked.clone() };
    let (_, busy, reached) = tokio::join!(one.complete(&asked), same.complete(&sooner), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        other.complete(&ChatRequest { timeout: Duration::from_millis(500), ..asked.clone() }).await
    });
    assert!(matches!(busy, Err(ModelError::Busy { limit: "model_calls_max", .. })), "{busy:?}");
    assert!(matches!(reached, Err(ModelError::Timeout { .. })), "{reached:?}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn calls_wait_for_a_place_and_say_which_limit_it_was() {
    let server = Server::start(vec![Act::Silence]).await;
    for (table, name) in [("provider", "provider_calls_max"), ("model", "model_calls_max")] {
        let one = [("*".to_owned(), 1)].into();
        let calls = match table {
            "provider" => CallLimits::new(one, [].into()),
            _ => CallLimits::new([].into(), one),
        };
        let options = ModelOptions { calls: Arc::new(calls), ..ModelOptions::default() };
        let open = |model| oarlock::model::open(&spec(Provider::OpenAi, &server.url, model), &options).unwrap();
        let (first, second) = (open("a"), open(if table == "provider" { "b" } else { "a" }));
        let asked = ChatRequest { timeout: Duration::from_millis(600), ..request("hello") };
        let (busy, _) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                second.complete(&ChatRequest { timeout: Duration::from_millis(300), ..asked.clone() }).await
            },
            first.complete(&asked)
        );
        let text = busy.unwrap_err().to_string();
        assert!(text.contains(name) && text.contains("0.3 s") && text.contains('1'), "{text}");
        // The place is free again.
        let freed = second.complete(&asked).await.unwrap_err();
        assert!(matches!(freed, ModelError::Timeout { .. }), "{freed}");
    }
}

//! Every fault that a provider can show, in both wire formats, whole and streamed, from a server that nobody here wrote; how
//! often and how soon it was asked again is read from that server's own journal.

use std::time::Duration;

use futures::future::join_all;
use oarlock::model::{
    ChatModel, ChatRequest, Finish, HttpModel, ModelError, ModelOptions, Progress, ProgressSink, Provider, Waits,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::aimock_process::Aimock;
use crate::support::{request, spec};

/// Both formats, whole and streamed.
const WAYS: [(Provider, bool); 4] =
    [(Provider::OpenAi, false), (Provider::OpenAi, true), (Provider::Anthropic, false), (Provider::Anthropic, true)];
/// What the way of a request may take beyond its pause, on a machine that does other things besides.
const SLACK_MS: u64 = 1_500;

/// A request whose text is its own, whatever else this server is asked.
fn asked(name: &str, provider: Provider, streamed: bool) -> ChatRequest {
    let text = text(name, provider, streamed);
    let sink = ProgressSink::new(|_: Progress<'_>| {});
    ChatRequest { progress: streamed.then_some(sink), ..request(&text) }
}

fn text(name: &str, provider: Provider, streamed: bool) -> String {
    format!("<{name} {} {streamed}>", provider.id())
}

/// The fixtures of one fault: `first` for the first request of each way, `then` for the others.
fn fixtures(name: &str, first: &Value, then: Option<&Value>) -> Vec<Value> {
    let of_way = |(provider, streamed): &(Provider, bool)| {
        let user = text(name, *provider, *streamed);
        let fixture = |nth: Option<u32>, answer: &Value| {
            let mut fixture = answer.clone();
            fixture["match"] = json!({"userMessage": user});
            if let Some(nth) = nth {
                fixture["match"]["sequenceIndex"] = nth.into();
            }
            fixture
        };
        match then {
            Some(then) => vec![fixture(Some(0), first), fixture(None, then)],
            None => vec![fixture(None, first)],
        }
    };
    WAYS.iter().flat_map(of_way).collect()
}

fn error(status: u16, kind: &str) -> Value {
    json!({"response": {"error": {"message": format!("it says {kind}"), "type": kind, "code": kind}, "status": status}})
}

fn limited(retry_after: &Value) -> Value {
    let mut answer = error(429, "rate_limit_error");
    answer["response"]["retryAfter"] = retry_after.clone();
    answer
}

fn good() -> Value {
    json!({"response": {"content": "well then"}})
}

/// The outcome of one call, and when each of its requests came, in milliseconds since 1970.
async fn timed(
    aimock: &Aimock,
    name: &str,
    (provider, streamed): (Provider, bool),
    waits: Waits,
    timeout: Duration,
) -> (Result<String, ModelError>, Vec<u64>) {
    let options = ModelOptions { waits, ..ModelOptions::default() };
    let model = oarlock::model::open(&spec(provider, &aimock.url, "some-model"), &options).unwrap();
    let request = ChatRequest { timeout, ..asked(name, provider, streamed) };
    let outcome = model.complete(&request).await.map(|reply| reply.text);
    let requests = aimock.asked(&text(name, provider, streamed)).await;
    assert!(!requests.is_empty(), "{name} {provider} {streamed}: {outcome:?}");
    assert!(requests.iter().all(|request| request.body["stream"].as_bool().unwrap_or(false) == streamed));
    (outcome, requests.iter().map(|request| request.at_ms).collect())
}

/// The outcome of one call, and the pauses between its requests.
async fn outcome(
    aimock: &Aimock,
    name: &str,
    way: (Provider, bool),
    waits: Waits,
    timeout: Duration,
) -> (Result<String, ModelError>, Vec<u64>) {
    let (outcome, times) = timed(aimock, name, way, waits, timeout).await;
    (outcome, times.windows(2).map(|pair| pair[1] - pair[0]).collect())
}

/// Asks for each of `names` in each way, all at once.
async fn outcomes(
    aimock: &Aimock,
    names: &[String],
    waits: Waits,
) -> Vec<(String, bool, Result<String, ModelError>, Vec<u64>)> {
    let calls = names.iter().flat_map(|name| WAYS.map(|way| (name.clone(), way)));
    let calls = calls.map(|(name, way)| async move {
        let (outcome, gaps) = outcome(aimock, &name, way, waits, Duration::from_secs(30)).await;
        (format!("{name} {} streamed={}", way.0, way.1), way.1, outcome, gaps)
    });
    join_all(calls).await
}

fn assert_doubling(about: &str, gaps: &[u64]) {
    assert_eq!(gaps.len(), 3, "{about}: {gaps:?}");
    assert!(gaps[0] < gaps[1] && gaps[1] < gaps[2], "{about}: {gaps:?}");
    for (gap, full_ms) in gaps.iter().zip([500, 1_000, 2_000]) {
        assert!((full_ms * 3 / 4..full_ms + SLACK_MS).contains(gap), "{about}: {gaps:?}");
    }
}

#[tokio::test]
async fn what_may_pass_is_asked_again_after_doubling_waits_and_three_times() {
    let kinds =
        [(408, "timeout"), (409, "conflict_error"), (500, "api_error"), (502, "bad"), (529, "overloaded_error")];
    let all = kinds.iter().flat_map(|(status, kind)| fixtures(&format!("s{status}"), &error(*status, kind), None));
    let Some(aimock) = Aimock::start(all.collect()).await else { return };
    let names: Vec<String> = kinds.iter().map(|(status, _)| format!("s{status}")).collect();
    for (about, _, outcome, gaps) in outcomes(&aimock, &names, Waits::default()).await {
        assert!(matches!(outcome, Err(ModelError::Unavailable { status: Some(_), .. })), "{about}: {outcome:?}");
        assert_doubling(&about, &gaps);
    }
}

#[tokio::test]
async fn what_cannot_pass_is_asked_once() {
    let kinds = [
        (400, "invalid_request_error", "refused"),
        (401, "authentication_error", "key"),
        (403, "permission_error", "key"),
        (402, "billing_error", "credit"),
        (404, "not_found_error", "refused"),
        (413, "request_too_large", "less context"),
        (422, "bad_parameter", "refused"),
        (429, "insufficient_quota", "credit"),
        (429, "enforced_spend_limit_reached", "credit"),
    ];
    let all = kinds.iter().flat_map(|(status, kind, _)| fixtures(kind, &error(*status, kind), None));
    let Some(aimock) = Aimock::start(all.collect()).await else { return };
    let names: Vec<String> = kinds.iter().map(|(_, kind, _)| (*kind).to_owned()).collect();
    let found = outcomes(&aimock, &names, Waits::default()).await;
    for ((about, _, outcome, gaps), (status, _, says)) in found.iter().zip(kinds.iter().flat_map(|kind| [kind; 4])) {
        let text = outcome.as_ref().unwrap_err().to_string();
        assert!(text.contains(says) && text.contains(&status.to_string()), "{about}: {text}");
        assert!(gaps.is_empty(), "{about}: {gaps:?}");
    }
}

/// Each wait is longer than any that we would choose ourselves before a first retry.
#[tokio::test]
async fn a_retry_after_is_kept_in_its_forms_and_refused_when_it_is_too_long() {
    let kinds = [("seconds", json!(2), 2_000), ("fraction", json!(1.7), 1_700), ("long", json!(121), 0)];
    let all = kinds.iter().flat_map(|(name, wait, _)| fixtures(name, &limited(wait), Some(&good())));
    let Some(aimock) = Aimock::start(all.collect()).await else { return };
    let names: Vec<String> = kinds.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let found = outcomes(&aimock, &names, Waits::default()).await;
    for ((about, _, outcome, gaps), (name, _, wait_ms)) in
        found.into_iter().zip(kinds.iter().flat_map(|kind| [kind; 4]))
    {
        if *name == "long" {
            let text = outcome.unwrap_err().to_string();
            assert!(gaps.is_empty() && text.contains("121 s") && text.contains("120 s"), "{about}: {text}");
            continue;
        }
        assert_eq!(outcome.unwrap(), "well then", "{about}");
        assert!(gaps.len() == 1 && (*wait_ms..wait_ms + SLACK_MS).contains(&gaps[0]), "{about}: {gaps:?}");
    }
}

#[tokio::test]
async fn a_date_in_a_retry_after_is_waited_for() {
    let at = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + Duration::from_secs(8);
    let date = at.format(&Rfc2822).unwrap().replace("+0000", "GMT");
    let Some(aimock) = Aimock::start(fixtures("date", &limited(&json!(date)), Some(&good())).into()).await else {
        return;
    };
    let calls = WAYS.map(|way| timed(&aimock, "date", way, Waits::default(), Duration::from_secs(30)));
    let at_ms = u64::try_from(at.unix_timestamp() * 1_000).unwrap();
    for (outcome, times) in join_all(calls).await {
        assert_eq!(outcome.unwrap(), "well then");
        // The present in the answer has no parts of a second either.
        assert!(times.len() == 2 && times[0] < at_ms, "{times:?} and {at_ms}");
        assert!((at_ms..at_ms + 1_000 + SLACK_MS).contains(&times[1]), "{times:?} and {at_ms}");
    }
}

#[tokio::test]
async fn broken_connections_and_broken_answers() {
    let words = json!({"content": "one two three four five six seven eight nine ten eleven twelve"});
    let all = [
        ("cut", json!({"response": words, "chaos": {"disconnectRate": 1.0}})),
        ("garbage", json!({"response": words, "chaos": {"malformedRate": 1.0}})),
        ("truncated", json!({"response": words, "truncateAfterChunks": 3, "latency": 50, "chunkSize": 4})),
        ("lost", json!({"response": words, "disconnectAfterMs": 150, "latency": 100, "chunkSize": 4})),
    ];
    let fixtures = all.iter().flat_map(|(name, answer)| fixtures(name, answer, None));
    let Some(aimock) = Aimock::start(fixtures.collect()).await else { return };
    let names: Vec<String> = all.iter().map(|(name, _)| (*name).to_owned()).collect();
    for (about, streamed, outcome, gaps) in outcomes(&aimock, &names, Waits::default()).await {
        let kind = about.split(' ').next().unwrap();
        match (kind, &outcome) {
            ("cut", Err(ModelError::Unavailable { status: None, .. })) => assert_doubling(&about, &gaps),
            ("garbage", Err(ModelError::Garbled { why, .. })) => {
                assert!(gaps.is_empty() && why.contains("malformed json"), "{about}: {why}");
            }
            ("truncated" | "lost", Err(ModelError::Truncated { .. })) if streamed => {
                assert_eq!(gaps.len(), 3, "{about}: {gaps:?}");
            }
            // Only streams are cut by these.
            ("truncated" | "lost", Ok(_)) if !streamed => assert!(gaps.is_empty(), "{about}"),
            _ => panic!("{about}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn silence_has_an_end_before_the_first_byte_between_bytes_and_over_all() {
    let words = json!({"content": "one two three four"});
    let all = [
        ("mute", json!({"response": words, "streamingProfile": {"ttft": 3_000, "tps": 1}})),
        // The stream is opened at once, and then the prompt is read.
        (
            "early",
            json!({"response": words,
            "recordedTimings": {"ttftMs": 0, "interChunkDelaysMs": [3_000, 0, 0], "totalDurationMs": 3_000}}),
        ),
        ("late", json!({"response": words, "streamingProfile": {"ttft": 3_000, "tps": 1}})),
        (
            "slow",
            json!({"response": words, "chunkSize": 4,
            "recordedTimings": {"ttftMs": 0, "interChunkDelaysMs": [0, 0, 0, 4_000, 0, 0, 0], "totalDurationMs": 4_000}}),
        ),
    ];
    let fixtures = all.iter().flat_map(|(name, answer)| fixtures(name, answer, None));
    let Some(aimock) = Aimock::start(fixtures.collect()).await else { return };
    let waits = Waits { first_byte: Duration::from_millis(700), read: Duration::from_millis(400) };
    let call = |name, provider, waits, timeout_ms| {
        let (aimock, timeout) = (&aimock, Duration::from_millis(timeout_ms));
        async move { outcome(aimock, name, (provider, true), waits, timeout).await }
    };
    for provider in [Provider::OpenAi, Provider::Anthropic] {
        let (early, mute, slow, whole) = tokio::join!(
            call("early", provider, waits, 9_000),
            call("mute", provider, waits, 9_000),
            call("slow", provider, waits, 9_000),
            call("late", provider, Waits::default(), 1_000)
        );
        for (outcome, gaps) in [early, mute] {
            let text = outcome.unwrap_err().to_string();
            assert!(text.contains("not a word for 0.7 s") && text.contains("first_byte_s"), "{provider}: {text}");
            assert_eq!(gaps.len(), 3, "{provider}: {gaps:?}");
        }
        let text = slow.0.unwrap_err().to_string();
        assert!(text.contains("nothing more for 0.4 s") && text.contains("read_s"), "{provider}: {text}");
        assert_eq!(slow.1.len(), 3, "{provider}: {:?}", slow.1);
        // The whole call's time is over: nothing is asked again.
        let text = whole.0.unwrap_err().to_string();
        assert!(text.contains("no answer within 1 s") && whole.1.is_empty(), "{provider}: {text} {:?}", whole.1);
    }
}

#[tokio::test]
async fn endings_are_the_same_whole_and_streamed() {
    let ends = [
        ("length", Finish::Length),
        ("refusal", Finish::Refusal),
        ("content_filter", Finish::Refusal),
        ("pause_turn", Finish::Paused),
        ("stop", Finish::Stop),
    ];
    let all = ends
        .iter()
        .flat_map(|(end, _)| fixtures(end, &json!({"response": {"content": "so far", "finishReason": end}}), None));
    let Some(aimock) = Aimock::start(all.collect()).await else { return };
    for (end, finish) in ends {
        for (provider, streamed) in WAYS {
            let is_others = match provider {
                Provider::OpenAi => ["refusal", "pause_turn"].contains(&end),
                _ => end == "content_filter",
            };
            if is_others {
                continue;
            }
            let model = HttpModel::new(&spec(provider, &aimock.url, "m"), Waits::default()).unwrap();
            let reply = model.complete(&asked(end, provider, streamed)).await.unwrap();
            assert_eq!((reply.text.as_str(), &reply.finish), ("so far", &finish), "{end} {provider} {streamed}");
        }
    }
}

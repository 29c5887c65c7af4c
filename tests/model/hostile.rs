//! Servers that break off, lie, drown us or say nothing.

use std::time::{Duration, Instant};

use oarlock::model::{ApiKey, ChatModel, HttpModel, ModelError, ModelSpec, Provider, REPLY_BYTES_MAX, Waits};
use serde_json::json;

use crate::support::{Act, Server, ask, request, spec};

fn good() -> Act {
    Act::ok(&json!({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}))
}

async fn outcome(acts: Vec<Act>) -> (Result<String, ModelError>, Vec<Duration>, usize) {
    let server = Server::start(acts).await;
    let outcome = ask(&spec(Provider::OpenAi, &server.url, "m"), &request("hello")).await;
    let seen = server.seen();
    let gaps = seen.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    (outcome.map(|reply| reply.text), gaps, seen.len())
}

#[tokio::test]
async fn answers_that_are_no_completion_show_their_beginning_and_are_not_asked_again() {
    for (act, part) in [
        (
            Act::Answer(200, "content-type: text/html\r\n", "<html>\n<body>Welcome</body>".into()),
            "<html> <body>Welcome",
        ),
        (Act::Answer(200, "content-type: application/json\r\n", "  \n".into()), "it is empty"),
        (
            Act::Raw("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"choices\": [{\"mess"),
            "{\\\"choices\\\": [{\\\"mess",
        ),
        (Act::ok(&json!({"hello": "world"})), "no choices"),
        (Act::Answer(200, "", "<p>sk-hunter2</p>".into()), "<p>[key]</p>"),
        (Act::ok(&json!([1])), "no JSON object"),
    ] {
        let (outcome, _, asked) = outcome(vec![act]).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, ModelError::Garbled { .. }) && !error.is_transient());
        let text = error.to_string();
        assert!(text.contains(part) && text.contains("127.0.0.1:") && text.len() < 400, "{text}");
        assert_eq!(asked, 1, "{text}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_at_the_limit() {
    let started = Instant::now();
    let (outcome, _, asked) = outcome(vec![Act::Endless]).await;
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains(&format!("more than {} MiB", REPLY_BYTES_MAX / 1024 / 1024)), "{text}");
    assert_eq!(asked, 1);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn broken_connections_are_asked_again_with_growing_waits() {
    let truncated = Act::Raw("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"choices\":");
    let (outcome, gaps, asked) = outcome(vec![Act::Reset, truncated, Act::Raw(""), good()]).await;
    assert_eq!(outcome.unwrap(), "fine");
    assert_eq!(asked, 4);
    for (gap, full_ms) in gaps.iter().zip([500, 1000, 2000]) {
        let gap_ms = gap.as_millis();
        assert!(gap_ms >= full_ms * 3 / 4 && gap_ms < full_ms + 500, "{gaps:?}");
    }
    assert!(gaps[0] < gaps[1] && gaps[1] < gaps[2], "{gaps:?}");
}

#[tokio::test]
async fn retry_after_ms_is_kept() {
    let wait = Act::Answer(429, "retry-after: 9\r\nretry-after-ms: 1300\r\n", "{}".into());
    let (outcome, gaps, _) = outcome(vec![wait, good()]).await;
    assert_eq!(outcome.unwrap(), "fine");
    assert!((1_300..2_800).contains(&(gaps[0].as_millis() as u64)), "{gaps:?}");
}

#[tokio::test]
async fn useless_requests_are_not_repeated() {
    let quota = json!({"error": {"message": "You exceeded", "code": "insufficient_quota"}}).to_string();
    for (act, expected) in [
        (Act::Answer(429, "", quota), "quota"),
        (Act::Answer(429, "retry-after: 300\r\n", "{}".into()), "300 s"),
        (Act::Answer(503, "x-should-retry: false\r\n", "{}".into()), "503"),
        (Act::Answer(401, "", json!({"error": {"message": "bad key sk-hunter2"}}).to_string()), "[key]"),
        (Act::Answer(404, "", json!({"error": {"message": "no model m"}}).to_string()), "check the model's name"),
        (Act::Answer(307, "location: http://127.0.0.1:1/\r\n", String::new()), "redirects"),
        (Act::ok(&json!({"error": {"message": "upstream", "code": 401}})), "401"),
    ] {
        let (outcome, _, asked) = outcome(vec![act]).await;
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(expected) && !text.contains("hunter2"), "{expected}: {text}");
        // Where the model may not exist, the server is asked which ones do.
        assert_eq!(asked, if expected.contains("model") { 2 } else { 1 }, "{text}");
    }
}

#[tokio::test]
async fn four_requests_and_no_more() {
    let (outcome, gaps, asked) = outcome(vec![Act::Answer(500, "retry-after-ms: 10\r\n", "oops".into())]).await;
    assert!(matches!(outcome, Err(ModelError::Unavailable { status: Some(500), .. })));
    assert_eq!((asked, gaps.len()), (4, 3));
}

#[tokio::test]
async fn silence_ends_at_the_timeout() {
    let server = Server::start(vec![Act::Silence]).await;
    let mut request = request("hello");
    request.timeout = Duration::from_millis(300);
    let started = Instant::now();
    let error = ask(&spec(Provider::OpenAi, &server.url, "m"), &request).await.unwrap_err();
    assert!(matches!(error, ModelError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("0.3 s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(server.seen().len(), 1);
}

/// A server whose queue of connections is full, so that the system answers no further one; on loopback, as a distant firewall
/// would be.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connecting_has_a_limit_of_its_own() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(address)).await
    {
        queue.push(connected.unwrap());
    }
    let model = HttpModel::new(&spec(Provider::OpenAi, &format!("http://{address}"), "m"), Waits::default()).unwrap();
    let started = Instant::now();
    let error = model.complete(&request("hello")).await.unwrap_err();
    assert!(matches!(error, ModelError::Unavailable { status: None, .. }) && error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("connecting took too long"), "{error}");
    assert!((4_900..8_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
}

#[tokio::test]
async fn retries_stay_within_the_timeout() {
    let server = Server::start(vec![Act::Answer(503, "", "{}".into())]).await;
    let mut request = request("hello");
    request.timeout = Duration::from_millis(900);
    let started = Instant::now();
    let error = ask(&spec(Provider::OpenAi, &server.url, "m"), &request).await.unwrap_err();
    assert!(matches!(error, ModelError::Unavailable { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_dead_port_says_so_without_key_or_prompt() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let spec = ModelSpec {
        provider: Provider::Ollama,
        model: "llama".into(),
        base_url: Some(url),
        api_key: Some(ApiKey::new("sk-hunter2").unwrap()),
    };
    let mut request = request("a secret prompt");
    request.timeout = Duration::from_millis(400);
    let error = ask(&spec, &request).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("connection refused") && text.contains("ollama serve"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("secret prompt"), "{text}");
}

/// Runs itself again with a proxy in the environment, which then is asked in the remote server's place. That has an address
/// which is not loopback and yet leads nowhere but to this machine, so that without the proxy nothing leaves it, no question
/// for a name either.
#[tokio::test]
async fn a_remote_server_is_asked_through_the_proxy() {
    if std::env::var_os("OARLOCK_TEST_PROXIED").is_some() {
        let reply = ask(&spec(Provider::OpenAi, "http://0.0.0.0:9/v1", "m"), &request("hello")).await.unwrap();
        assert_eq!(reply.text, "fine");
        return;
    }
    let proxy = Server::start(vec![good()]).await;
    let mut again = tokio::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "hostile::a_remote_server_is_asked_through_the_proxy"]);
    again.env("OARLOCK_TEST_PROXIED", "1").env("HTTP_PROXY", &proxy.url).env("http_proxy", &proxy.url);
    let output = again.env_remove("NO_PROXY").env_remove("no_proxy").output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    let seen = proxy.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].head.starts_with("POST http://0.0.0.0:9/v1/chat/completions "), "{}", seen[0].head);
}

/// Runs another test of this file again with a dead proxy in the environment.
#[test]
fn loopback_is_never_asked_through_a_proxy() {
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "hostile::retry_after_ms_is_kept"]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        again.env(name, "http://127.0.0.1:9");
    }
    let output = again.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

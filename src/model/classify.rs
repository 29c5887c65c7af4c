//! From an HTTP error answer to the kind of [`ModelError`] that a caller acts on.
//!
//! The vendors overlap in statuses and differ in words: 429 is both "slow down" and "no credit left", Gemini answers a
//! wrong key with 400, and Anthropic says with `x-should-retry` what it thinks of a retry. The table follows the
//! vendors' own SDKs; a script's faults go through it as well, so that they are what a server would cause.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::error::{ModelError, Peer};
use super::excerpt;
use super::spec::{ApiKey, blot_out};

/// What is kept of a server's words.
const SAID_CHARS_MAX: usize = 300;
/// The longest wait that is believed at all; beyond it a header is taken for nonsense.
const RETRY_AFTER_BELIEVED_S_MAX: f64 = 7.0 * 24.0 * 3600.0;

/// Words in an error's type, code, message or details that mean "no money", which no retry mends.
const QUOTA_WORDS: [&str; 6] = [
    "insufficient_quota",
    "credit_balance",
    "credit balance",
    "billing_error",
    "enforced_spend_limit_reached",
    "spend limit",
];

/// What the id of Gemini's quota of a day has in it, as in `GenerateRequestsPerDayPerProjectPerModel-FreeTier`: nothing that
/// waits for minutes gets past it.
const DAILY_QUOTA: &str = "requestsperday";

/// An answer with an error status.
pub(super) struct Refusal {
    pub(super) peer: Arc<Peer>,
    pub(super) status: u16,
    /// Type, code, message and details as the server gave them, in lower case.
    pub(super) words: String,
    /// What to show of it.
    pub(super) said: String,
    pub(super) retry_after: Option<Duration>,
    /// The server's own opinion on retrying.
    pub(super) should_retry: Option<bool>,
}

impl Refusal {
    /// Reads an error answer. A key that the server repeats is blotted out.
    pub(super) fn read(peer: Arc<Peer>, status: u16, headers: &HeaderMap, body: &str, key: Option<&ApiKey>) -> Self {
        let body = blot_out(key, body);
        let value: Value = serde_json::from_str(&body).unwrap_or_default();
        let said = message_of(&value).unwrap_or(&body);
        let words = if value.is_object() { words_of(&value) } else { body.clone() };
        Self {
            peer,
            status,
            said: if said.trim().is_empty() { "no message".to_owned() } else { excerpt(said, SAID_CHARS_MAX) },
            retry_after: retry_after(headers).or_else(|| retry_delay(&value)),
            should_retry: headers.get("x-should-retry").and_then(|v| v.to_str().ok()?.parse().ok()),
            words: words.to_ascii_lowercase(),
        }
    }

    /// The kind of error that this is.
    pub(super) fn into_error(self) -> ModelError {
        let Self { peer, status, words, said, retry_after, should_retry } = self;
        let has_any = |list: &[&str]| list.iter().any(|word| words.contains(word));
        match status {
            402 => ModelError::Quota { peer, status, said },
            429 if has_any(&QUOTA_WORDS) || has_any(&[DAILY_QUOTA]) => ModelError::Quota { peer, status, said },
            400 if has_any(&["credit balance is too low"]) => ModelError::Quota { peer, status, said },
            429 => ModelError::RateLimited { peer, said, retry_after, retry: should_retry.unwrap_or(true) },
            408 | 409 | 500.. => {
                let (said, retry) = (format!("{status}: {said}"), should_retry.unwrap_or(true));
                ModelError::Unavailable { peer, status: Some(status), said, retry_after, retry, source: None }
            }
            _ if should_retry == Some(true) => {
                let said = format!("{status}: {said}");
                ModelError::Unavailable { peer, status: Some(status), said, retry_after, retry: true, source: None }
            }
            401 | 403 => ModelError::Auth { peer, status: Some(status), said },
            400 if has_any(&["api_key_invalid", "api key not valid", "invalid_api_key"]) => {
                ModelError::Auth { peer, status: Some(status), said }
            }
            _ => ModelError::BadRequest { peer, status, said },
        }
    }
}

/// The status that an error would have had as an answer of its own: some servers send it with status 200, or in the midst
/// of a stream.
pub(super) fn status_of(error: &Value) -> u16 {
    let number = ["code", "status"].iter().find_map(|name| match error.get(*name)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    });
    if let Some(status) = number.filter(|status| (400..600).contains(status)) {
        return status as u16;
    }
    let word = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let is = |words: &[&str]| words.contains(&word("type")) || words.contains(&word("code"));
    match () {
        () if is(&["rate_limit_error", "rate_limit_exceeded", "insufficient_quota", "billing_error"]) => 429,
        () if is(&["overloaded_error"]) => 529,
        () if is(&["timeout_error"]) => 504,
        () if is(&["authentication_error", "invalid_api_key"]) => 401,
        () if is(&["permission_error"]) => 403,
        () if is(&["not_found_error", "model_not_found"]) => 404,
        () if is(&["invalid_request_error", "exceed_context_size_error"]) => 400,
        () if is(&["api_error", "server_error"]) => 500,
        () => 502,
    }
}

/// The human part of the error bodies of OpenAI, Anthropic, Gemini, llama.cpp and FastAPI.
fn message_of(body: &Value) -> Option<&str> {
    [body.pointer("/error/message"), body.get("message"), body.get("detail"), body.get("error")]
        .into_iter()
        .flatten()
        .find_map(Value::as_str)
}

/// Where an error says what it is about. What else a body holds may be the prompt, sent back.
fn words_of(body: &Value) -> String {
    let places = ["/error/type", "/error/code", "/error/status", "/error/message", "/error/details", "/error"];
    let all = places.into_iter().chain(["/type", "/code", "/message", "/detail"]).filter_map(|place| {
        let found = body.pointer(place)?;
        match found {
            Value::String(text) => Some(text.clone()),
            Value::Object(_) | Value::Array(_) if place.ends_with("/details") => Some(found.to_string()),
            _ => None,
        }
    });
    all.collect::<Vec<_>>().join("\n")
}

/// `retry-after-ms`, else `retry-after` as seconds, as a fraction, or as a date; none that is over already. A date is judged by
/// the clock that wrote it, when the answer has its time.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(wait_ms) = text(HeaderName::from_static("retry-after-ms")).and_then(|value| value.parse::<f64>().ok()) {
        return seconds(wait_ms / 1000.0);
    }
    let value = text(RETRY_AFTER)?;
    if let Ok(wait_s) = value.parse::<f64>() {
        return seconds(wait_s);
    }
    let date = |value: &str| OffsetDateTime::parse(value, &Rfc2822).ok();
    let now = text(DATE).and_then(date).unwrap_or_else(OffsetDateTime::now_utc);
    seconds((date(value)? - now).as_seconds_f64())
}

/// Gemini's `google.rpc.RetryInfo`: `{"error":{"details":[{"retryDelay":"34s"}]}}`.
fn retry_delay(body: &Value) -> Option<Duration> {
    let details = body.pointer("/error/details")?.as_array()?;
    let text = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
    seconds(text.strip_suffix('s')?.parse().ok()?)
}

/// No wait at all is none that is named: our own waits are spread, so that not all come back at once.
fn seconds(value: f64) -> Option<Duration> {
    (value > 0.0 && value <= RETRY_AFTER_BELIEVED_S_MAX).then(|| Duration::from_secs_f64(value))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::model::Provider;

    fn read(status: u16, headers: &[(&'static str, &str)], body: &str) -> ModelError {
        let peer = Peer { provider: Some(Provider::OpenAi), host: "api.example".into(), model: "m".into() };
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let key = ApiKey::new("sk-hunter2").unwrap();
        Refusal::read(Arc::new(peer), status, &headers, body, Some(&key)).into_error()
    }

    #[test]
    fn each_status_has_its_kind() {
        let quota = r#"{"error":{"message":"You exceeded","type":"insufficient_quota","code":"insufficient_quota"}}"#;
        let gemini_key = r#"{"error":{"message":"API key not valid","details":[{"reason":"API_KEY_INVALID"}]}}"#;
        let spend = r#"{"error":{"message":"no","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
        assert!(matches!(read(401, &[], "{}"), ModelError::Auth { .. }));
        assert!(matches!(read(400, &[], gemini_key), ModelError::Auth { .. }));
        assert!(matches!(read(402, &[], "{}"), ModelError::Quota { .. }));
        assert!(matches!(read(429, &[], quota), ModelError::Quota { .. }));
        assert!(matches!(read(429, &[], spend), ModelError::Quota { .. }));
        assert!(matches!(read(429, &[], "{}"), ModelError::RateLimited { .. }));
        assert!(matches!(read(404, &[], "{}"), ModelError::BadRequest { .. }));
        assert!(matches!(read(302, &[], ""), ModelError::BadRequest { .. }));
        for status in [408, 409, 500, 503, 529] {
            assert!(read(status, &[], "{}").is_transient(), "{status}");
        }
        assert!(!read(429, &[], quota).is_transient());
    }

    #[test]
    fn a_quota_is_told_from_a_rate_by_the_words_of_the_error_alone() {
        let gemini = |id: &str| {
            let violations = serde_json::json!([{"quotaId": id, "quotaValue": "20"}]);
            let failure =
                serde_json::json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations});
            let details = serde_json::json!([failure, {"retryDelay": "23s"}]);
            serde_json::json!({"error": {"code": 429, "message": "You exceeded", "details": details}}).to_string()
        };
        let day = gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier");
        assert!(matches!(read(429, &[], &day), ModelError::Quota { .. }));
        let minute = read(429, &[], &gemini("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"));
        assert!(matches!(minute, ModelError::RateLimited { retry_after: Some(_), .. }), "{minute}");
        let echoed = r#"{"error":{"type":"rate_limit_error","message":"slow down"},"request":"our spend limit"}"#;
        assert!(matches!(read(429, &[], echoed), ModelError::RateLimited { .. }));
        assert!(matches!(read(429, &[], "insufficient_quota"), ModelError::Quota { .. }), "a text is the message");
    }

    #[test]
    fn the_server_has_the_last_word_on_retrying() {
        assert!(!read(529, &[("x-should-retry", "false")], "{}").is_transient());
        assert!(!read(429, &[("x-should-retry", "false")], "{}").is_transient());
        for status in [401, 403, 422] {
            assert!(read(status, &[("x-should-retry", "true")], "{}").is_transient(), "{status}");
        }
        let key = r#"{"error":{"message":"API key not valid"}}"#;
        assert!(read(400, &[("x-should-retry", "true")], key).is_transient());
        let credit = r#"{"error":{"message":"Your credit balance is too low"}}"#;
        assert!(!read(400, &[("x-should-retry", "true")], credit).is_transient());
        let quota = r#"{"error":{"code":"insufficient_quota"}}"#;
        assert!(!read(429, &[("x-should-retry", "true")], quota).is_transient());
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let wait = |headers: &[(&'static str, &str)]| read(429, headers, "{}").retry_after();
        assert_eq!(wait(&[("retry-after", "2")]), Some(Duration::from_secs(2)));
        assert_eq!(wait(&[("retry-after", "1.5")]), Some(Duration::from_millis(1500)));
        assert_eq!(wait(&[("retry-after", "9"), ("retry-after-ms", "250")]), Some(Duration::from_millis(250)));
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("retry-after", "-4")]), None);
        assert_eq!(wait(&[("retry-after", "1e300")]), None);
        for over in ["0", "0.0", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(wait(&[("retry-after", over)]), None, "{over}");
        }
        assert_eq!(wait(&[("retry-after-ms", "0")]), None);
        let dated = [("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), ("date", "Wed, 21 Oct 2015 07:27:18 GMT")];
        assert_eq!(wait(&dated), Some(Duration::from_secs(42)), "by the server's clock");
        let soon = (OffsetDateTime::now_utc() + Duration::from_secs(30)).format(&Rfc2822).unwrap();
        let soon = wait(&[("retry-after", &soon.replace("+0000", "GMT"))]).unwrap();
        assert!((28..=30).contains(&soon.as_secs()), "{soon:?}");
        let gemini = r#"{"error":{"message":"m","details":[{"@type":"x"},{"retryDelay":"34s"}]}}"#;
        assert_eq!(read(429, &[], gemini).retry_after(), Some(Duration::from_secs(34)));
    }

    #[test]
    fn a_text_names_peer_status_and_next_step_and_never_the_key() {
        let text = read(401, &[], r#"{"error":{"message":"Incorrect API key: sk-hunter2\nsee docs"}}"#).to_string();
        assert!(!text.contains("hunter2") && !text.contains('\n'), "{text}");
        for part in ["OpenAI-compatible", "api.example", "401", "OPENAI_API_KEY"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = read(502, &[], &"<html>".repeat(1000)).to_string();
        assert!(text.len() < 500 && text.contains("502: <html>"), "{text}");
        let text = read(429, &[("retry-after", "300")], "{}").to_string();
        assert!(text.contains("300 s") && text.contains("120 s"), "{text}");
    }
}

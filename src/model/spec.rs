//! Which model, served by whom, with which key.
//!
//! Base URLs come from people and from other tools' variables, with and without `/v1`, with and without a slash at
//! the end. They are brought into one form here, once, so that a provider only appends its own path.

use std::fmt;

use reqwest::Url;

use super::error::ModelError;
use super::provider::Provider;

/// Longest key that is taken; the vendors' are under 200 bytes, a JWT can have some thousands.
const KEY_BYTES_MAX: usize = 16 * 1024;

/// A secret that opens an account. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes a key, unless it could not be sent as a header: then the error says which kind of character is wrong.
    pub fn new(text: impl Into<String>) -> Result<Self, ModelError> {
        let text = text.into();
        let complaint = match text.chars().find(|c| !c.is_ascii_graphic()) {
            _ if text.is_empty() => "the API key is empty; unset it or set it to a key".to_owned(),
            _ if text.len() > KEY_BYTES_MAX => format!("the API key has more than {KEY_BYTES_MAX} bytes; set a key"),
            Some('\n' | '\r') => "the API key contains a line break; set it again without one".to_owned(),
            Some(' ') => "the API key contains a space; set it again without one".to_owned(),
            Some(c) if c.is_control() => "the API key contains a control character; copy it again".to_owned(),
            Some(_) => "the API key contains a character that is not ASCII; copy it again".to_owned(),
            None => return Ok(Self(text)),
        };
        Err(ModelError::Settings(complaint))
    }

    /// The key itself, for the header that carries it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

/// `text` without the key, should a server repeat it.
pub(super) fn blot_out(key: Option<&ApiKey>, text: &str) -> String {
    match key {
        Some(key) => text.replace(key.reveal(), "[key]"),
        None => text.to_owned(),
    }
}

/// A model, whom to ask for it, and how to get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// The protocol.
    pub provider: Provider,
    /// The model's name, sent exactly as it stands here.
    pub model: String,
    /// Another server than the vendor's own.
    pub base_url: Option<String>,
    /// The key; servers at an own base URL often need none.
    pub api_key: Option<ApiKey>,
}

impl ModelSpec {
    /// The URL that the provider's paths are appended to: no slash at the end, version segment included.
    pub(super) fn base(&self) -> Result<Url, ModelError> {
        base_of(self.provider, self.base_url.as_deref())
    }

    /// True when the vendor's own server is asked, under whichever spelling of its URL.
    pub(super) fn is_at_vendor(&self) -> bool {
        match (self.base(), base_of(self.provider, None)) {
            (Ok(base), Ok(vendor)) => base.host() == vendor.host(),
            _ => false,
        }
    }
}

/// The base of `provider`'s API at `base_url`, or at its vendor's.
pub(super) fn base_of(provider: Provider, base_url: Option<&str>) -> Result<Url, ModelError> {
    let text = base_url.unwrap_or(provider.default_base()).trim();
    let refuse = |why: &str| {
        ModelError::Settings(format!("the base URL {} {why}; write it like {}", shown(text), provider.default_base()))
    };
    let mut url = Url::parse(text).map_err(|error| refuse(&format!("is not a URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refuse("is not http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("holds a user or password; give the key as API key instead"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("has a query or fragment"));
    }
    let path = versioned_path(provider, url.path());
    url.set_path(&path);
    Ok(url)
}

/// Drops an endpoint that was copied along, and adds the version where the vendor's own tools would add it.
fn versioned_path(provider: Provider, path: &str) -> String {
    let path = path.trim_end_matches('/');
    let path = ["/chat/completions", "/messages", "/models"]
        .iter()
        .find_map(|endpoint| path.strip_suffix(endpoint))
        .unwrap_or(path);
    let has_version = ["/v1", "/v1beta", "/v1alpha"].iter().any(|version| path.ends_with(version));
    match provider {
        // OpenAI's own tools take the path as it is: a gateway may serve the API at any path.
        Provider::OpenAi if !path.is_empty() => path.to_owned(),
        _ if has_version => path.to_owned(),
        Provider::Gemini => format!("{path}/v1beta"),
        Provider::OpenAi | Provider::Anthropic | Provider::Ollama => format!("{path}/v1"),
    }
}

/// True for this machine, which is never asked through a proxy.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Host and port, for messages.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A URL as typed, without what may be a password in it.
fn shown(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{}", super::excerpt(rest, 80)),
        None => super::excerpt(text, 80),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(provider: Provider, url: &str) -> String {
        base_of(provider, Some(url)).unwrap().to_string()
    }

    #[test]
    fn base_urls_are_brought_into_one_form() {
        use Provider::*;
        for (provider, given, expected) in [
            (OpenAi, "http://127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
            (OpenAi, "http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1"),
            (OpenAi, "http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1"),
            (OpenAi, "https://gw.example/openai/deploy", "https://gw.example/openai/deploy"),
            (OpenAi, "https://gw.example/v1/chat/completions", "https://gw.example/v1"),
            (Anthropic, "https://api.anthropic.com", "https://api.anthropic.com/v1"),
            (Anthropic, "https://gw.example/anthropic/", "https://gw.example/anthropic/v1"),
            (Anthropic, "https://gw.example/anthropic/v1", "https://gw.example/anthropic/v1"),
            (Gemini, "https://gw.example", "https://gw.example/v1beta"),
            (Ollama, " http://[::1]:11434 ", "http://[::1]:11434/v1"),
        ] {
            assert_eq!(base(provider, given), expected, "{given}");
        }
    }

    #[test]
    fn a_base_url_that_cannot_work_is_refused_without_showing_a_password() {
        for (url, word) in [
            ("ftp://x", "http"),
            ("127.0.0.1:80", "URL"),
            ("http://x/?a=b", "query"),
            ("http://u:hunter2@x", "password"),
        ] {
            let text = base_of(Provider::OpenAi, Some(url)).unwrap_err().to_string();
            assert!(text.contains(word) && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_refused_and_never_shown() {
        for (key, word) in [
            ("", "empty"),
            ("sk-hunter2\n", "line break"),
            ("sk-hunter2 x", "space"),
            ("\u{7}hunter2", "control"),
            ("hunter2é", "ASCII"),
        ] {
            let text = ApiKey::new(key).unwrap_err().to_string();
            assert!(text.contains(word) && !text.contains("hunter2"), "{text}");
        }
        let spec = ModelSpec {
            provider: Provider::OpenAi,
            model: "m".into(),
            base_url: None,
            api_key: Some(ApiKey::new("sk-hunter2").unwrap()),
        };
        assert!(!format!("{spec:?}").contains("hunter2"));
    }

    #[test]
    fn loopback_is_recognised_in_all_its_spellings() {
        for (url, expected) in [
            ("http://127.0.0.1:1", true),
            ("http://127.8.9.1", true),
            ("http://localhost:8080/v1", true),
            ("http://[::1]:8080", true),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}

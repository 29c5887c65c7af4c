//! Bytes from a server as text: what kind they are, in which letters, and what a reader would see.

use encoding_rs::{Encoding, UTF_8};
use reqwest::Url;

use super::html;
use super::policy::URL_CHARS_MAX;

/// Bytes at the head of an HTML page in which its letters are declared (the HTML standard's own limit).
const DECLARATION_BYTES: usize = 1_024;
/// Characters of a title.
pub(super) const TITLE_CHARS_MAX: usize = 200;

/// What a reader would see of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// The title, empty when it has none.
    pub title: String,
    /// The text, in lines.
    pub text: String,
    /// Where it links to, in its order, each once; what is longer than [`URL_CHARS_MAX`] is left out.
    pub links: Vec<Link>,
}

/// A link of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it leads; http or https.
    pub url: Url,
    /// Its words.
    pub words: String,
}

/// What a server says that it sends, as far as we read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    html: bool,
    charset: Option<String>,
}

impl MediaType {
    /// Reads a `Content-Type`; nothing is taken for plain text, and looked at later.
    ///
    /// # Errors
    /// For a type that is no text.
    pub fn read(header: Option<&str>) -> Result<Self, String> {
        let header = header.unwrap_or("text/plain").to_ascii_lowercase();
        let mut parts = header.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let html = ["text/html", "application/xhtml+xml"].contains(&kind);
        let text = kind.starts_with("text/")
            || ["application/json", "application/xml", "application/x-ndjson", "application/markdown"].contains(&kind)
            || kind.ends_with("+json")
            || kind.ends_with("+xml");
        if !html && !text {
            let shown: String = kind.chars().take(60).collect();
            return Err(format!("it is {shown:?}; only HTML, plain text, Markdown, JSON and XML are read"));
        }
        let charset =
            parts.find_map(|part| part.strip_prefix("charset=").map(|name| name.trim_matches('"').to_owned()));
        Ok(Self { html, charset })
    }
}

/// The text of `bytes`; relative links are of `base`.
///
/// # Errors
/// When it is no text whatever its type says.
pub fn text_of(kind: &MediaType, bytes: &[u8], base: &Url) -> Result<Text, String> {
    let declared = || kind.html.then(|| declared(bytes)).flatten();
    let encoding = kind.charset.as_deref().and_then(|name| Encoding::for_label(name.as_bytes())).or_else(declared);
    let (text, _, _) = encoding.unwrap_or(UTF_8).decode(bytes);
    // The first bytes tell; a page may well hold a stray NUL further down.
    if text.chars().take(DECLARATION_BYTES).any(|c| c == '\0') {
        return Err("its content is binary, not text".into());
    }
    if kind.html {
        return Ok(html::read(&text, base));
    }
    let title = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
    let title = title.trim().chars().take(TITLE_CHARS_MAX).collect();
    let found = super::links::in_text(&text).into_iter().filter(|found| found.url.as_str().len() <= URL_CHARS_MAX);
    let links = found.map(|found| Link { url: found.url, words: found.around });
    Ok(Text { title, links: links.collect(), text: text.replace('\0', " ") })
}

/// The letters that an HTML page declares in its own head.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(DECLARATION_BYTES)]).to_ascii_lowercase();
    let (_, rest) = head.split_once("charset=")?;
    let name: String = rest
        .trim_start_matches(['"', '\''])
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "-_:.".contains(*c))
        .collect();
    // A page that could be read so far is no UTF-16, whatever it says of itself.
    Encoding::for_label(name.as_bytes()).map(|encoding| if encoding.is_ascii_compatible() { encoding } else { UTF_8 })
}

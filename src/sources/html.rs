//! HTML as text, from its tokens alone.
//!
//! No tree is built: the tree builders to be had take time in the square of the nesting (1 MB of `<div>` was 161 s), and
//! a page is a stranger's. Tokens come in one pass, whatever the nesting, and are all that lines, lists and links need.

use std::collections::HashSet;
use std::convert::Infallible;

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use reqwest::Url;

use super::content::{Link, TITLE_CHARS_MAX, Text};
use super::policy::URL_CHARS_MAX;

/// Links of one page that are kept.
const LINKS_MAX: usize = 500;
/// Links of one page that are looked at, those that lead to the same place included.
const LOOKED_AT_MAX: usize = 5_000;
/// Characters of a link's words.
const LINK_WORDS_CHARS_MAX: usize = 200;

/// Elements whose content is not for readers.
const UNSEEN: [&[u8]; 9] =
    [b"script", b"style", b"noscript", b"template", b"svg", b"iframe", b"object", b"select", b"textarea"];
/// Elements that begin and end a line.
const BLOCKS: [&[u8]; 36] = [
    b"address",
    b"article",
    b"aside",
    b"blockquote",
    b"body",
    b"br",
    b"dd",
    b"details",
    b"div",
    b"dl",
    b"dt",
    b"fieldset",
    b"figcaption",
    b"figure",
    b"footer",
    b"form",
    b"h1",
    b"h2",
    b"h3",
    b"h4",
    b"h5",
    b"h6",
    b"header",
    b"hr",
    b"li",
    b"main",
    b"nav",
    b"ol",
    b"p",
    b"pre",
    b"section",
    b"summary",
    b"table",
    b"title",
    b"tr",
    b"ul",
];

/// What a reader would see of `page`; relative links are of `base`.
pub(super) fn read(page: &str, base: &Url) -> Text {
    let mut reader = Reader::new(base);
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<Infallible> {
        reader.hear(&event);
        None
    });
    emitter.naively_switch_states(true);
    let Ok(()) = Tokenizer::new_with_emitter(page, emitter).finish();
    reader.end()
}

struct Reader {
    base: Url,
    /// True when the page has named its base; only the first name counts.
    based: bool,
    out: String,
    title: String,
    links: Vec<Link>,
    seen: HashSet<Url>,
    looked_at: usize,
    /// The tag that is open right now, and the attribute in it.
    tag: Vec<u8>,
    attribute: Vec<u8>,
    href: String,
    /// The unseen element that we are in, and how deep in elements of its name.
    unseen: Option<(Vec<u8>, usize)>,
    pre: usize,
    in_title: bool,
    /// The link that we are in, and where in the text it began.
    link: Option<(Url, usize)>,
}

impl Reader {
    fn new(base: &Url) -> Self {
        Self {
            base: base.clone(),
            based: false,
            out: String::new(),
            title: String::new(),
            links: Vec::new(),
            seen: HashSet::new(),
            looked_at: 0,
            tag: Vec::new(),
            attribute: Vec::new(),
            href: String::new(),
            unseen: None,
            pre: 0,
            in_title: false,
            link: None,
        }
    }

    fn hear(&mut self, event: &CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.tag = name.to_vec();
                self.href.clear();
            }
            CallbackEvent::AttributeName { name } => self.attribute = name.to_vec(),
            CallbackEvent::AttributeValue { value } if self.attribute == b"href" => {
                // What is longer is no URL that anybody is asked for.
                let value: &[u8] = if value.len() > URL_CHARS_MAX { b"" } else { value };
                self.href = String::from_utf8_lossy(value).into_owned();
            }
            CallbackEvent::CloseStartTag { self_closing } => {
                let tag = std::mem::take(&mut self.tag);
                self.open(&tag, *self_closing);
            }
            CallbackEvent::EndTag { name } => self.close(name),
            CallbackEvent::String { value } => self.say(&String::from_utf8_lossy(value)),
            _ => {}
        }
    }

    fn open(&mut self, tag: &[u8], self_closing: bool) {
        if let Some((name, depth)) = &mut self.unseen {
            *depth += usize::from(name == tag && !self_closing);
            return;
        }
        if UNSEEN.contains(&tag) {
            // Inside SVG a tag can close itself; the others cannot, whatever they say.
            if !(self_closing && tag == b"svg") {
                self.unseen = Some((tag.to_vec(), 1));
            }
            return;
        }
        match tag {
            b"title" => self.in_title = self.title.is_empty(),
            b"base" => self.rebase(),
            b"a" => self.begin_link(),
            b"pre" => self.pre += 1,
            b"td" | b"th" => self.out.push_str(" | "),
            _ => {}
        }
        if BLOCKS.contains(&tag) {
            self.new_line();
        }
        match tag {
            b"li" => self.out.push_str("- "),
            [b'h', level @ b'1'..=b'6'] => {
                (0..level - b'0').for_each(|_| self.out.push('#'));
                self.out.push(' ');
            }
            _ => {}
        }
    }

    fn close(&mut self, tag: &[u8]) {
        if let Some((name, depth)) = &mut self.unseen {
            *depth -= usize::from(name == tag);
            if *depth == 0 {
                self.unseen = None;
            }
            return;
        }
        match tag {
            b"title" => self.in_title = false,
            b"a" => self.end_link(),
            b"pre" => self.pre = self.pre.saturating_sub(1),
            _ => {}
        }
        if BLOCKS.contains(&tag) {
            self.new_line();
        }
    }

    fn say(&mut self, text: &str) {
        if self.unseen.is_some() {
            return;
        }
        if self.in_title {
            self.title.extend(text.chars().take(TITLE_CHARS_MAX));
            return;
        }
        if self.pre > 0 {
            self.out.push_str(text);
            return;
        }
        for (index, word) in text.split([' ', '\n', '\t', '\r', '\x0c']).enumerate() {
            if index > 0 && !self.out.ends_with([' ', '\n']) && !self.out.is_empty() {
                self.out.push(' ');
            }
            self.out.push_str(word);
        }
    }

    fn new_line(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }

    fn rebase(&mut self) {
        if !self.based && !self.href.is_empty() {
            self.based = true;
            self.base = self.joined().unwrap_or_else(|| self.base.clone());
        }
    }

    fn begin_link(&mut self) {
        self.end_link();
        if self.href.is_empty() || self.links.len() >= LINKS_MAX || self.looked_at >= LOOKED_AT_MAX {
            return;
        }
        self.looked_at += 1;
        let Some(mut url) = self.joined() else { return };
        url.set_fragment(None);
        if ["http", "https"].contains(&url.scheme()) {
            self.link = Some((url, self.out.len()));
        }
    }

    /// Where the tag's `href` leads; nowhere when that is longer than a URL may be.
    fn joined(&self) -> Option<Url> {
        let url = self.base.join(self.href.trim()).ok()?;
        (url.as_str().len() <= URL_CHARS_MAX).then_some(url)
    }

    fn end_link(&mut self) {
        let Some((url, start)) = self.link.take() else { return };
        if self.seen.insert(url.clone()) {
            let words = self.out.get(start..).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
            self.links.push(Link { url, words: words.chars().take(LINK_WORDS_CHARS_MAX).collect() });
        }
    }

    fn end(mut self) -> Text {
        self.end_link();
        let title = self.title.split_whitespace().collect::<Vec<_>>().join(" ");
        let title = title.chars().take(TITLE_CHARS_MAX).collect();
        let mut text = String::with_capacity(self.out.len());
        // A line that holds nothing but what its tags put there says nothing.
        for line in self.out.lines().map(str::trim_end) {
            if !line.trim_matches(['-', '#', ' ', '|']).is_empty() || line.chars().all(|c| c == '-') && line.len() > 2 {
                text.push_str(line);
                text.push('\n');
            }
        }
        Text { title, text, links: self.links }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn read_at(page: &str) -> Text {
        read(page, &Url::parse("http://example.com/docs/page.html").unwrap())
    }

    #[test]
    fn a_page_is_its_words_in_lines_its_title_and_its_links() {
        let page = r#"<!doctype html><html><head><title>All about
            oars &amp; locks</title><style>p { color: red }</style><script>if (a < b) { evil("</p>") }</script></head>
            <body><nav><a href="/home">Home</a></nav><h1>Oars</h1><p>An <b>oar</b> is
            a lever.</p><ul><li>wood</li><li><a href="carbon.html#x">carbon <i>fibre</i></a></li></ul>
            <table><tr><td>length</td><td>3 m</td></tr></table><pre>a
  b</pre><svg><title>pic</title><text>no</text></svg><a href="mailto:x@y">mail</a><a href="javascript:x()">js</a>
            <noscript>turn it on</noscript>end</body></html>"#;
        let text = read_at(page);
        assert_eq!(text.title, "All about oars & locks");
        let lines: Vec<&str> = text.text.lines().collect();
        let expected = [
            "Home",
            "# Oars",
            "An oar is a lever.",
            "- wood",
            "- carbon fibre",
            "| length | 3 m",
            "a",
            "  b",
            "mailjs end",
        ];
        assert_eq!(
            lines.iter().map(|line| line.trim_start_matches(' ')).collect::<Vec<_>>().len(),
            expected.len(),
            "{lines:?}"
        );
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(line.trim(), expected.trim(), "{lines:?}");
        }
        let links: Vec<(&str, &str)> = text.links.iter().map(|link| (link.url.as_str(), link.words.as_str())).collect();
        assert_eq!(
            links,
            [("http://example.com/home", "Home"), ("http://example.com/docs/carbon.html", "carbon fibre")]
        );
    }

    #[test]
    fn what_is_nested_deep_or_never_closed_takes_a_moment_only() {
        let cases = [
            "<div>".repeat(400_000),
            "<p><b>".repeat(250_000),
            "<table><tr><td>".repeat(120_000),
            "<a href=x>".repeat(200_000),
            "<svg>".repeat(400_000),
            format!("<a {}>", (0..250_000).map(|n| format!("a{n:06} ")).collect::<String>()),
            "<".repeat(2_000_000),
            "&".repeat(2_000_000),
            "<!--".repeat(500_000),
            "</x>".repeat(500_000),
            "<script>".to_owned() + &"<!--<script>".repeat(150_000),
        ];
        for page in cases {
            let started = Instant::now();
            let text = read_at(&page);
            assert!(started.elapsed() < Duration::from_secs(5), "{:?} for {:?}…", started.elapsed(), &page[..20]);
            assert!(text.links.len() <= LINKS_MAX);
        }
    }

    #[test]
    fn no_page_makes_urls_of_unbounded_length() {
        let anchors: String = (0..500).map(|n| format!("<a href=x{n}>oar</a>")).collect();
        let long = "A".repeat(1024 * 1024);
        let umlauts = "ü".repeat(URL_CHARS_MAX / 2);
        let cases = [
            (format!("<base href='http://x.example/{long}/'>{anchors}"), 500),
            ("<base href=a/><a href=x>oar</a>".repeat(60_000), 1),
            ("<base href=a/>".repeat(140_000) + &anchors, 500),
            ("<a href=x>".repeat(LOOKED_AT_MAX) + "<a href=y>", 1),
            (format!("<a href='http://x.example/{long}'>no</a><a href='{umlauts}'>no</a><a href=x>yes</a>"), 1),
        ];
        for (page, links) in cases {
            let text = read_at(&page);
            assert_eq!(text.links.len(), links, "{:?}…", &page[..20]);
            assert!(text.links.iter().all(|link| link.url.as_str().len() <= URL_CHARS_MAX), "{:?}…", &page[..20]);
        }
        let text = read_at("<base target=_blank><base href=/one/><base href=/two/><a href=x>oar</a>");
        assert_eq!(text.links[0].url.as_str(), "http://example.com/one/x", "the first base that names a place counts");
        let long = format!("<title>{}</title>", "a &amp; b ".repeat(10_000));
        assert!(read_at(&long).title.chars().count() <= TITLE_CHARS_MAX);
    }

    proptest::proptest! {
        #[test]
        fn any_mixture_of_tags_and_letters_is_read(pieces in proptest::collection::vec(0..PIECES.len(), 0..60)) {
            let page: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
            let text = read_at(&page);
            assert!(!text.text.contains("\n\n\n") || page.contains("<pre>"), "{page:?}: {text:?}");
        }
    }

    const PIECES: [&str; 24] = [
        "<a href=x>",
        "</a>",
        "<a href='http://é.example/ü'>",
        "<title>",
        "</title>",
        "<script>",
        "</script>",
        "<svg/>",
        "<svg>",
        "</svg>",
        "<pre>",
        "</pre>",
        "<li>",
        "<h3>",
        "<td>",
        "<base href=//b.example>",
        "é ",
        "\n",
        "&amp;",
        "<!--",
        "-->",
        "</p>",
        "<select>",
        "<h9>",
    ];
}

//! Server-side request forgery: whatever leads inside is refused, before a request, after resolution, and at each redirect.

use std::sync::Arc;

use oarlock::sources::{Allowed, PAGE_BYTES_MAX, REDIRECTS_MAX, URL_CHARS_MAX};

use crate::recorder::{Answer, Recorder, fetcher, policy, url};

/// URLs that are refused as they are written, and a word of the reason.
const REFUSED: [(&str, &str); 46] = [
    ("http://127.0.0.1/", "loopback"),
    ("http://127.1/", "loopback"),
    ("http://127.0.1/", "loopback"),
    ("http://2130706433/", "loopback"),
    ("http://0x7f000001/", "loopback"),
    ("http://0x7f.0x0.0x0.0x1/", "loopback"),
    ("http://0177.0.0.1/", "loopback"),
    ("http://017700000001/", "loopback"),
    ("http://127.0.0.1./", "loopback"),
    ("http://%31%32%37.0.0.1/", "loopback"),
    ("http://１２７.０.０.１/", "loopback"),
    ("http://127。0。0。1/", "loopback"),
    ("http://127.255.255.254:8080/", "loopback"),
    ("http://[::1]/", "loopback"),
    ("http://[0:0:0:0:0:0:0:1]:8443/", "loopback"),
    ("http://[::ffff:127.0.0.1]/", "loopback"),
    ("http://[::ffff:7f00:1]/", "loopback"),
    ("http://[64:ff9b::127.0.0.1]/", "loopback"),
    ("http://[2002:7f00:1::]/", "loopback"),
    ("http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "tunnel"),
    ("http://[::127.0.0.1]/", "reserved"),
    ("http://0/", "unspecified"),
    ("http://0.0.0.0:80/", "unspecified"),
    ("http://[::]/", "unspecified"),
    ("http://10.0.0.1/", "private"),
    ("http://172.16.3.4/", "private"),
    ("http://192.168.0.1/admin", "private"),
    ("http://3232235521/", "private"),
    ("http://[fd12:3456::1]/", "unique local"),
    ("http://[fe80::1]/", "link-local"),
    ("http://169.254.7.7/", "link-local"),
    ("http://169.254.169.254/latest/meta-data/", "metadata"),
    ("http://0xa9fea9fe/latest/meta-data/", "metadata"),
    ("http://[::ffff:169.254.169.254]/", "metadata"),
    ("http://[fd00:ec2::254]/", "metadata"),
    ("http://100.100.100.200/", "metadata"),
    ("http://168.63.129.16/", "metadata"),
    ("http://100.64.1.1/", "shared"),
    ("http://224.0.0.1/", "multicast"),
    ("http://255.255.255.255/", "broadcast"),
    ("http://198.18.0.1/", "benchmarks"),
    ("http://93.184.216.34:22/", "port is 22"),
    ("http://93.184.216.34@127.0.0.1/", "user name"),
    ("http://user:secret@example.com/", "user name"),
    ("ftp://example.com/x", "scheme is ftp"),
    ("file:///etc/passwd", "scheme is file"),
];

#[tokio::test]
async fn whatever_leads_inside_is_refused_before_anybody_is_asked() {
    let recorder = Arc::new(Recorder::default());
    for (text, says) in REFUSED {
        let why = fetcher(&recorder, &[]).read(&url(text), PAGE_BYTES_MAX).await.unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
        assert!(!why.contains("secret"), "{text}: {why}");
    }
    let long = format!("http://example.com/{}", "x".repeat(URL_CHARS_MAX));
    let why = fetcher(&recorder, &[]).read(&url(&long), PAGE_BYTES_MAX).await.unwrap_err();
    assert!(why.contains("url_chars_max"), "{why}");
    assert!(recorder.asked().is_empty() && recorder.lookups.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_name_is_judged_by_all_its_addresses() {
    let public = "93.184.216.34";
    for (addresses, says) in [
        (&["127.0.0.1"][..], "loopback"),
        (&["::1"], "loopback"),
        (&["10.0.0.8"], "private"),
        (&["169.254.169.254"], "metadata"),
        (&["fd00:ec2::254"], "metadata"),
        (&["64:ff9b::a00:1"], "private"),
        (&["::ffff:192.168.1.1"], "private"),
        (&[public, "127.0.0.1"], "loopback"),
        (&[public, "2606:4700::1", "fe80::1"], "link-local"),
        (&[], "no address"),
    ] {
        let recorder = Arc::new(Recorder::default().name("name.example", &[addresses]));
        for text in ["http://name.example/", "https://NAME.example./x", "http://name.example:8080/"] {
            let why = fetcher(&recorder, &[]).read(&url(text), PAGE_BYTES_MAX).await.unwrap_err();
            assert!(why.contains(says) && why.contains("name.example"), "{addresses:?}: {why}");
        }
        assert!(recorder.asked().is_empty(), "{addresses:?}");
    }
    let recorder = Arc::new(Recorder::default());
    let why = fetcher(&recorder, &[]).read(&url("http://localhost/"), PAGE_BYTES_MAX).await.unwrap_err();
    assert!(why.contains("not found"), "the test's own resolver knows no localhost: {why}");
}

#[tokio::test]
async fn every_redirect_is_judged_anew() {
    let relative =
        [("//127.0.0.1/x", "loopback"), ("http:\\\\127.0.0.1\\x", "loopback"), ("http://", "without a place")];
    for (place, says) in REFUSED.into_iter().chain(relative) {
        let recorder = Recorder::default().name("open.example", &[&["93.184.216.34"]]);
        let recorder = Arc::new(recorder.answer("http://open.example/", Answer::To(ascii(place))));
        let why = fetcher(&recorder, &[]).read(&url("http://open.example/"), PAGE_BYTES_MAX).await.unwrap_err();
        assert!(why.contains(says), "{place}: {why}");
        assert!(!why.contains("secret"), "{place}: {why}");
        assert_eq!(recorder.asked(), ["http://open.example/"], "{place}");
    }
    let recorder = Recorder::default()
        .name("open.example", &[&["93.184.216.34"]])
        .name("inside.example", &[&["10.0.0.1"]])
        .answer("http://open.example/", Answer::To("/two".into()))
        .answer("http://open.example/two", Answer::To("http://inside.example/".into()));
    let recorder = Arc::new(recorder);
    let why = fetcher(&recorder, &[]).read(&url("http://open.example/"), PAGE_BYTES_MAX).await.unwrap_err();
    assert!(why.contains("it leads to http://inside.example/, and inside.example is at 10.0.0.1"), "{why}");
    assert_eq!(recorder.asked(), ["http://open.example/", "http://open.example/two"]);
}

/// A header holds ASCII; the letters outside it are written as browsers write them.
fn ascii(place: &str) -> String {
    place.chars().map(|c| if c.is_ascii() { c.to_string() } else { percent(c) }).collect()
}

fn percent(c: char) -> String {
    c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn redirects_come_to_an_end() {
    let recorder = Recorder::default().name("loop.example", &[&["93.184.216.34"]]);
    let recorder = Arc::new(recorder.answer("http://loop.example/", Answer::To("http://loop.example/".into())));
    let why = fetcher(&recorder, &[]).read(&url("http://loop.example/"), PAGE_BYTES_MAX).await.unwrap_err();
    assert!(why.contains("redirects_max 5"), "{why}");
    assert_eq!(recorder.asked().len(), REDIRECTS_MAX + 1);
}

/// A name that has a public address when it is checked and another one when it is used: there is no second look, so the
/// request goes to what was checked; the next request's look sees the new address.
#[tokio::test]
async fn a_name_whose_answer_changes_between_check_and_use_gains_nothing() {
    let public = "93.184.216.34";
    let answers: [&[&str]; 2] = [&[public], &["127.0.0.1"]];
    let recorder =
        Recorder::default().name("turn.example", &answers).answer("http://turn.example/", Answer::Text("hello"));
    let recorder = Arc::new(recorder);
    let page = fetcher(&recorder, &[]).read(&url("http://turn.example/"), PAGE_BYTES_MAX).await.unwrap();
    assert_eq!(page.text.text, "hello");
    assert_eq!(recorder.lookups.lock().unwrap().len(), 1, "one look, and its answer is used");
    let asked = recorder.requests.lock().unwrap().clone();
    assert_eq!(asked[0].1, [format!("{public}:80").parse().unwrap()]);
    let why = fetcher(&recorder, &[]).read(&url("http://turn.example/"), PAGE_BYTES_MAX).await.unwrap_err();
    assert!(why.contains("loopback"), "{why}");
    assert_eq!(recorder.asked().len(), 1);
}

#[tokio::test]
async fn a_redirect_to_the_same_name_is_resolved_and_judged_again() {
    let answers: [&[&str]; 2] = [&["93.184.216.34"], &["169.254.169.254"]];
    let recorder = Recorder::default()
        .name("turn.example", &answers)
        .answer("http://turn.example/", Answer::To("/latest/meta-data/".into()));
    let recorder = Arc::new(recorder);
    let why = fetcher(&recorder, &[]).read(&url("http://turn.example/"), PAGE_BYTES_MAX).await.unwrap_err();
    assert!(why.contains("metadata"), "{why}");
    assert_eq!(recorder.asked(), ["http://turn.example/"]);
}

#[test]
fn an_allow_list_lets_through_what_it_names_and_nothing_else() {
    let cases: [(&[&str], &str, bool); 25] = [
        (&["127.0.0.1:9000"], "http://127.0.0.1:9000/", true),
        (&["127.0.0.1:9000"], "http://127.0.0.1:9001/", false),
        (&["127.0.0.1"], "http://127.0.0.1:9001/", true),
        (&["127.0.0.1"], "http://127.0.0.2/", false),
        (&["127.0.0.1"], "http://[::1]/", false),
        (&["127.0.0.1"], "http://[::ffff:127.0.0.1]/", false),
        (&["10.1.0.0/16"], "http://10.1.2.3/", true),
        (&["10.1.0.0/16"], "http://10.2.2.3/", false),
        (&["10.1.2.3/16"], "http://10.1.9.9/", true),
        (&["[::1]:8080"], "http://[::1]:8080/", true),
        (&["fd12::/16"], "http://[fd12:3456::1]/", true),
        (&["fd12::/16"], "http://[fd00:ec2::254]/", false),
        (&["100.64.0.0/10"], "http://100.64.1.1/", true),
        (&["100.64.0.0/10"], "http://100.100.100.200/", false),
        (&["fd00::/8"], "http://[fd00:ec2::254]/", false),
        (&["fd00:ec2::/32"], "http://[fd00:ec2::23]/", false),
        (&["169.254.0.0/16"], "http://169.254.7.7/", true),
        (&["169.254.0.0/16"], "http://169.254.169.254/", false),
        (&["0.0.0.0/0", "::/0"], "http://[::ffff:169.254.169.254]/", false),
        (&["100.100.100.200"], "http://100.100.100.200/", true),
        (&["fd00:ec2::254/128"], "http://[fd00:ec2::254]/", true),
        (&["wiki.intern"], "http://10.1.2.3/", false),
        (&["wiki.intern:3000"], "http://WIKI.intern.:3000/", true),
        (&["wiki.intern:3000"], "http://other.intern:3000/", false),
        (&["10.0.0.0/8"], "ftp://10.0.0.1/", false),
    ];
    for (allowed, text, may) in cases {
        assert_eq!(policy(allowed).check_url(&url(text)).is_ok(), may, "{allowed:?} {text}");
    }
    let at = |allowed: &[&str], address: &str| {
        let policy = policy(allowed);
        let target = policy.check_url(&url("http://wiki.intern/")).unwrap();
        policy.check_addresses(&target, &[address.parse().unwrap()]).is_ok()
    };
    assert!(at(&["wiki.intern"], "10.1.2.3"), "an allowed name may be inside");
    assert!(at(&["wiki.intern"], "127.0.0.1"));
    assert!(!at(&["wiki.intern"], "169.254.169.254"), "but not where keys are given out");
    assert!(!at(&["wiki.intern"], "fd00:ec2::23") && !at(&["100.64.0.0/10"], "100.100.100.200"));
    assert!(!at(&["wiki.intern"], "fe80::1"));
    assert!(!at(&["other.intern"], "10.1.2.3"));
    assert!(at(&["169.254.169.254"], "169.254.169.254"), "unless the address itself was allowed");
    for bad in
        ["", "http://a.example", "a b", "10.0.0.0/99", "10.0.0", "a.example:port", "a..b", "*.example.com", "1.2.3.4.5"]
    {
        assert!(bad.parse::<Allowed>().is_err(), "{bad:?} was taken");
    }
}

/// What the operator opened is open to the user, not to the author of any page.
#[tokio::test]
async fn a_public_page_leads_nowhere_inside_not_even_where_it_is_allowed() {
    let recorder = Recorder::default()
        .name("open.example", &[&["93.184.216.34"]])
        .name("wiki.intern", &[&["10.0.0.1"]])
        .answer("http://open.example/", Answer::To("http://wiki.intern/delete?all".into()))
        .answer("http://wiki.intern/", Answer::To("http://wiki.intern/start".into()))
        .answer("http://wiki.intern/start", Answer::Text("welcome"))
        .answer("http://wiki.intern/out", Answer::To("http://open.example/".into()));
    let recorder = Arc::new(recorder);
    let read = async |text| fetcher(&recorder, &["wiki.intern"]).read(&url(text), PAGE_BYTES_MAX).await;
    assert_eq!(read("http://wiki.intern/").await.unwrap().text.text, "welcome");
    for text in ["http://open.example/", "http://wiki.intern/out"] {
        let why = read(text).await.unwrap_err();
        assert!(
            why.contains(
                "wiki.intern is at 10.0.0.1, which is a private network; no public page and no model may lead there"
            ),
            "{why}"
        );
    }
    assert!(!recorder.asked().iter().any(|asked| asked.contains("delete")), "{:?}", recorder.asked());
}

/// A host that was allowed on a port of its own may lead to itself there; its name may not move inside meanwhile.
#[tokio::test]
async fn an_allowed_public_host_leads_to_itself_on_its_own_port_alone() {
    let (public, inside): (&[&str], &[&str]) = (&["93.184.216.34"], &["10.0.0.1"]);
    let led = async |answers: &[&[&str]], to: &str| {
        let recorder = Recorder::default()
            .name("docs.example", answers)
            .name("other.example", &[public])
            .answer("http://docs.example:9000/", Answer::To(to.into()))
            .answer("http://docs.example:9000/start", Answer::Text("welcome"));
        let recorder = Arc::new(recorder);
        let fetcher = fetcher(&recorder, &["docs.example"]);
        fetcher.read(&url("http://docs.example:9000/"), PAGE_BYTES_MAX).await.map(|page| page.text.text)
    };
    assert_eq!(led(&[public], "/start").await.as_deref(), Ok("welcome"));
    for (answers, to, says) in [
        (&[public][..], "http://docs.example:9001/start", "port is 9001"),
        (&[public], "http://other.example:9000/", "port is 9000"),
        (&[public, inside], "/start", "is a private network; no public page"),
    ] {
        let why = led(answers, to).await.unwrap_err();
        assert!(why.contains(says), "{to}: {why}");
    }
}

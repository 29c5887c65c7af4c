//! Pages over real HTTP, from a server that nobody here wrote: what is good is read, and nothing else costs more than its
//! bounds.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oarlock::sources::{Fetcher, Internet, Net, PAGE_BYTES_MAX, Page};

use crate::recorder::{Recorder, fetcher, policy, url};
use crate::server::Pages;

/// A fetcher for the real network that may ask loopback; a broken policy ends at the recorder, and not off this machine.
fn local() -> Fetcher {
    fetcher(&Arc::new(Recorder::to_loopback()), &["127.0.0.1"])
}

async fn read(pages: &Pages, path: &str) -> Result<Page, String> {
    local().read(&url(&format!("{}{path}", pages.url)), PAGE_BYTES_MAX).await
}

#[tokio::test]
async fn a_page_of_a_plain_server_is_read_with_its_title_and_links() {
    let folder = tempfile::tempdir().unwrap();
    let page = "<title>Oars</title><h1>Levers</h1><p>An oar is a lever.</p><a href='more.html'>more about locks</a>";
    fs::create_dir(folder.path().join("docs")).unwrap();
    fs::write(folder.path().join("docs/index.html"), page).unwrap();
    let pages = Pages::of(folder.path(), "127.0.0.1");
    // The server itself sends from /docs to /docs/.
    let read = read(&pages, "/docs#part").await.unwrap();
    assert_eq!(read.address, format!("{}/docs/", pages.url));
    assert_eq!((read.text.title.as_str(), read.cut), ("Oars", false));
    assert_eq!(read.text.text, "# Levers\nAn oar is a lever.\nmore about locks\n");
    assert_eq!(read.text.links[0].url.as_str(), format!("{}/docs/more.html", pages.url));
    let why = self::read(&pages, "/nothing").await.unwrap_err();
    assert!(why.contains("404"), "{why}");
    let refused = Fetcher::new(policy(&[])).read(&url(&pages.url), PAGE_BYTES_MAX).await.unwrap_err();
    assert!(refused.contains("loopback"), "loopback is refused unless it is allowed: {refused}");
}

#[tokio::test]
async fn size_is_bounded_while_it_is_read_and_unpacked() {
    let pages = Pages::with_faults();
    for path in ["/endless", "/bomb"] {
        let started = Instant::now();
        let page = read(&pages, path).await.unwrap();
        assert!(page.cut && page.bytes == PAGE_BYTES_MAX, "{path}: {}", page.bytes);
        assert!(started.elapsed() < Duration::from_secs(10), "{path}: {:?}", started.elapsed());
        assert!(page.text.text.len() <= PAGE_BYTES_MAX + 1, "{path}: {}", page.text.text.len());
    }
    let small = local().read(&url(&format!("{}/endless", pages.url)), 1_000).await.unwrap();
    assert_eq!((small.bytes, small.cut), (1_000, true));
    let page = read(&pages, "/gzip").await.unwrap();
    assert_eq!((page.text.title.as_str(), page.text.text.trim()), ("packed", "unpacked text"));
    let why = read(&pages, "/garbled-gzip").await.unwrap_err();
    assert!(why.contains("garbled"), "{why}");
}

#[tokio::test]
async fn time_is_bounded_however_slowly_a_server_drips() {
    let pages = Pages::with_faults();
    for path in ["/silent", "/slow"] {
        let started = Instant::now();
        let fetcher = local().within(Duration::from_millis(800));
        let why = fetcher.read(&url(&format!("{}{path}", pages.url)), PAGE_BYTES_MAX).await.unwrap_err();
        assert!(why.contains("longer than 0.8 s"), "{path}: {why}");
        assert!(started.elapsed() < Duration::from_secs(5), "{path}: {:?}", started.elapsed());
    }
    let why = read(&pages, "/broken").await.unwrap_err();
    assert!(why.contains("broke off"), "{why}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let why = local().read(&url(&format!("http://127.0.0.1:{port}/")), PAGE_BYTES_MAX).await.unwrap_err();
    assert!(why.contains("no connection"), "{why}");
}

#[tokio::test]
async fn only_text_is_read_in_whatever_letters_it_is_written() {
    let pages = Pages::with_faults();
    for (path, says) in [
        ("/image", "\"image/png\"; only HTML"),
        ("/pretender", "binary, not text"),
        ("/error", "503"),
        ("/inside", "it leads to http://169.254.169.254/latest/meta-data/, and 169.254.169.254 is a cloud's metadata"),
    ] {
        let why = read(&pages, path).await.unwrap_err();
        assert!(why.contains(says), "{path}: {why}");
    }
    for (path, title) in [
        ("/latin", "café"),
        ("/meta", "“café”"),
        ("/lying", "caf\u{fffd}"),
        ("/unknown", "café"),
        ("/markdown", "A title"),
        ("/json", ""),
        ("/untyped", ""),
    ] {
        assert_eq!(read(&pages, path).await.unwrap().text.title, title, "{path}");
    }
    assert_eq!(read(&pages, "/moved").await.unwrap().text.text, "{\"answer\": 42}");
    assert_eq!(read(&pages, "/markdown").await.unwrap().text.links[0].url.as_str(), "http://127.0.0.1:1/more");
}

#[tokio::test]
async fn a_page_of_deep_nesting_takes_a_moment() {
    let pages = Pages::with_faults();
    let started = Instant::now();
    let page = read(&pages, "/deep").await.unwrap();
    assert!(page.text.text.contains("the bottom"), "{:?}", page.bytes);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_request_says_who_asks_and_nothing_else() {
    let pages = Pages::with_faults();
    let headers = read(&pages, "/headers").await.unwrap().text.text.to_lowercase();
    let names: Vec<&str> = headers.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["accept", "accept-encoding", "host", "user-agent"], "{headers}");
    assert!(headers.contains("user-agent: oarlock/"), "{headers}");
}

/// With real connections: the name is known to the test's resolver alone, and the connection goes where the check looked,
/// although the next look would lead to another server.
#[tokio::test]
async fn the_connection_goes_to_the_address_that_was_checked() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(good.path().join("x.txt"), "the checked server").unwrap();
    fs::write(bad.path().join("x.txt"), "the other server").unwrap();
    let good = Pages::of(good.path(), "127.0.0.1");
    let answers: [&[&str]; 2] = [&["127.0.0.1"], &["127.0.0.2"]];
    let recorder = Arc::new(Recorder::to_loopback().name("turn.example", &answers));
    let page = url(&format!("http://turn.example:{}/x.txt", good.port));
    let read = fetcher(&recorder, &["127.0.0.1"]).read(&page, PAGE_BYTES_MAX).await.unwrap();
    assert_eq!(read.text.text, "the checked server");
    assert_eq!(recorder.lookups.lock().unwrap().len(), 1);
    let why = fetcher(&recorder, &["127.0.0.1"]).read(&page, PAGE_BYTES_MAX).await.unwrap_err();
    assert!(why.contains("127.0.0.2"), "{why}");
    assert_eq!(recorder.asked().len(), 1, "what was refused is not asked");
}

/// The client of a request cannot resolve a name by itself, not even one that the system knows.
#[tokio::test]
async fn without_checked_addresses_there_is_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let pages = Pages::of(folder.path(), "127.0.0.1");
    let page = url(&format!("http://localhost:{}/", pages.port));
    let why = Internet.get(&page, &[]).await.unwrap_err();
    assert!(why.contains("no connection"), "{why}");
}

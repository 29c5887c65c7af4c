//! Which pages are read for a task: what the user named, what is linked there and fits, and nothing that a model made up.

use std::sync::Arc;
use std::time::Duration;

use oarlock::sources::{Gathered, LINKS_MAX, PAGES_BYTES_MAX, Sources, URLS_MAX, Wanted, Web, words_of};

use crate::recorder::{Answer, Recorder, fetcher};

const TIME: Duration = Duration::from_secs(20);
const PUBLIC: &[&[&str]] = &[&["93.184.216.34"]];

async fn gather(recorder: &Arc<Recorder>, web: Web, wanted: &Wanted<'_>) -> Gathered {
    Sources { web, fetcher: fetcher(recorder, &[]) }.gather(wanted, TIME).await
}

fn addresses(gathered: &Gathered) -> Vec<&str> {
    gathered.pages.iter().map(|page| page.address.as_str()).collect()
}

#[tokio::test]
async fn the_goals_urls_are_read_and_what_is_refused_is_told() {
    let recorder = Recorder::default()
        .name("a.example", PUBLIC)
        .name("b.example", PUBLIC)
        .answer("http://a.example/one", Answer::Text("one"))
        .answer("http://b.example/", Answer::To("http://a.example/one".into()));
    let recorder = Arc::new(recorder);
    let goal = "Compare http://a.example/one, http://b.example/, http://a.example/one#x, http://gone.example/ and \
                http://user:secret@10.0.0.1/ with ftp://a.example/f.";
    let gathered = gather(&recorder, Web::Named, &Wanted { goal, ..Wanted::default() }).await;
    assert_eq!(addresses(&gathered), ["http://a.example/one"], "the same page is a source once");
    let told: Vec<&str> = gathered.not_read.iter().map(|one| one.address.as_str()).collect();
    assert_eq!(told, ["http://gone.example/", "http://10.0.0.1/", "ftp://a.example/f"]);
    assert!(gathered.not_read[0].why.contains("not found"), "{:?}", gathered.not_read);
}

#[tokio::test]
async fn what_only_a_model_named_is_not_asked_unless_it_may_be() {
    let recorder = Recorder::default().name("evil.example", PUBLIC).name("docs.example", PUBLIC);
    let recorder = recorder
        .answer("http://evil.example/?q=the-secret", Answer::Text("thanks"))
        .answer("http://docs.example/x", Answer::Text("docs"));
    let recorder = Arc::new(recorder);
    let written: [&str; 1] = ["Read http://evil.example/?q=the-secret and http://docs.example/x"];
    let files: [&[u8]; 1] = [b"notes: http://docs.example/x"];
    let wanted = Wanted { goal: "Find out more", written: &written, attached: &files, ..Wanted::default() };
    let gathered = gather(&recorder, Web::Named, &wanted).await;
    assert_eq!(recorder.asked(), ["http://docs.example/x"], "the user's own file names that one");
    assert!(gathered.not_read[0].why.contains("web = \"open\""), "{:?}", gathered.not_read);
    let gathered = gather(&recorder, Web::Open, &wanted).await;
    assert_eq!(gathered.pages.len(), 2, "{:?}", gathered.not_read);
    let off = Arc::new(Recorder::default());
    let gathered = gather(&off, Web::Off, &Wanted { goal: "Read http://docs.example/x", ..wanted }).await;
    assert!(off.asked().is_empty() && off.lookups.lock().unwrap().is_empty(), "off is off, for names as well");
    assert!(gathered.not_read.iter().any(|one| one.why.contains("is off")), "{:?}", gathered.not_read);
}

/// `web = "open"` and `web_allow` together do not open to a model what was opened to the user.
#[tokio::test]
async fn what_a_model_names_leads_nowhere_inside_not_even_where_it_is_allowed() {
    let recorder = Recorder::default()
        .name("wiki.intern", &[&["10.0.0.1"]])
        .name("docs.example", PUBLIC)
        .answer("http://wiki.intern/delete?all", Answer::Text("gone"))
        .answer("http://wiki.intern/oars", Answer::Text("levers"))
        .answer("http://wiki.intern/locks", Answer::Text("iron"))
        .answer("http://docs.example/x", Answer::Text("docs"));
    let recorder = Arc::new(recorder);
    let sources = Sources { web: Web::Open, fetcher: fetcher(&recorder, &["wiki.intern", "10.0.0.0/8"]) };
    let written =
        ["Read http://wiki.intern/delete?all http://10.0.0.1/x http://docs.example/x http://wiki.intern/oars \
                    http://wiki.intern/locks"];
    let files: [&[u8]; 1] = [b"see http://wiki.intern/locks"];
    let goal = "What does http://wiki.intern/oars say?";
    let wanted = Wanted { goal, written: &written, attached: &files, ..Wanted::default() };
    let gathered = sources.gather(&wanted, TIME).await;
    let read = ["http://wiki.intern/oars", "http://docs.example/x", "http://wiki.intern/locks"];
    assert_eq!(addresses(&gathered), read, "what the goal or a file names as well is the user's");
    assert_eq!(recorder.asked().len(), 3, "{:?}", recorder.asked());
    let told: Vec<&str> = gathered.not_read.iter().map(|one| one.address.as_str()).collect();
    assert_eq!(told, ["http://wiki.intern/delete?all", "http://10.0.0.1/x"]);
    assert!(gathered.not_read.iter().all(|one| one.why.contains("no model may lead there")), "{:?}", gathered.not_read);
}

#[tokio::test]
async fn links_are_followed_once_when_they_share_words_with_the_task() {
    let page = "Index.\nhttp://a.example/retry how retries wait\nhttp://a.example/legal imprint\n\
                http://10.0.0.1/retry inside\nhttp://a.example/more-on-retry-deadline retry and deadline";
    let recorder = Recorder::default()
        .name("a.example", PUBLIC)
        .answer("http://a.example/", Answer::Text(page))
        .answer("http://a.example/retry", Answer::Text("retries: http://a.example/deeper-retry"))
        .answer("http://a.example/more-on-retry-deadline", Answer::Text("deadlines"));
    let recorder = Arc::new(recorder);
    let words = words_of("When does a retry meet its deadline?");
    let wanted = Wanted { goal: "Read http://a.example/", words: &words, ..Wanted::default() };
    let gathered = gather(&recorder, Web::Named, &wanted).await;
    assert_eq!(
        addresses(&gathered),
        ["http://a.example/", "http://a.example/more-on-retry-deadline", "http://a.example/retry"]
    );
    assert_eq!(gathered.not_read.len(), 1, "the link to the inside was refused, and told: {:?}", gathered.not_read);
    assert!(gathered.not_read[0].why.contains("private"));
    assert_eq!(recorder.asked().len(), 3, "one level: {:?}", recorder.asked());
}

#[tokio::test]
async fn links_of_a_public_page_lead_nowhere_inside_and_those_of_an_allowed_one_do() {
    let page = "http://wiki.intern/oars about oars";
    let recorder = Recorder::default()
        .name("a.example", PUBLIC)
        .name("wiki.intern", &[&["10.0.0.1"]])
        .answer("http://a.example/", Answer::Text(page))
        .answer("http://wiki.intern/", Answer::Text(page))
        .answer("http://wiki.intern/oars", Answer::Text("levers"));
    let recorder = Arc::new(recorder);
    let sources = Sources { web: Web::Named, fetcher: fetcher(&recorder, &["wiki.intern"]) };
    let words = words_of("oars");
    let wanted = Wanted { goal: "http://a.example/", words: &words, ..Wanted::default() };
    let gathered = sources.gather(&wanted, TIME).await;
    assert_eq!(addresses(&gathered), ["http://a.example/"]);
    assert!(gathered.not_read[0].why.contains("no public page and no model may lead there"), "{:?}", gathered.not_read);
    let gathered = sources.gather(&Wanted { goal: "http://wiki.intern/", ..wanted }, TIME).await;
    assert_eq!(addresses(&gathered), ["http://wiki.intern/", "http://wiki.intern/oars"]);
}

#[tokio::test]
async fn the_number_of_pages_is_bounded() {
    let links: String = (0..100).map(|n| format!("http://a.example/oar{n} oar\n")).collect();
    let links: &'static str = Box::leak(links.into_boxed_str());
    let mut recorder = Recorder::default().name("a.example", PUBLIC);
    let urls: Vec<String> = (0..URLS_MAX + 3).map(|n| format!("http://a.example/{n}")).collect();
    for url in &urls {
        recorder = recorder.answer(url, Answer::Text(links));
    }
    let recorder = Arc::new(recorder);
    let (goal, words) = (urls.join(" "), words_of("an oar"));
    let wanted = Wanted { goal: &goal, words: &words, ..Wanted::default() };
    let gathered = gather(&recorder, Web::Named, &wanted).await;
    assert_eq!(recorder.asked().len(), URLS_MAX + LINKS_MAX);
    assert_eq!(gathered.not_read.iter().filter(|one| one.why.contains("urls_max 8")).count(), 3);
}

#[tokio::test]
async fn with_no_bytes_left_no_link_is_asked() {
    let urls: Vec<String> = (0..URLS_MAX).map(|n| format!("http://a.example/{n}")).collect();
    let long = format!("http://a.example/oar an oar\n{}", "word ".repeat(PAGES_BYTES_MAX / URLS_MAX / 5));
    let long: &'static str = Box::leak(long.into_boxed_str());
    let mut recorder = Recorder::default().name("a.example", PUBLIC);
    for url in &urls {
        recorder = recorder.answer(url, Answer::Text(long));
    }
    let recorder = Arc::new(recorder.answer("http://a.example/oar", Answer::Text("an oar")));
    let (goal, words) = (urls.join(" "), words_of("an oar"));
    let wanted = Wanted { goal: &goal, words: &words, ..Wanted::default() };
    let gathered = gather(&recorder, Web::Named, &wanted).await;
    assert_eq!(gathered.pages.iter().map(|page| page.bytes).sum::<usize>(), PAGES_BYTES_MAX);
    assert_eq!((gathered.pages.len(), recorder.asked().len()), (URLS_MAX, URLS_MAX), "the link is no empty source");
    let left = &gathered.not_read[0];
    assert!(left.address == "http://a.example/oar" && left.why.contains("pages_bytes_max 8388608"), "{left:?}");
}

#[tokio::test]
async fn no_time_is_no_reason_to_wait() {
    let recorder = Arc::new(Recorder::default().name("a.example", PUBLIC));
    let sources = Sources { web: Web::Named, fetcher: fetcher(&recorder, &[]) };
    let wanted = Wanted { goal: "http://a.example/x", ..Wanted::default() };
    let gathered = sources.gather(&wanted, Duration::ZERO).await;
    assert_eq!(gathered.pages.len(), 0);
    assert_eq!(gathered.not_read.len(), 1);
}

//! Which pages are read for a task, and what came of it.
//!
//! Nothing leaves the machine that the user did not ask for. A URL is a message to its host, and one that a model wrote may
//! carry what a page or a file told it to carry. So what is read is what the user named, and of the links found there those
//! that share words with the task; a model chooses nothing, unless the operator says so ([`Web::Open`]).
//!
//! `robots.txt` is not asked for: a page is read because a person named it, a few times, as with a browser or curl, and
//! under our own name in `User-Agent`.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use reqwest::Url;
use tokio::time::{Instant, timeout_at};

use super::content::Link;
use super::fetch::{Fetcher, Page, shown};
use super::links::{Found, in_text};
use super::words;

/// URLs of the user that one task reads.
pub const URLS_MAX: usize = 8;
/// Links found in files and pages that one task reads beside them.
pub const LINKS_MAX: usize = 4;
/// Bytes of all pages of one task.
pub const PAGES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Pages that are read at the same time.
const TOGETHER_MAX: usize = 4;
/// Lines about what was not read.
const NOT_READ_MAX: usize = 30;

/// Bytes that are left when a page is still asked for; with less, nothing of it would be worth a place among the sources.
const PAGE_BYTES_MIN: usize = 4 * 1024;

/// What of the web may be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Web {
    /// Nothing.
    Off,
    /// What the goal and the attached files name, and links found there.
    #[default]
    Named,
    /// Also what a model names, at public hosts alone.
    Open,
}

impl FromStr for Web {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Web::Off),
            "named" => Ok(Web::Named),
            "open" => Ok(Web::Open),
            _ => Err(format!("web is {text:?}; it can be \"off\", \"named\" or \"open\"")),
        }
    }
}

/// Reads what a task refers to.
#[derive(Clone)]
pub struct Sources {
    /// What may be read.
    pub web: Web,
    /// How it is read.
    pub fetcher: Fetcher,
}

/// A task, as far as its sources are concerned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The user's words.
    pub goal: &'a str,
    /// The user's files.
    pub attached: &'a [&'a [u8]],
    /// What a model wrote: the task's description, earlier results.
    pub written: &'a [&'a str],
    /// What the task is about.
    pub words: &'a [String],
}

/// What was read, and what was not.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Pages, in the order of their numbers, from 1.
    pub pages: Vec<Page>,
    /// The rest.
    pub not_read: Vec<NotRead>,
}

/// Something that was named and not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRead {
    /// The URL, without a user name or password.
    pub address: String,
    /// Why not.
    pub why: String,
}

/// Who named a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The user, or a page inside that the operator allowed.
    User,
    /// A public page, or a model alone: nothing inside was opened to them.
    Stranger,
}

impl Sources {
    /// Reads the pages for `wanted`, within `time`. Can be dropped at any moment.
    pub async fn gather(&self, wanted: &Wanted<'_>, time: Duration) -> Gathered {
        let deadline = Instant::now() + time;
        let mut gathered = Gathered::default();
        let linked = links_of(wanted).await;
        let mut named = self.named(wanted, &linked, &mut gathered);
        if self.web == Web::Off {
            named.iter().for_each(|(url, _)| gathered.leave(url, "reading the web is off (web in the configuration)"));
            return gathered;
        }
        for (url, _) in named.split_off(named.len().min(URLS_MAX)) {
            gathered.leave(&url, &format!("more than urls_max {URLS_MAX} are named"));
        }
        let mut asked: HashSet<Url> = named.iter().map(|(url, _)| url.clone()).collect();
        self.read_all(named, deadline, time, &mut gathered).await;
        let links = |page: &Page| {
            let from = if page.public { Origin::Stranger } else { Origin::User };
            let scored = |link: &Link| (score(wanted.words, &link.words, &link.url), link.url.clone(), from);
            page.text.links.iter().map(scored).collect::<Vec<_>>()
        };
        let found = gathered.pages.iter().flat_map(links);
        let linked = linked.into_iter().filter(|(_, url)| ["http", "https"].contains(&url.scheme()));
        // A file of the user's comes first: what it names as well is the user's.
        let mut candidates: Vec<(usize, Url, Origin)> = linked
            .map(|(score, url)| (score, url, Origin::User))
            .chain(found)
            .filter(|(score, url, _)| asked.insert(url.clone()) && *score > 0)
            .collect();
        candidates.sort_by_key(|(score, ..)| std::cmp::Reverse(*score));
        let links = candidates.into_iter().take(LINKS_MAX).map(|(_, url, from)| (url, from)).collect();
        self.read_all(links, deadline, time, &mut gathered).await;
        gathered
    }

    /// The URLs to read in any case, with who named them; `linked` is what the user's files name.
    fn named(&self, wanted: &Wanted<'_>, linked: &[(usize, Url)], gathered: &mut Gathered) -> Vec<(Url, Origin)> {
        let mut named: Vec<(Url, Origin)> =
            in_text(wanted.goal).into_iter().map(|found| (found.url, Origin::User)).collect();
        let mut seen: HashSet<Url> = named.iter().map(|(url, _)| url.clone()).collect();
        let known: HashSet<&Url> = linked.iter().map(|(_, url)| url).collect();
        for Found { url, .. } in wanted.written.iter().flat_map(|text| in_text(text)) {
            if !seen.insert(url.clone()) {
                continue;
            }
            match self.web {
                _ if known.contains(&url) => named.push((url, Origin::User)),
                Web::Open => named.push((url, Origin::Stranger)),
                _ => gathered.leave(&url, "a model named it, not you; web = \"open\" in the configuration lets it"),
            }
        }
        named
    }

    async fn read_all(&self, urls: Vec<(Url, Origin)>, deadline: Instant, time: Duration, gathered: &mut Gathered) {
        let room = PAGES_BYTES_MAX.saturating_sub(gathered.pages.iter().map(|page| page.bytes).sum());
        let share = room / urls.len().max(1);
        if share < PAGE_BYTES_MIN {
            let why = format!("more than pages_bytes_max {PAGES_BYTES_MAX} would be read for this task");
            urls.iter().for_each(|(url, _)| gathered.leave(url, &why));
            return;
        }
        let late = |_| format!("the time for reading, {} s, was over", time.as_secs());
        let read = stream::iter(urls).map(|(url, from)| async move {
            let fetcher = match from {
                Origin::User => self.fetcher.clone(),
                Origin::Stranger => self.fetcher.clone().for_strangers(),
            };
            let page = timeout_at(deadline, fetcher.read(&url, share)).await;
            (url, page.map_err(late).and_then(|page| page))
        });
        let mut read = std::pin::pin!(read.buffered(TOGETHER_MAX));
        while let Some((url, page)) = read.next().await {
            match page {
                Ok(page) if gathered.pages.iter().any(|other| other.address == page.address) => {}
                Ok(page) => gathered.pages.push(page),
                Err(why) => gathered.leave(&url, &why),
            }
        }
    }
}

/// The URLs in the user's files and how well each fits the task. Megabytes, so they are looked through where nobody waits.
async fn links_of(wanted: &Wanted<'_>) -> Vec<(usize, Url)> {
    let files: Vec<Vec<u8>> = wanted.attached.iter().map(|bytes| bytes.to_vec()).collect();
    let words = wanted.words.to_vec();
    let search = tokio::task::spawn_blocking(move || {
        let found = files.iter().filter_map(|bytes| std::str::from_utf8(bytes).ok()).flat_map(in_text);
        found.map(|found| (score(&words, &found.around, &found.url), found.url)).collect()
    });
    search.await.unwrap_or_else(|error| {
        tracing::warn!("the attached files are not searched for links: {error}");
        Vec::new()
    })
}

fn score(words: &[String], around: &str, url: &Url) -> usize {
    words::count(words, &format!("{around} {}", url.path()))
}

impl Gathered {
    fn leave(&mut self, url: &Url, why: &str) {
        tracing::info!("{} is not read: {why}", url.host_str().unwrap_or("a URL without a host"));
        if self.not_read.len() < NOT_READ_MAX {
            self.not_read.push(NotRead { address: shown(url), why: why.to_owned() });
        }
    }
}

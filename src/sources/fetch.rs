//! One page, from its URL to its text: every hop checked, every size and wait bounded.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Response, Url};
use tokio::time::timeout;

use super::address::kind_of;
use super::content::{self, Text};
use super::net::{Internet, Net, told};
use super::policy::{Policy, Target};

/// Redirects that are followed.
pub const REDIRECTS_MAX: usize = 5;
/// Bytes of a page that are read, unpacked; the rest is left.
pub const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest time for one page, redirects included, unless the whole task has less.
const PAGE_S_MAX: u64 = 20;
/// Longest wait for a name's addresses.
const LOOKUP_S_MAX: u64 = 5;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Reads pages.
#[derive(Clone)]
pub struct Fetcher {
    policy: Policy,
    net: Arc<dyn Net>,
    page_time: Duration,
}

/// A page that was read.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it was found, after all redirects.
    pub address: String,
    /// Its text, title and links.
    pub text: Text,
    /// Bytes that were read of it.
    pub bytes: usize,
    /// True when there was more.
    pub cut: bool,
    /// True when it came from a public address: then its links lead to public hosts alone.
    pub public: bool,
}

impl Fetcher {
    /// A fetcher for the real network.
    pub fn new(policy: Policy) -> Self {
        Self::over(policy, Arc::new(Internet))
    }

    /// A fetcher that reaches hosts through `net`.
    pub fn over(policy: Policy, net: Arc<dyn Net>) -> Self {
        Self { policy, net, page_time: Duration::from_secs(PAGE_S_MAX) }
    }

    /// The same with less time for a page.
    pub fn within(self, page_time: Duration) -> Self {
        Self { page_time: page_time.min(self.page_time), ..self }
    }

    /// Entries of its policy's allow list.
    pub fn allowed(&self) -> usize {
        self.policy.len()
    }

    /// The same for what strangers name: a public page, or a model.
    pub fn for_strangers(self) -> Self {
        Self { policy: Policy::for_strangers(), ..self }
    }

    /// Reads the page at `url`, of at most `bytes_max` bytes (and [`PAGE_BYTES_MAX`]).
    ///
    /// # Errors
    /// Why it is not read, as a fragment for people.
    pub async fn read(&self, url: &Url, bytes_max: usize) -> Result<Page, String> {
        let late = |_| format!("it took longer than {} s", self.page_time.as_secs_f32());
        timeout(self.page_time, self.follow(url, bytes_max.min(PAGE_BYTES_MAX))).await.map_err(late)?
    }

    async fn follow(&self, url: &Url, bytes_max: usize) -> Result<Page, String> {
        let mut url = url.clone();
        url.set_fragment(None);
        let mut policy = self.policy.clone();
        for hop in 0..=REDIRECTS_MAX {
            let to = |why| if hop == 0 { why } else { format!("it leads to {}, and {why}", shown(&url)) };
            let (response, target, public) = self.ask(&policy, &url).await.map_err(to)?;
            if !response.status().is_redirection() {
                return self.take(&url, response, bytes_max, public).await.map_err(to);
            }
            if public {
                policy = Policy::led_by(target);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let mut next = next.ok_or_else(|| to(format!("it answers {} without a place", response.status())))?;
            next.set_fragment(None);
            url = next;
        }
        Err(format!("it leads on more than redirects_max {REDIRECTS_MAX} times, at last to {}", shown(&url)))
    }

    /// Checks the URL and its addresses, and asks exactly these; tells whom it asked, and whether that is public.
    async fn ask(&self, policy: &Policy, url: &Url) -> Result<(Response, Target, bool), String> {
        let target = policy.check_url(url)?;
        let found = match target.address {
            Some(address) => vec![address],
            None => {
                let lookup = timeout(Duration::from_secs(LOOKUP_S_MAX), self.net.lookup(&target.host)).await;
                let lookup = lookup.map_err(|_| format!("the addresses of {} took too long", target.host))?;
                lookup.map_err(|error| format!("the host {} is not found ({error})", target.host))?
            }
        };
        let mut addresses = policy.check_addresses(&target, &found)?;
        addresses.truncate(ADDRESSES_MAX);
        let public = addresses.iter().any(|address| kind_of(address.ip()).is_none());
        Ok((self.net.get(url, &addresses).await?, target, public))
    }

    async fn take(&self, url: &Url, response: Response, bytes_max: usize, public: bool) -> Result<Page, String> {
        if !response.status().is_success() {
            return Err(format!("it answers {}", response.status()));
        }
        let kind =
            response.headers().get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
        let kind = content::MediaType::read(kind.as_deref())?;
        let (bytes, cut) = body(response, bytes_max).await?;
        let (count, base) = (bytes.len(), url.clone());
        // Reading a page is a few milliseconds of pure work, which no other task of this process should wait for.
        let text = tokio::task::spawn_blocking(move || content::text_of(&kind, &bytes, &base)).await;
        let text = text.map_err(|error| format!("its text cannot be read ({error})"))??;
        Ok(Page { address: shown(url), text, bytes: count, cut, public })
    }
}

/// Reads up to `bytes_max`; true when there was more.
async fn body(mut response: Response, bytes_max: usize) -> Result<(Vec<u8>, bool), String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
        let room = bytes_max - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body, true));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, false))
}

/// An address as it may be shown: without what somebody put before the host.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if !url.username().is_empty() || url.password().is_some() {
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    let text = url.to_string();
    crate::wire::limits::cut(&text, super::policy::URL_CHARS_MAX)
}

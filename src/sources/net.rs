//! The two steps of asking a host: its addresses, and a request to exactly these.
//!
//! They are apart so that the policy stands between them, and nothing else does: the client of a request knows the addresses
//! that were checked and cannot resolve any name by itself, so a name whose answer changes in between changes nothing. No
//! proxy is used, whatever the environment says: it would resolve the name itself, out of the policy's sight.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::redirect::Policy as Redirects;
use reqwest::{Client, Response, Url};

/// Longest wait for a connection.
const CONNECT_S_MAX: u64 = 5;
/// Longest silence of a server.
const SILENCE_S_MAX: u64 = 10;
/// What is asked for; what comes is looked at all the same.
const WANTED: &str = "text/html, application/xhtml+xml, text/plain, text/markdown, application/json;q=0.9, \
                      application/xml;q=0.8, text/*;q=0.5";

/// How hosts are reached. The real one is [`Internet`].
#[async_trait]
pub trait Net: Send + Sync {
    /// The addresses of a host name.
    ///
    /// # Errors
    /// The resolver's.
    async fn lookup(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;

    /// Asks for `url` at one of `addresses` and nowhere else; follows no redirect.
    ///
    /// # Errors
    /// What happened, as a fragment.
    async fn get(&self, url: &Url, addresses: &[SocketAddr]) -> Result<Response, String>;
}

/// The system's resolver and real connections.
pub struct Internet;

/// Answers nothing: a client that comes here asks for a name that was not checked.
struct NoNames;

impl Resolve for NoNames {
    fn resolve(&self, name: Name) -> Resolving {
        let refused = format!("the name {} was not checked", name.as_str());
        Box::pin(async move { Err(refused.into()) })
    }
}

#[async_trait]
impl Net for Internet {
    async fn lookup(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }

    async fn get(&self, url: &Url, addresses: &[SocketAddr]) -> Result<Response, String> {
        let host = url.host_str().unwrap_or_default();
        let client = Client::builder()
            .dns_resolver(NoNames)
            .resolve_to_addrs(host, addresses)
            .no_proxy()
            .redirect(Redirects::none())
            .referer(false)
            .pool_max_idle_per_host(0)
            .connect_timeout(Duration::from_secs(CONNECT_S_MAX))
            .read_timeout(Duration::from_secs(SILENCE_S_MAX))
            .user_agent(concat!("oarlock/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("no HTTP client could be made: {error}"))?;
        let request = client.get(url.clone()).header(ACCEPT, HeaderValue::from_static(WANTED));
        let response = request.send().await.map_err(|error| told(&error))?;
        match response.remote_addr() {
            Some(peer) if !addresses.iter().any(|address| address.ip() == peer.ip()) => {
                Err(format!("the connection went to {}, which was not checked", peer.ip()))
            }
            _ => Ok(response),
        }
    }
}

/// What went wrong with a request, without the URL: whoever shows it names that.
pub(super) fn told(error: &reqwest::Error) -> String {
    let what = match error {
        _ if error.is_timeout() && error.is_connect() => "connecting took too long",
        _ if error.is_timeout() => "the server was silent for too long",
        _ if error.is_connect() => "no connection",
        _ if error.is_body() || error.is_decode() => "the answer broke off or is garbled",
        _ => "the request failed",
    };
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(|cause| cause.source()) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| what.to_owned(), |cause| format!("{what} ({cause})"))
}

//! One connection per process, checked before anything is built on it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::{ConnectErrorKind, ConnectOptions, Event, jetstream};
use tokio::sync::watch;

use super::BusError;
use super::rights::Rights;
use crate::wire::Root;

/// Longest pause between two attempts to reconnect.
const RECONNECT_DELAY_MS_MAX: u64 = 1_000;
/// How often the server is asked whether it is still there. A host that is cut off says nothing; after three unanswered
/// pings, 6 to 8 seconds, the next server is tried. The library's default takes four minutes for that.
const PING_S: u64 = 2;
/// How long one attempt to connect may take.
const CONNECT_WAIT_S_MAX: u64 = 5;
/// The oldest server that has all the stream features that the fleet uses.
const OLDEST_SERVER: (i64, i64, &str) = (2, 14, "2.14");

/// Where the server is and who we are to it.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Addresses, separated by commas: `nats://host:4222,nats://other:4222`.
    pub urls: String,
    /// How to log in.
    pub credentials: Credentials,
    /// What our inboxes begin with, where rights allow only one's own; `_INBOX` without it.
    pub inbox_prefix: Option<String>,
    /// How long one attempt to connect may take; [`CONNECT_WAIT_S_MAX`] seconds without it.
    pub connect_wait: Option<Duration>,
}

/// How to log in; all empty for a server without authorization.
#[derive(Clone, Default)]
pub struct Credentials {
    /// User name.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// Token.
    pub token: Option<String>,
    /// A credentials file: a user's JWT and seed.
    pub creds: Option<Secret>,
    /// An nkey seed, as in its file.
    pub nkey: Option<Secret>,
    /// Path of a certificate authority's certificate.
    pub ca: Option<PathBuf>,
    /// Paths of our own certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The server expects TLS before it says anything.
    pub tls_first: bool,
}

/// A secret, or the file that it is read from when we connect.
#[derive(Clone)]
pub enum Secret {
    /// In this file.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// A connected client of one fleet. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    /// Core NATS.
    pub client: async_nats::Client,
    /// JetStream.
    pub js: jetstream::Context,
    /// The root of all names.
    pub root: Root,
    connects: watch::Receiver<u64>,
    /// What the server refused.
    pub(super) rights: Arc<Rights>,
    /// True for the sake of a caller who waits.
    pub(super) hasty: bool,
    /// When the work queue was last looked at, and whether it was over half full.
    pub(super) half_full: Arc<Mutex<Option<(Instant, bool)>>>,
    /// When the server's clock was last looked at, and what it said.
    pub(super) clock: Arc<Mutex<Option<(Instant, i64)>>>,
}

impl Bus {
    /// Connects as `name`, once; the client then reconnects by itself for ever, with at most
    /// [`RECONNECT_DELAY_MS_MAX`] between two tries.
    ///
    /// # Errors
    /// When nobody answers, we are refused, or the server is too old or without JetStream.
    pub async fn connect(server: &Server, root: &Root, name: &str) -> Result<Self, BusError> {
        let (counter, connects) = watch::channel(0_u64);
        let rights = Arc::new(Rights::default());
        let refused = rights.clone();
        let options = options(server)?
            .name(name)
            .connection_timeout(server.connect_wait.unwrap_or(Duration::from_secs(CONNECT_WAIT_S_MAX)))
            .ping_interval(Duration::from_secs(PING_S))
            .reconnect_delay_callback(|tries| {
                Duration::from_millis(RECONNECT_DELAY_MS_MAX.min(50 * tries.min(20) as u64))
            })
            .event_callback(move |event| {
                if matches!(event, Event::Connected) {
                    counter.send_modify(|count| *count += 1);
                }
                refused.hear(&event);
                async move { log(&event) }
            });
        let urls: Vec<String> = server.urls.split(',').map(|url| url.trim().to_owned()).collect();
        let client = options.connect(urls).await.map_err(|error| {
            let servers = without_secrets(&server.urls);
            match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    BusError::Denied { servers, source: error.into() }
                }
                _ => BusError::Connect { servers, source: error.into() },
            }
        })?;
        check(&client, &server.urls)?;
        let js = jetstream::new(client.clone());
        Ok(Self {
            client,
            js,
            root: root.clone(),
            connects,
            rights,
            hasty: false,
            half_full: Arc::default(),
            clock: Arc::default(),
        })
    }

    /// Changes each time that the connection is made anew; what was sent live meanwhile is missed.
    pub fn reconnects(&self) -> watch::Receiver<u64> {
        self.connects.clone()
    }
}

fn options(server: &Server) -> Result<ConnectOptions, BusError> {
    let Credentials { user, password, token, creds, nkey, ca, certificate, tls_first } = &server.credentials;
    let mut options = ConnectOptions::new();
    if let Some(secret) = creds {
        options = options.credentials(&reveal(secret)?).map_err(|source| unusable(secret, source))?;
    }
    if let Some(secret) = nkey {
        options = options.nkey(seed(&reveal(secret)?).to_owned());
    }
    match (user, password) {
        (Some(user), Some(password)) => options = options.user_and_password(user.clone(), password.clone()),
        // A user alone is a token, as it is for the `nats` tool.
        (Some(user), None) if token.is_none() => options = options.token(user.clone()),
        _ => {}
    }
    if let Some(token) = token {
        options = options.token(token.clone());
    }
    if let Some(path) = ca {
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
    }
    if *tls_first {
        options = options.tls_first();
    }
    if let Some(prefix) = &server.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    Ok(options)
}

fn reveal(secret: &Secret) -> Result<String, BusError> {
    match secret {
        Secret::File(path) => std::fs::read_to_string(path).map_err(|source| unusable(secret, source)),
        Secret::Text(text) => Ok(text.clone()),
    }
}

/// The seed in a file that may have a frame of dashes around it.
fn seed(text: &str) -> &str {
    let framed = text.lines().map(str::trim).find(|line| line.starts_with('S') && !line.contains(['-', ' ']));
    framed.unwrap_or(text.trim())
}

fn unusable(secret: &Secret, source: std::io::Error) -> BusError {
    let what = match secret {
        Secret::File(path) => path.display().to_string(),
        Secret::Text(_) => "that are given as text".into(),
    };
    BusError::Credentials { what, source: source.into() }
}

fn check(client: &async_nats::Client, urls: &str) -> Result<(), BusError> {
    let info = client.server_info();
    let servers = without_secrets(urls);
    let (major, minor, needed) = OLDEST_SERVER;
    if !client.is_server_compatible(major, minor, 0) {
        return Err(BusError::TooOld { servers, version: info.version, needed });
    }
    if !info.jetstream {
        return Err(BusError::NoJetStream { servers });
    }
    Ok(())
}

/// The addresses without the user information that a URL may carry.
fn without_secrets(urls: &str) -> String {
    let clean = |url: &str| match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        _ => url.rsplit('@').next().unwrap_or_default().to_owned(),
    };
    urls.split(',').map(|url| clean(url.trim())).collect::<Vec<_>>().join(",")
}

fn log(event: &Event) {
    match event {
        Event::Connected | Event::Draining | Event::Closed => tracing::debug!("nats: {event}"),
        // A denied request gets no answer at all, only this event; so it must be seen.
        _ => tracing::warn!("nats: {event}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{seed, without_secrets};

    #[test]
    fn a_seed_is_found_in_its_frame() {
        let framed = "-----BEGIN USER NKEY SEED-----\nSUAB\n------END USER NKEY SEED------\n";
        assert_eq!((seed(framed), seed(" SUAB\n")), ("SUAB", "SUAB"));
    }

    #[test]
    fn no_password_is_ever_shown() {
        for (url, shown) in [
            ("nats://u:p@host:4222", "nats://host:4222"),
            ("nats://token@a:1, nats://b:2", "nats://a:1,nats://b:2"),
            ("u:p@host", "host"),
            ("host:4222", "host:4222"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}

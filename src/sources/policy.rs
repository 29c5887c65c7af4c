//! Whom the researcher may ask: public hosts over http and https, and what the operator allowed by name or network.
//!
//! Looked at before each request, a redirect's included: the URL as it is written, then every address that its host has.
//! One bad address among good ones refuses them all.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use reqwest::Url;

use super::address::{Kind, kind_of};

/// Ports of public hosts that are asked; an allowed host may have any.
const PORTS: [u16; 4] = [80, 443, 8080, 8443];
/// Entries of an allow list.
pub const ALLOWED_MAX: usize = 100;
/// Characters of a URL.
pub const URL_CHARS_MAX: usize = 2_000;

/// Whom to ask beside the public.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    allowed: Vec<Allowed>,
    /// True for what a stranger named, to whom nothing inside was opened.
    strangers: bool,
    /// A public place whose port is good, whatever its number: it was just asked there.
    asked: Option<Target>,
}

/// Something that the operator allowed: `wiki.example.com`, `10.1.0.0/16`, `127.0.0.1:8080`, `[::1]:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    place: Place,
    /// Only this port; any without.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Host(String),
    Network(IpNet),
}

/// Where a URL leads, as far as its text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host as a resolver takes it: a name in small letters, or an address.
    pub host: String,
    /// The address, when the URL names one.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_lowercase();
        let network = |net: IpNet, port| Ok(Self { place: Place::Network(net), port });
        if let Ok(net) = text.parse::<IpNet>() {
            return network(net.trunc(), None);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return network(address.into(), None);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return network(address.ip().into(), Some(address.port()));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| no_place(&text))?)),
            None => (text.as_str(), None),
        };
        let labels = host.split('.').all(|label| {
            !label.is_empty()
                && label.len() < 64
                && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        });
        // A host whose last label is a number is an address that was written wrongly.
        let number = host.rsplit('.').next().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_digit()));
        if !labels || number || host.len() > 253 {
            return Err(no_place(&text));
        }
        Ok(Self { place: Place::Host(host.to_owned()), port })
    }
}

fn no_place(text: &str) -> String {
    format!(
        "{text:?} is no host and no network; write wiki.example.com, 10.1.0.0/16 or 127.0.0.1:8080, without http://"
    )
}

impl Policy {
    /// A policy that lets these through as well; at most [`ALLOWED_MAX`] are kept.
    pub fn allowing(allowed: Vec<Allowed>) -> Self {
        Self { allowed: allowed.into_iter().take(ALLOWED_MAX).collect(), ..Self::default() }
    }

    /// The policy for what strangers name, a public page by a link or a model by itself: public hosts alone.
    pub fn for_strangers() -> Self {
        Self { strangers: true, ..Self::default() }
    }

    /// The policy for where a public `place` leads by a redirect: what strangers may, and `place` itself on its own port.
    pub fn led_by(place: Target) -> Self {
        Self { asked: Some(place), ..Self::for_strangers() }
    }

    /// Entries of the allow list.
    pub(super) fn len(&self) -> usize {
        self.allowed.len()
    }

    /// Looks at a URL as it is written.
    ///
    /// # Errors
    /// Why it is not asked, as a fragment that fits "is not read: …".
    pub fn check_url(&self, url: &Url) -> Result<Target, String> {
        if !["http", "https"].contains(&url.scheme()) {
            return Err(format!("its scheme is {}; only http and https are read", url.scheme()));
        }
        if url.as_str().len() > URL_CHARS_MAX {
            return Err(format!("it is longer than url_chars_max {URL_CHARS_MAX}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it carries a user name or a password; nothing is sent to log in anywhere".into());
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err("it names no host".into());
        };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let target = Target { host, address, port };
        if let Some(address) = address {
            self.check_address(&target, address)?;
        }
        if !self.knows_port(&target) && !self.allowed.iter().any(|entry| entry.may_be(&target)) {
            let ports = PORTS.map(|port| port.to_string()).join(", ");
            return Err(format!("its port is {port}; of public hosts only {ports} are asked"));
        }
        Ok(target)
    }

    /// Looks at what the host of `target` was resolved to, and gives the same addresses with the target's port.
    ///
    /// # Errors
    /// The same, when there is none, or when any one may not be asked.
    pub fn check_addresses(&self, target: &Target, found: &[IpAddr]) -> Result<Vec<SocketAddr>, String> {
        if found.is_empty() {
            return Err(format!("its host {} has no address", target.host));
        }
        found.iter().try_for_each(|address| self.check_address(target, *address))?;
        if !self.knows_port(target) && !found.iter().all(|address| self.lets(target, *address)) {
            return Err(format!("its port is {}, which is not asked of a public host", target.port));
        }
        Ok(found.iter().map(|address| SocketAddr::new(*address, target.port)).collect())
    }

    fn knows_port(&self, target: &Target) -> bool {
        PORTS.contains(&target.port) || self.asked.as_ref() == Some(target)
    }

    fn check_address(&self, target: &Target, address: IpAddr) -> Result<(), String> {
        match kind_of(address) {
            Some(kind) if !self.lets(target, address) => {
                let what = if target.address == Some(address) {
                    format!("{address} is {kind}")
                } else {
                    format!("{} is at {address}, which is {kind}", target.host)
                };
                Err(match self.strangers {
                    true => format!("{what}; no public page and no model may lead there"),
                    false => format!("{what}; web_allow in the configuration can let it through"),
                })
            }
            _ => Ok(()),
        }
    }

    fn lets(&self, target: &Target, address: IpAddr) -> bool {
        let kind = kind_of(address);
        let host_may = kind.is_none_or(Kind::is_a_network_of_people);
        // Where keys are given out is opened by its own address, never by a network that happens to hold it.
        let network_may = |net: &IpNet| kind != Some(Kind::Metadata) || net.prefix_len() == net.max_prefix_len();
        self.allowed.iter().filter(|entry| entry.port.is_none_or(|port| port == target.port)).any(|entry| match &entry
            .place
        {
            Place::Host(host) => host_may && *host == target.host,
            Place::Network(net) => network_may(net) && net.contains(&address),
        })
    }
}

impl Allowed {
    /// True when this entry can still come to let `target` through: its addresses decide later.
    fn may_be(&self, target: &Target) -> bool {
        let port = self.port.is_none_or(|port| port == target.port);
        port && match (&self.place, target.address) {
            (Place::Host(host), _) => *host == target.host,
            (Place::Network(net), Some(address)) => net.contains(&address),
            (Place::Network(_), None) => true,
        }
    }
}

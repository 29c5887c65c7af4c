//! Which server is meant, and how to log in there: flags, then variables, then the configuration, then the selected context
//! of the `nats` tool. Nothing is read before somebody wants to connect, so that a broken context is in nobody's way who
//! needs none.

use std::path::PathBuf;
use std::time::Duration;

use super::args::Global;
use super::context::{Contexts, NatsContext, Variable, join_certificate, join_jwt};
use super::exit::{Exit, ended};
use crate::bus::{Bus, BusError, Credentials, Secret, Server};
use crate::wire::Root;

/// Where a server is looked for when none is named.
pub(super) const DEFAULT_SERVER: &str = "nats://127.0.0.1:4222";
/// Longest time that `NATS_TIMEOUT` may give to one attempt to connect.
const CONNECT_WAIT_S_MAX: u64 = 3_600;
/// Variables that speak about the user's own server.
pub(super) const NATS_VARIABLES: [&str; 16] = [
    "NATS_URL",
    "NATS_CONTEXT",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_TOKEN",
    "NATS_CREDS",
    "NATS_NKEY",
    "NATS_JWT",
    "NATS_SEED",
    "NATS_CA",
    "NATS_CERT",
    "NATS_KEY",
    "NATS_TIMEOUT",
    "NATS_SOCKS_PROXY",
    "OARLOCK_SERVER",
    "OARLOCK_REPLICAS",
];

/// What one place says about the connection.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) urls: Option<String>,
    pub(super) login: Credentials,
    pub(super) inbox_prefix: Option<String>,
}

/// A server, and who named it.
pub(super) struct Named {
    pub(super) server: Server,
    pub(super) origin: Origin,
}

/// Who named a server.
pub(super) enum Origin {
    /// A flag or a variable.
    Said(&'static str),
    /// A configuration file.
    File(PathBuf),
    /// A context of the `nats` tool; `selected` when nobody named it.
    Context { name: String, file: PathBuf, selected: bool },
    /// Nobody: it is the default address.
    Nobody,
}

/// Everything that may name a server, not yet read.
pub(super) struct Connections {
    flag: Option<String>,
    context: Option<String>,
    no_context: bool,
    variable: Variable,
    configured: Option<(String, PathBuf)>,
    contexts: Contexts,
}

impl Connections {
    /// `configured` is the configuration's server and its file, `folder` where the `nats` tool keeps its settings.
    pub(super) fn new(
        global: &Global,
        variable: Variable,
        configured: Option<(String, PathBuf)>,
        folder: Option<PathBuf>,
    ) -> Self {
        Self {
            flag: global.server.clone(),
            context: global.context.clone(),
            no_context: global.no_context,
            variable,
            configured,
            contexts: Contexts { folder, variable },
        }
    }

    /// The server that was named for this command or this project: by a flag, a variable, or a configuration file.
    pub(super) fn named(&self) -> anyhow::Result<Option<Named>> {
        let said = |urls: Option<String>, origin| (Parts { urls, ..Parts::default() }, origin);
        let of_flag = self.context.as_deref().map(|name| self.contexts.read(name)).transpose()?;
        // A server that is named for Oarlock alone does not get the login of a context that all tools share.
        let ours = self.flag.is_some() || (self.variable)("OARLOCK_SERVER").is_some();
        let named = (self.variable)("NATS_CONTEXT").filter(|_| !self.no_context && !ours && of_flag.is_none());
        let of_variable = named.map(|name| self.contexts.read(&name)).transpose()?;
        let variable = |name| said((self.variable)(name), Origin::Said(name));
        let file = self.configured.clone();
        let configured = file.map(|(urls, file)| said(Some(urls), Origin::File(file)));
        let places = [Some(said(self.flag.clone(), Origin::Said("--server"))), of_flag.map(|of| placed(of, false))]
            .into_iter()
            .chain([Some(variable("OARLOCK_SERVER")), Some(variable("NATS_URL"))])
            .chain([Some((self.variables()?, Origin::Nobody)), of_variable.map(|of| placed(of, false)), configured]);
        let (server, origin) = self.merged(places.flatten().collect())?;
        Ok((!matches!(origin, Origin::Nobody)).then_some(Named { server, origin }))
    }

    /// The server of the context that is selected in the `nats` tool, unless that should not count.
    pub(super) fn selected(&self) -> anyhow::Result<Option<Named>> {
        let Some(name) = self.selected_name()? else { return Ok(None) };
        let context = self.contexts.read(&name)?;
        let (server, origin) = self.merged(vec![(self.variables()?, Origin::Nobody), placed(context, true)])?;
        Ok(Some(Named { server, origin }))
    }

    /// The server that is named, or selected, or at the default address.
    pub(super) fn any(&self) -> anyhow::Result<Named> {
        if let Some(named) = self.named()? {
            return Ok(named);
        }
        match self.selected()? {
            Some(named) => Ok(named),
            None => self.default(),
        }
    }

    /// The default address, with the variables' login.
    pub(super) fn default(&self) -> anyhow::Result<Named> {
        let (server, origin) = self.merged(vec![(self.variables()?, Origin::Nobody)])?;
        Ok(Named { server, origin })
    }

    /// The name of the selected context, if it counts.
    pub(super) fn selected_name(&self) -> anyhow::Result<Option<String>> {
        if self.no_context { Ok(None) } else { self.contexts.selected() }
    }

    /// The first address, the first login and the first of everything else that any place tells, in their order.
    fn merged(&self, places: Vec<(Parts, Origin)>) -> anyhow::Result<(Server, Origin)> {
        let mut server = Server { connect_wait: self.connect_wait()?, ..Server::default() };
        let mut named: Option<Origin> = None;
        for (parts, origin) in places {
            let Parts { urls, login, inbox_prefix } = parts;
            // A context without an address stands for the default one.
            let default = matches!(origin, Origin::Context { .. }).then(|| DEFAULT_SERVER.to_owned());
            if let (None, Some(urls)) = (&named, urls.or(default)) {
                (server.urls, named) = (urls, Some(origin));
            }
            server.inbox_prefix = server.inbox_prefix.or(inbox_prefix);
            let known = &mut server.credentials;
            if !has_login(known) {
                let Credentials { user, password, token, creds, nkey, .. } = login;
                *known = Credentials { user, password, token, creds, nkey, ..known.clone() };
            }
            known.ca = known.ca.take().or(login.ca);
            known.certificate = known.certificate.take().or(login.certificate);
            known.tls_first |= login.tls_first;
        }
        if server.urls.is_empty() {
            server.urls = DEFAULT_SERVER.into();
        }
        Ok((server, named.unwrap_or(Origin::Nobody)))
    }

    /// What the variables say about the login.
    fn variables(&self) -> anyhow::Result<Parts> {
        let text = |name| (self.variable)(name);
        let path = |name| text(name).map(PathBuf::from);
        let refused = |why: String| ended(Exit::Usage, why);
        if text("NATS_SOCKS_PROXY").is_some() {
            return Err(refused(
                "NATS_SOCKS_PROXY is set, and Oarlock speaks to NATS without a proxy; unset it".into(),
            ));
        }
        let mut login = Credentials {
            user: text("NATS_USER"),
            password: text("NATS_PASSWORD"),
            token: text("NATS_TOKEN"),
            creds: path("NATS_CREDS").map(Secret::File),
            nkey: path("NATS_NKEY").map(Secret::File),
            ca: path("NATS_CA"),
            ..Credentials::default()
        };
        let pair = (path("NATS_CERT"), path("NATS_KEY"));
        join_certificate(&mut login, pair, ("NATS_CERT", "NATS_KEY")).map_err(refused)?;
        let pair = (text("NATS_JWT"), text("NATS_SEED"));
        join_jwt(&mut login, pair, ("NATS_JWT", "NATS_SEED")).map_err(refused)?;
        Ok(Parts { login, ..Parts::default() })
    }

    fn connect_wait(&self) -> anyhow::Result<Option<Duration>> {
        let Some(text) = (self.variable)("NATS_TIMEOUT") else { return Ok(None) };
        let refused = || {
            let how = "write it like 5s, 500ms or 1m30s";
            ended(Exit::Usage, format!("NATS_TIMEOUT is {text:?}, which is no time from 1ms to 1h; {how}"))
        };
        let wait = duration(text.trim()).ok_or_else(refused)?;
        let sound = !wait.is_zero() && wait <= Duration::from_secs(CONNECT_WAIT_S_MAX);
        sound.then_some(Some(wait)).ok_or_else(refused)
    }
}

impl Named {
    /// Connects; when that fails for a server that a file named, the error says which file, and how to go around it.
    pub(super) async fn connect(&self, root: &Root, name: &str) -> anyhow::Result<Bus> {
        Bus::connect(&self.server, root, name).await.map_err(|error| self.blame(error))
    }

    /// The error, with who named the server.
    pub(super) fn blame(&self, error: BusError) -> anyhow::Error {
        match self.told() {
            Some(told) => anyhow::Error::from(error).context(told),
            None => error.into(),
        }
    }

    /// Who named the server, for whoever looks into it.
    pub(super) fn by(&self) -> String {
        match &self.origin {
            Origin::Said(name) => (*name).to_owned(),
            Origin::File(file) => file.display().to_string(),
            Origin::Context { name, file, selected: true } => {
                format!("the selected nats context {name:?} ({})", file.display())
            }
            Origin::Context { name, file, .. } => format!("the nats context {name:?} ({})", file.display()),
            Origin::Nobody => "nobody, so it is the default address".into(),
        }
    }

    /// Who named the server, when that is a file that the user may not think of.
    pub(super) fn told(&self) -> Option<String> {
        let around = match &self.origin {
            Origin::Context { selected: true, .. } => "; --no-context goes without it",
            Origin::Context { .. } | Origin::File(_) => "",
            Origin::Said(_) | Origin::Nobody => return None,
        };
        Some(format!("the server is named by {}{around}", self.by()))
    }
}

fn placed(context: NatsContext, selected: bool) -> (Parts, Origin) {
    let NatsContext { name, file, parts } = context;
    (parts, Origin::Context { name, file, selected })
}

fn has_login(login: &Credentials) -> bool {
    let Credentials { user, token, creds, nkey, .. } = login;
    user.is_some() || token.is_some() || creds.is_some() || nkey.is_some()
}

/// Reads a time as the `nats` tool writes it: `5s`, `500ms`, `1m30s`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at(number);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, behind) = after.split_at(end);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(value.parse::<f64>().ok()? * seconds).ok()?)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_nats_tool_writes_them() {
        for (text, ms) in [("5s", 5_000), ("500ms", 500), ("1m30s", 90_000), ("1.5h", 5_400_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "5x", "-5s", "5s3", "1e9h", "99999999999999999999h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}

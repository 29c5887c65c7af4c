//! Contexts of the `nats` tool: `$XDG_CONFIG_HOME/nats/context/<name>.json`, and `context.txt` with the name of the selected
//! one. What such a file asks for and Oarlock cannot do is refused by name, never left out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde_json::{Map, Value};

use super::connection::Parts;
use super::exit::{Exit, ended};
use crate::bus::{Credentials, Secret};

/// Bytes of a context's file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Keys that say nothing about the connection.
const COSMETIC: [&str; 4] = ["name", "description", "color_scheme", "jetstream_event_prefix"];
/// Keys that Oarlock cannot follow, each with what to do.
const REFUSED: [(&str, &str); 8] = [
    ("nsc", "write the credentials to a file with `nsc generate creds`, and name it as creds"),
    ("socks_proxy", "Oarlock speaks to NATS without a proxy; reach the server another way"),
    (
        "jetstream_domain",
        "Oarlock uses the JetStream of the server that it is connected to; connect to a server of that domain",
    ),
    ("jetstream_api_prefix", "Oarlock uses the JetStream of its own account; use a login of that account"),
    ("windows_cert_store", "name files as cert, key and ca"),
    ("windows_cert_match", "name files as cert, key and ca"),
    ("windows_cert_match_by", "name files as cert, key and ca"),
    ("windows_ca_certs_match", "name files as cert, key and ca"),
];

/// How a variable of the environment is read.
pub(super) type Variable = fn(&str) -> Option<String>;

/// Where contexts are kept, and what their values may refer to.
pub(super) struct Contexts {
    /// `$XDG_CONFIG_HOME/nats`.
    pub(super) folder: Option<PathBuf>,
    /// Variables that a context may name.
    pub(super) variable: Variable,
}

/// A context that was read.
pub(super) struct NatsContext {
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) parts: Parts,
}

impl Contexts {
    /// The name of the selected context, if one is.
    ///
    /// # Errors
    /// When it cannot be known: a goal must not go elsewhere because of that.
    pub(super) fn selected(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = self.folder.as_ref().map(|folder| folder.join("context.txt")) else { return Ok(None) };
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|name| !name.is_empty())),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => {
                let how = "`nats context select` writes it anew, and --no-context goes without one";
                Err(ended(Exit::Usage, format!("selected nats context ({}): {error}; {how}", file.display())))
            }
        }
    }

    /// Reads a context by its name, or from a file whose name ends in `.json`.
    ///
    /// # Errors
    /// A usage error that names the file, the key and what to do.
    pub(super) fn read(&self, name: &str) -> anyhow::Result<NatsContext> {
        let direct = Path::new(name);
        let file = match name.ends_with(".json") && direct.is_file() {
            true => direct.to_owned(),
            false => self.file_of(name)?,
        };
        let shown = file.display().to_string();
        let refused = |why: String| ended(Exit::Usage, format!("nats context {name:?} ({shown}): {why}"));
        let bytes = std::fs::metadata(&file).map_err(|error| {
            refused(format!("{error}; `nats context ls` lists those that exist, and --no-context goes without one"))
        })?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(refused(format!("it has {} bytes, more than file_bytes_max {FILE_BYTES_MAX}", bytes.len())));
        }
        let text = std::fs::read_to_string(&file).map_err(|error| refused(error.to_string()))?;
        let map: Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
            refused(format!("it is no context in JSON ({error}); save it again with `nats context edit`"))
        })?;
        let parts = self.parts(&map).map_err(refused)?;
        Ok(NatsContext { name: name.to_owned(), file, parts })
    }

    fn file_of(&self, name: &str) -> anyhow::Result<PathBuf> {
        let refused = |why: &str| ended(Exit::Usage, format!("{name:?} is no name of a nats context: {why}"));
        if name.contains(['/', '\\']) || name.contains("..") {
            return Err(refused("it must not hold a slash or \"..\", unless it is a file that ends in .json"));
        }
        let folder = self.folder.as_ref();
        let folder = folder.ok_or_else(|| refused("there is no folder of contexts; set HOME or XDG_CONFIG_HOME"))?;
        Ok(folder.join("context").join(format!("{name}.json")))
    }

    fn parts(&self, map: &Map<String, Value>) -> Result<Parts, String> {
        let mut parts = Parts::default();
        let mut jwt = (None, None);
        let mut certificate = (None, None);
        for (key, value) in map {
            let text = match value {
                Value::Null | Value::Bool(false) => continue,
                Value::String(text) if text.is_empty() => continue,
                Value::Array(all) if all.is_empty() => continue,
                Value::String(text) => text.as_str(),
                _ => "",
            };
            let told = |why: String| format!("{key}: {why}");
            let login = &mut parts.login;
            match key.as_str() {
                "url" => parts.urls = Some(text.to_owned()),
                "user" => login.user = Some(text.to_owned()),
                "password" => login.password = Some(self.literal(text).map_err(told)?),
                "token" => login.token = Some(self.literal(text).map_err(told)?),
                "creds" => login.creds = Some(self.secret(text).map_err(told)?),
                "nkey" => login.nkey = Some(self.secret(text).map_err(told)?),
                "user_jwt" => jwt.0 = Some(self.literal(text).map_err(told)?),
                "user_seed" => jwt.1 = Some(self.literal(text).map_err(told)?),
                "cert" => certificate.0 = Some(self.path(text).map_err(told)?),
                "key" => certificate.1 = Some(self.path(text).map_err(told)?),
                "ca" => login.ca = Some(self.path(text).map_err(told)?),
                "tls_first" => login.tls_first = true,
                "inbox_prefix" => parts.inbox_prefix = Some(text.to_owned()),
                cosmetic if COSMETIC.contains(&cosmetic) => {}
                other => match REFUSED.iter().find(|(known, _)| *known == other) {
                    Some((_, instead)) => {
                        return Err(format!("{other} is set, which Oarlock cannot follow; {instead}"));
                    }
                    None => tracing::warn!("a nats context has the key {other:?}, which this version does not know"),
                },
            }
        }
        join_jwt(&mut parts.login, jwt, ("user_jwt", "user_seed"))?;
        join_certificate(&mut parts.login, certificate, ("cert", "key"))?;
        Ok(parts)
    }

    /// A file's text that may stand in the file itself, in a variable, or elsewhere.
    fn secret(&self, text: &str) -> Result<Secret, String> {
        match self.inline(text)? {
            Some(text) => Ok(Secret::Text(text)),
            None => Ok(Secret::File(self.path(text)?)),
        }
    }

    /// A text as it stands, unless it refers to a variable or a file.
    fn literal(&self, text: &str) -> Result<String, String> {
        if let Some(text) = self.inline(text)? {
            return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        match text.strip_prefix("file://") {
            Some(path) => {
                let path = self.path(path)?;
                let read = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                Ok(read.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => Ok(text.to_owned()),
        }
    }

    fn inline(&self, text: &str) -> Result<Option<String>, String> {
        if let Some(name) = text.strip_prefix("env://") {
            let value = (self.variable)(name);
            return value.map(Some).ok_or_else(|| format!("the variable {name} is not set or empty; set it"));
        }
        if let Some(rest) = text.strip_prefix("data:") {
            let (head, body) = rest.split_once(',').ok_or("the data: reference has no comma")?;
            let bytes = head.ends_with(";base64").then(|| BASE64.decode(body.as_bytes()).ok()).flatten();
            let decoded = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            return decoded.map(Some).ok_or_else(|| "the data: reference holds no text in base64".to_owned());
        }
        for scheme in ["op://", "nsc://"] {
            if text.starts_with(scheme) {
                return Err(format!(
                    "Oarlock does not run other tools for secrets ({scheme}); use a file, env:// or data:"
                ));
            }
        }
        Ok(None)
    }

    /// A file's path, with `~` and variables in it.
    fn path(&self, text: &str) -> Result<PathBuf, String> {
        let text = text.strip_prefix("file://").unwrap_or(text);
        if text.contains("://") || text.starts_with("data:") {
            return Err("it must name a file".into());
        }
        let expanded = self.expand(text);
        match expanded.strip_prefix('~') {
            Some(rest) => {
                let home = (self.variable)("HOME").ok_or("it begins with ~, and HOME is not set")?;
                Ok(PathBuf::from(format!("{home}{rest}")))
            }
            None => Ok(PathBuf::from(expanded)),
        }
    }

    /// `$NAME` and `${NAME}` replaced, by nothing when they are not set: as the `nats` tool does.
    fn expand(&self, text: &str) -> String {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let (name, behind) = braced.unwrap_or_else(|| {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            });
            expanded.push_str(&(self.variable)(name).unwrap_or_default());
            rest = behind;
        }
        expanded + rest
    }
}

/// A user's JWT and seed as one credentials file.
pub(super) fn join_jwt(
    login: &mut Credentials,
    pair: (Option<String>, Option<String>),
    names: (&str, &str),
) -> Result<(), String> {
    let text = match pair {
        (None, None) => return Ok(()),
        (Some(jwt), Some(seed)) => format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt.trim(),
            seed.trim()
        ),
        (Some(_), None) => return Err(format!("{} is set without {}; set both", names.0, names.1)),
        (None, Some(_)) => return Err(format!("{} is set without {}; set both", names.1, names.0)),
    };
    if login.creds.is_none() {
        login.creds = Some(Secret::Text(text));
    }
    Ok(())
}

/// A certificate and its key, or neither.
pub(super) fn join_certificate(
    login: &mut Credentials,
    pair: (Option<PathBuf>, Option<PathBuf>),
    names: (&str, &str),
) -> Result<(), String> {
    login.certificate = match pair {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => return Err(format!("{} is set without {}; set both", names.0, names.1)),
        (None, Some(_)) => return Err(format!("{} is set without {}; set both", names.1, names.0)),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        [("HOME", "/home/u"), ("KEYS", "keys"), ("PASS", "secret")]
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    }

    fn read(json: &Value) -> anyhow::Result<Parts> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("context")).unwrap();
        std::fs::write(folder.path().join("context/c.json"), json.to_string()).unwrap();
        let contexts = Contexts { folder: Some(folder.path().to_owned()), variable };
        contexts.read("c").map(|context| context.parts)
    }

    #[test]
    fn every_key_that_can_be_followed_is() {
        let parts = read(&serde_json::json!({
            "url": "nats://a:1", "user": "u", "password": "env://PASS", "token": "", "creds": "~/x.creds",
            "nkey": "data:;base64,U1VBQg==", "cert": "$KEYS/c.pem", "key": "file:///k.pem", "ca": "${KEYS}/ca.pem",
            "inbox_prefix": "_MINE", "tls_first": true, "color_scheme": "blue", "description": "d", "nsc": "", "later": 1
        }))
        .unwrap();
        let login = parts.login;
        assert_eq!((parts.urls.as_deref(), parts.inbox_prefix.as_deref()), (Some("nats://a:1"), Some("_MINE")));
        assert_eq!(
            (login.user.as_deref(), login.password.as_deref(), &login.token),
            (Some("u"), Some("secret"), &None)
        );
        assert!(matches!(&login.creds, Some(Secret::File(path)) if path == Path::new("/home/u/x.creds")));
        assert!(matches!(&login.nkey, Some(Secret::Text(text)) if text == "SUAB"));
        assert_eq!(login.certificate, Some(("keys/c.pem".into(), "/k.pem".into())));
        assert_eq!((login.ca, login.tls_first), (Some("keys/ca.pem".into()), true));
        let jwt = read(&serde_json::json!({ "user_jwt": "j.w.t", "user_seed": "SUAB" })).unwrap().login.creds;
        assert!(matches!(&jwt, Some(Secret::Text(text)) if text.contains("\nj.w.t\n") && text.contains("\nSUAB\n")));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        for (key, value, says) in [
            ("nsc", "nsc://o/a/u", "nsc generate creds"),
            ("socks_proxy", "socks5://x", "without a proxy"),
            ("jetstream_domain", "hub", "of that domain"),
            ("jetstream_api_prefix", "x.API", "of that account"),
            ("creds", "op://vault/item", "does not run other tools"),
            ("password", "env://NOTHING", "NOTHING is not set"),
            ("ca", "data:;base64,AA==", "must name a file"),
            ("cert", "c.pem", "set without key"),
            ("user_seed", "SUAB", "set without user_jwt"),
        ] {
            let why = read(&serde_json::json!({ key: value })).err().unwrap().to_string();
            assert!(why.contains(says) && why.contains(key) && why.contains("context/c.json"), "{says}: {why}");
        }
    }
}

//! A role is a Markdown file: YAML front matter with its limits and the shape of its answers, and a prompt template.
//!
//! The built-in files are compiled in; a folder can replace any of them, so that a prompt is changed like a document and
//! reviewed like code.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::wire::Role;

/// Bytes of a role file.
const ROLE_FILE_BYTES_MAX: u64 = 256 * 1024;

/// One role's definition.
#[derive(Clone, Debug)]
pub struct RoleDefinition {
    /// The role.
    pub role: Role,
    /// What it does, in one sentence: its system prompt, and what `nats micro info` shows.
    pub description: String,
    /// JSON Schema of its answers; `None` for prose.
    pub output: Option<serde_json::Value>,
    /// The prompt, a minijinja template.
    pub prompt: String,
    /// Its bounds.
    pub limits: RoleLimits,
}

/// A role's bounds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleLimits {
    /// Seconds that one task may take, the queue included.
    pub time_s: u64,
    /// Tasks that one process does at the same time.
    pub slots: usize,
    /// Tokens of one completion.
    #[serde(default = "output_tokens")]
    pub output_tokens: u32,
}

fn output_tokens() -> u32 {
    4096
}

impl RoleLimits {
    /// The time that one task may take.
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.time_s)
    }
}

/// A role file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("role file {file} cannot be used: {why}")]
pub struct RoleError {
    file: String,
    why: String,
}

/// The front matter. `model` names a tier; there is one tier so far, `default`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FrontMatter {
    name: String,
    description: String,
    #[serde(default)]
    model: Option<String>,
    limits: RoleLimits,
    #[serde(default)]
    output: Option<serde_json::Value>,
}

/// The definitions of all roles.
#[derive(Clone, Debug)]
pub struct RoleSet(BTreeMap<Role, RoleDefinition>);

impl RoleSet {
    /// The built-in roles, each replaced by `<name>.md` of `folder` where that exists.
    ///
    /// # Errors
    /// [`RoleError`] names the file and what is wrong with it.
    pub fn load(folder: Option<&Path>) -> Result<Self, RoleError> {
        let mut set = BTreeMap::new();
        for role in Role::ALL {
            let file = folder.map(|folder| folder.join(format!("{role}.md"))).filter(|file| file.exists());
            let definition = match file {
                Some(file) => read(role, &file)?,
                None => parse(role, built_in(role)).map_err(|why| RoleError { file: format!("{role}.md"), why })?,
            };
            set.insert(role, definition);
        }
        Ok(Self(set))
    }

    /// The definition of a role.
    pub fn get(&self, role: Role) -> &RoleDefinition {
        &self.0[&role]
    }
}

fn built_in(role: Role) -> &'static str {
    match role {
        Role::Orchestrator => include_str!("../../roles/orchestrator.md"),
        Role::Planner => include_str!("../../roles/planner.md"),
        Role::Researcher => include_str!("../../roles/researcher.md"),
        Role::Coder => include_str!("../../roles/coder.md"),
        Role::Qa => include_str!("../../roles/qa.md"),
        Role::Reviewer => include_str!("../../roles/reviewer.md"),
        Role::Documenter => include_str!("../../roles/documenter.md"),
        Role::Synthesizer => include_str!("../../roles/synthesizer.md"),
    }
}

fn read(role: Role, file: &Path) -> Result<RoleDefinition, RoleError> {
    let refused = |why: String| RoleError { file: file.display().to_string(), why };
    let bytes = std::fs::metadata(file).map_err(|error| refused(error.to_string()))?.len();
    if bytes > ROLE_FILE_BYTES_MAX {
        return Err(refused(format!("it has {bytes} bytes, more than role_file_bytes_max {ROLE_FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    parse(role, &text).map_err(refused)
}

fn parse(role: Role, text: &str) -> Result<RoleDefinition, String> {
    let text = text.replace("\r\n", "\n");
    let rest = text.strip_prefix("---\n").ok_or("it does not begin with '---' and YAML front matter")?;
    let (head, prompt) = rest.split_once("\n---\n").ok_or("its front matter has no closing '---'")?;
    let matter: FrontMatter = serde_saphyr::from_str(head).map_err(|error| format!("front matter: {error}"))?;
    if matter.name != role.name() {
        return Err(format!("its name is {:?}, not {role:?}", matter.name));
    }
    if let Some(tier) = matter.model.filter(|tier| tier != "default") {
        return Err(format!("its model is {tier:?}; the only tier is \"default\""));
    }
    if matter.limits.slots == 0 || matter.limits.time_s == 0 || matter.limits.output_tokens == 0 {
        return Err("limits must be 1 or more".into());
    }
    super::prompt::check(prompt).map_err(|error| format!("prompt: {error}"))?;
    Ok(RoleDefinition {
        role,
        description: matter.description,
        output: matter.output,
        prompt: prompt.trim().to_owned(),
        limits: matter.limits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_built_in_roles_are_usable() {
        let set = RoleSet::load(None).unwrap();
        for role in Role::ALL {
            assert_eq!(set.get(role).role, role);
            assert!(!set.get(role).description.is_empty());
        }
        assert!(set.get(Role::Coder).output.is_some() && set.get(Role::Synthesizer).output.is_none());
    }

    #[test]
    fn a_bad_file_says_what_is_wrong() {
        let good = built_in(Role::Coder);
        for (text, says) in [
            ("no front matter".to_owned(), "begin with"),
            ("---\nname: coder\n".to_owned(), "closing"),
            (good.replace("name: coder", "name: tester"), "not Coder"),
            (good.replace("slots: 4", "slots: 0"), "1 or more"),
            (good.replace("slots: 4", "slot: 4"), "unknown field"),
            (good.replace("model: default", "model: huge"), "only tier"),
            (good.replace("{% if evidence %}", "{% if %}"), "prompt"),
        ] {
            let why = parse(Role::Coder, &text).unwrap_err();
            assert!(why.contains(says), "{says}: {why}");
        }
    }

    #[test]
    fn a_folder_replaces_single_roles() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("qa.md"), built_in(Role::Qa).replace("time_s: 600", "time_s: 7")).unwrap();
        let set = RoleSet::load(Some(folder.path())).unwrap();
        assert_eq!((set.get(Role::Qa).limits.time_s, set.get(Role::Coder).limits.time_s), (7, 900));
    }
}

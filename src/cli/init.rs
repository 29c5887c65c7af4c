//! `oarlock init`: the files of a project of one's own, each with what is the default, ready to be changed.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::answer::out;
use super::args::InitArgs;
use super::exit::{Exit, ended};
use super::talk::say;
use crate::roles::RoleDefinition;
use crate::wire::Role;

/// The settings, all of them left at their defaults.
const SETTINGS: &str = include_str!("init/oarlock.toml");
/// The repository's own compose file, from which a project's is made.
const COMPOSE: &str = include_str!("../../compose.yaml");
const NATS: &str = include_str!("../../nats.conf");

pub(super) fn init(args: &InitArgs) -> anyhow::Result<()> {
    let folder = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let files = files();
    if !args.force {
        let there: Vec<String> = files
            .iter()
            .map(|(name, _)| folder.join(name))
            .filter(|path| path.symlink_metadata().is_ok())
            .map(|path| path.display().to_string())
            .collect();
        if !there.is_empty() {
            let why = "nothing was written; name another folder, or --force to overwrite";
            return Err(ended(Exit::Conflict, format!("{} exists already: {why}", there.join(", "))));
        }
    }
    let roles = folder.join("roles");
    if roles.is_symlink() {
        let why = "it is a link, which is not followed; nothing was written; remove it, or name another folder";
        return Err(ended(Exit::Conflict, format!("{}: {why}", roles.display())));
    }
    for (name, text) in &files {
        let path = folder.join(name);
        write(&path, text).with_context(|| format!("write {}", path.display()))?;
        out(&path.display().to_string())?;
    }
    let place = match &args.dir {
        Some(dir) => format!("cd {}; ", dir.display()),
        None => String::new(),
    };
    say(&format!("next: {place}oarlock doctor; oarlock run \"…\"   (or docker compose up)"));
    Ok(())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // A link that stands here is replaced, not followed.
    if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
        std::fs::remove_file(path)?;
    }
    std::fs::write(path, text)
}

fn files() -> Vec<(String, String)> {
    let settings = [("oarlock.toml", SETTINGS.to_owned()), ("compose.yaml", compose()), ("nats.conf", NATS.to_owned())];
    let roles = Role::ALL.map(|role| (format!("roles/{role}.md"), RoleDefinition::built_in(role).to_owned()));
    settings.into_iter().map(|(name, text)| (name.to_owned(), text)).chain(roles).collect()
}

/// A project has the image and role files of its own, and nothing to build.
fn compose() -> String {
    COMPOSE
        .replace(
            "# A whole fleet: NATS and one service per role, all from one image.\n",
            "# A whole fleet: NATS and one service per role, all from one image, which Oarlock's own folder builds\n\
             # (docker build -t oarlock:0.1.0 .). The roles are those in roles/.\n",
        )
        .replace("docker compose up --build --scale", "docker compose up --scale")
        .replace("  build: .\n", "")
        .replace("  image: oarlock:0.1.0\n", "  image: oarlock:0.1.0\n  volumes: [\"./roles:/roles:ro\"]\n")
        .replace("    NATS_URL: nats://nats:4222\n", "    NATS_URL: nats://nats:4222\n    OARLOCK_ROLES: /roles\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_s_compose_file_builds_nothing_and_has_its_roles() {
        let text = compose();
        let yaml: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        for role in Role::ALL {
            let service = &yaml["services"][role.name()];
            assert!(service["build"].is_null() && service["image"] == "oarlock:0.1.0", "{service}");
            assert_eq!(service["volumes"][0], "./roles:/roles:ro", "{service}");
            assert_eq!(service["environment"]["OARLOCK_ROLES"], "/roles", "{service}");
        }
        assert!(!text.contains("--build"), "{text}");
    }
}

//! A plan in the person's own editor.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use tempfile::NamedTempFile;

use super::config::Config;
use super::exit::{Exit, ended};
use super::talk::say;
use crate::wire::Plan;

/// The plan as the person leaves it in the editor, checked, and the file that it stands in.
///
/// # Errors
/// When there is no editor, or it fails, or what it left is no plan; then the file is kept, and its place said.
pub(super) fn edited(config: &Config, plan: &Plan) -> anyhow::Result<(Plan, NamedTempFile)> {
    if config.no_input {
        let why = "--edit opens an editor, and --no-input asks nobody; send the plan over oarlock.control instead";
        return Err(ended(Exit::Usage, why));
    }
    opened(config.editor.as_deref(), plan)
}

/// The same where somebody is known to be there.
///
/// # Errors
/// As above.
pub(super) fn opened(editor: Option<&str>, plan: &Plan) -> anyhow::Result<(Plan, NamedTempFile)> {
    let editor =
        editor.ok_or_else(|| ended(Exit::Usage, "--edit needs VISUAL or EDITOR; for example: EDITOR=vi oarlock …"))?;
    let file = tempfile::Builder::new().prefix("oarlock-plan-").suffix(".json").tempfile().context("make a file")?;
    std::fs::write(file.path(), serde_json::to_string_pretty(plan)?).context("write the plan")?;
    match edit(editor, file.path()) {
        Ok(plan) => Ok((plan, file)),
        Err(error) => Err(kept(ended(Exit::Usage, format!("{error:#}")), file)?),
    }
}

/// The same end, and where to find what the person wrote.
pub(super) fn kept(error: anyhow::Error, file: NamedTempFile) -> anyhow::Result<anyhow::Error> {
    say(&place(file)?);
    Ok(error)
}

/// Keeps what the person wrote, and says where.
pub(super) fn place(file: NamedTempFile) -> anyhow::Result<String> {
    let (_, place) = file.keep().context("keep what you wrote")?;
    Ok(format!("what you wrote is in {}", place.display()))
}

/// Runs the editor as a shell would, because EDITOR may carry arguments, and reads what it left.
fn edit(editor: &str, file: &Path) -> anyhow::Result<Plan> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{editor} \"$0\"")).arg(file);
    let status = command.status().context("run the editor")?;
    anyhow::ensure!(status.success(), "the editor ended with {status}, so nothing was changed; try again");
    read_plan(file)
}

fn read_plan(file: &Path) -> anyhow::Result<Plan> {
    let text = std::fs::read_to_string(file).context("read the plan")?;
    let plan: Plan = serde_json::from_str(&text).context("the plan is no plan in JSON")?;
    plan.ordered().map_err(|faults| anyhow::anyhow!("the plan is no plan: {}", faults.join("; ")))
}

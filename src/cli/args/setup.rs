//! Arguments of the verbs that set something up.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct InitArgs {
    /// The project's folder [default: this one]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// Overwrite files that are there
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct CompletionsArgs {
    /// The shell
    pub(in crate::cli) shell: Shell,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct ManArgs {
    /// Folder for the pages of all verbs
    pub(in crate::cli) dir: Option<PathBuf>,
}

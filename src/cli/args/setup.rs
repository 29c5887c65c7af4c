//! Arguments of the verbs that set something up.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct DoctorArgs {
    /// Ask the model one small question as well, the configured one or this: --model=provider/name
    #[arg(long, value_name = "MODEL", num_args = 0..=1, require_equals = true)]
    pub(in crate::cli) model: Option<Option<String>>,
    /// Address of an OpenAI-compatible server, or of the model's provider
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) base_url: Option<String>,
    /// Print JSON
    #[arg(long, short)]
    pub(in crate::cli) json: bool,
}

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

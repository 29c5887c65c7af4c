//! Arguments of the verbs that an operator uses.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{JsonArgs, seconds};

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct DeadArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: DeadVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum DeadVerb {
    /// List them, the oldest first
    Ls(JsonArgs),
    /// Show one whole
    Show {
        /// The run, or <run>/<task> when the run has several
        what: String,
    },
    /// Try it again: its run, or the task alone when it belongs to no run
    Requeue {
        /// The run, or <run>/<task> when the run has several
        what: String,
    },
    /// Forget it
    Drop {
        /// The run, or <run>/<task> when the run has several
        what: String,
    },
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct GcArgs {
    /// Show what would go, and remove nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Runs that ended longer ago than so many seconds [default: the configured retention]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(in crate::cli) older_than: Option<Duration>,
    /// Print JSON
    #[arg(long, short)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct MigrateArgs {
    /// Show what would change, and change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Print JSON
    #[arg(long, short)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct ChaosArgs {
    /// Runs that are given to the fleet
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(in crate::cli) runs: u32,
    /// Seconds of killing; then the fleet may finish
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(in crate::cli) seconds: u64,
    /// Number that decides what happens to whom and when [default: drawn, and printed]
    #[arg(long)]
    pub(in crate::cli) seed: Option<u64>,
    /// Let the server write everything to the disk before it acknowledges it
    #[arg(long)]
    pub(in crate::cli) sync_always: bool,
    /// Print one line of JSON
    #[arg(long, short)]
    pub(in crate::cli) json: bool,
}

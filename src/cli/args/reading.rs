//! Arguments of the verbs that read.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::wire::{FilePath, RunId};

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct JsonArgs {
    /// Print JSON
    #[arg(long, short)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct LsArgs {
    /// Most runs that are listed
    #[arg(long, short = 'n', default_value = "20", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(in crate::cli) limit: u16,
    /// Print JSON
    #[arg(long, short)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct ShowArgs {
    /// The run, or <run>/<task>: its prompts, replies, files, and what changed between its attempts
    pub(in crate::cli) what: String,
    /// One attempt of the task alone
    #[arg(long, value_name = "N")]
    pub(in crate::cli) attempt: Option<u32>,
    /// Print JSON
    #[arg(long, short)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct WatchArgs {
    /// The run; without it, a list to choose from
    pub(in crate::cli) run: Option<RunId>,
    /// Print one frame as text, and end
    #[arg(long)]
    pub(in crate::cli) once: bool,
    /// Columns of that frame [default: the terminal's, or 100]
    #[arg(long, value_name = "COLUMNS", requires = "once", value_parser = clap::value_parser!(u16).range(20..=500))]
    pub(in crate::cli) width: Option<u16>,
    /// Lines of that frame [default: the terminal's, or 30]
    #[arg(long, value_name = "LINES", requires = "once", value_parser = clap::value_parser!(u16).range(6..=500))]
    pub(in crate::cli) height: Option<u16>,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct LogsArgs {
    /// The run
    pub(in crate::cli) run: RunId,
    /// Go on until the run is over
    #[arg(long, short)]
    pub(in crate::cli) follow: bool,
    /// Print one JSON object a line
    #[arg(long, short)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct HistoryArgs {
    /// The run
    pub(in crate::cli) run: RunId,
    /// Print one JSON object a line
    #[arg(long, short)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct ArtifactsArgs {
    /// The run, or <run>/<task> for what one task wrote
    pub(in crate::cli) what: String,
    /// One file alone; printed, unless -o names a folder
    pub(in crate::cli) name: Option<FilePath>,
    /// Write the files into this folder; "-" prints one file
    #[arg(long, short, value_name = "DIR")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Replace files of other content that are there already
    #[arg(long, requires = "out")]
    pub(in crate::cli) force: bool,
    /// Print the list as JSON
    #[arg(long, short, conflicts_with = "out")]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct StateArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: StateVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum StateVerb {
    /// Print one value, or all of a run, as JSON
    Get {
        /// The run
        run: RunId,
        /// The name; all without it
        name: Option<String>,
        /// Print the revision with each value
        #[arg(long, short)]
        json: bool,
    },
    /// Set one value
    Set {
        /// The run
        run: RunId,
        /// The name
        name: String,
        /// The value, as JSON; anything else is taken as text
        value: String,
        /// Only if the value is at this revision; 0: only if it is not there
        #[arg(long, value_name = "REVISION")]
        expect: Option<u64>,
    },
    /// Change several values together: name=value sets, name+=number adds
    Update {
        /// The run
        run: RunId,
        /// The changes
        #[arg(required = true)]
        changes: Vec<String>,
        /// Only if the newest of these values is at this revision; 0: only if none of them is there
        #[arg(long, value_name = "REVISION")]
        expect: Option<u64>,
    },
    /// Print the values that are there, then each change, until the run is over or Ctrl-C; of changes that follow each other
    /// faster than they can be read, the last
    Watch {
        /// The run
        run: RunId,
        /// Only what changes from now on
        #[arg(long)]
        new: bool,
        /// Print one JSON object a line
        #[arg(long, short)]
        json: bool,
    },
}

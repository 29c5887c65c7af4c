//! The command line.

mod people;
mod reading;
mod setup;
mod upkeep;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(in crate::cli) use self::people::{
    AnswerArgs, ApproveArgs, GateArgs, HoldArgs, InboxArgs, NoteArgs, RejectArgs, WhoArgs,
};
pub(in crate::cli) use self::reading::{
    ArtifactsArgs, HistoryArgs, JsonArgs, LogsArgs, LsArgs, ShowArgs, StateArgs, StateVerb, WatchArgs,
};
pub(in crate::cli) use self::setup::{CompletionsArgs, DoctorArgs, InitArgs, ManArgs};
pub(in crate::cli) use self::upkeep::{ChaosArgs, DeadArgs, DeadVerb, GcArgs, MigrateArgs};
use crate::wire::{Budget, Role, RunId, TaskId, Tenant};

/// A fleet of LLM agents on NATS: a goal in plain words becomes finished, checked work.
#[derive(Debug, Parser)]
#[command(name = "oarlock", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(in crate::cli) struct Cli {
    #[command(flatten)]
    pub(in crate::cli) global: Global,
    #[command(subcommand)]
    pub(in crate::cli) command: Verb,
}

const AFTER_HELP: &str = "\
Configuration: flags, then OARLOCK_* variables, then ./oarlock.toml, then $XDG_CONFIG_HOME/oarlock/config.toml.
Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 not permitted, 5 conflict, 7 timeout, 8 NATS unreachable, 9 budget spent, 130 Ctrl-C.
Try it without a model or a server: oarlock demo";

/// One role of the fleet, as a service: the same as `oarlock worker <role>`.
#[derive(Debug, Parser)]
#[command(version)]
pub(in crate::cli) struct RoleCli {
    #[command(flatten)]
    pub(in crate::cli) global: Global,
    #[command(flatten)]
    pub(in crate::cli) worker: WorkerArgs,
}

/// The parser as a value.
pub(in crate::cli) struct Command;

impl Command {
    pub(in crate::cli) fn of_tool() -> clap::Command {
        Cli::command()
    }
}

/// Reads the command line; help and errors are coloured as `--color` says.
pub(in crate::cli) fn parse<T: CommandFactory + FromArgMatches>() -> T {
    let mut words = std::env::args().skip_while(|word| word != "--color" && !word.starts_with("--color="));
    let word = words.next().and_then(|word| word.strip_prefix("--color=").map(str::to_owned).or_else(|| words.next()));
    let choice = word.and_then(|word| ColorChoice::from_str(&word, true).ok()).unwrap_or_default();
    let matches = T::command().color(choice).get_matches();
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct Global {
    /// NATS server, or several separated by commas [env: OARLOCK_SERVER, NATS_URL]
    #[arg(short, long, global = true, value_name = "URL")]
    pub(in crate::cli) server: Option<String>,
    /// Context of the `nats` tool: its server and login [env: NATS_CONTEXT] [default: the selected one]
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "no_context")]
    pub(in crate::cli) context: Option<String>,
    /// Go without a context of the `nats` tool, also the selected one
    #[arg(long, global = true)]
    pub(in crate::cli) no_context: bool,
    /// First token of all subjects and names [env: OARLOCK_ROOT] [default: oarlock]
    #[arg(long, global = true)]
    pub(in crate::cli) root: Option<String>,
    /// Configuration file instead of ./oarlock.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// Say more on standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(in crate::cli) verbose: u8,
    /// No progress and no talk on standard error, errors alone
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(in crate::cli) quiet: bool,
    /// When to print colours; NO_COLOR and CLICOLOR_FORCE are followed
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(in crate::cli) color: ColorChoice,
    /// Ask nothing: what would be a question takes its default or fails, and names the flag that answers it
    #[arg(long, global = true)]
    pub(in crate::cli) no_input: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// Give the fleet a goal and wait for the answer; starts a fleet of its own when there is none
    Run(RunArgs),
    /// See the fleet work on a recorded goal: only the model's replies are recorded, everything else is real
    Demo(DemoArgs),
    /// Start a server and all roles on this machine, and keep them running
    Up(UpArgs),
    /// Serve one role
    Worker(WorkerVerb),
    /// Show who serves which role, and what waits
    Ps(JsonArgs),
    /// List the runs that are kept, the newest first
    Ls(LsArgs),
    /// Show a run with its whole story, or one task of it: <run> or <run>/<task>
    Show(ShowArgs),
    /// Watch a run live, or choose one: plan, times, tokens, messages; press ? for the keys
    Watch(WatchArgs),
    /// Print what happened in a run, from its beginning
    Logs(LogsArgs),
    /// List every exchange of a run: who said what to whom
    History(HistoryArgs),
    /// List the files of a run, or get them
    Artifacts(ArtifactsArgs),
    /// Stop a run, or one task of it: <run> or <run>/<task>
    Cancel(CancelArgs),
    /// List what waits for a person, in one run or in all
    Inbox(InboxArgs),
    /// Approve what waits: <run>, or <run>/<item>
    Approve(ApproveArgs),
    /// Reject what waits, with the reason for its next attempt: <run>, or <run>/<item>
    Reject(RejectArgs),
    /// Answer what a task asks you: <run>, or <run>/<item>
    Answer(AnswerArgs),
    /// Tell a run something: every task that begins from now on knows it
    Note(NoteArgs),
    /// Let a run begin nothing new; what is under way goes on
    Pause(HoldArgs),
    /// Let a paused run go on
    Resume(HoldArgs),
    /// Try a run again that is over: what is done stays, the rest is done again
    Retry(RetryArgs),
    /// Read and change the shared state of a run
    State(StateArgs),
    /// Look at tasks that killed their workers, and put them on their queues again or drop them
    Dead(DeadArgs),
    /// Remove finished runs whose retention is over
    Gc(GcArgs),
    /// Bring the streams, buckets and consumers of an older version to this one's settings
    Migrate(MigrateArgs),
    /// Kill workers, orchestrators and the server of a private fleet at random, and show that nothing is lost; it never touches
    /// another server
    Chaos(ChaosArgs),
    /// Check what a fleet needs, each line with its fix
    Doctor(DoctorArgs),
    /// Write a project's files: settings, roles, a compose file
    Init(InitArgs),
    /// Print the completions of a shell; for bash: source <(oarlock completions bash)
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each verb into a folder
    Man(ManArgs),
}

#[derive(Args, Clone, Debug, Default)]
pub(in crate::cli) struct ModelArgs {
    /// Model: provider/name (openai, anthropic, gemini, ollama), or a name with --base-url [env: OARLOCK_MODEL]
    #[arg(long, value_name = "MODEL")]
    pub(in crate::cli) model: Option<String>,
    /// Address of an OpenAI-compatible server, or of the provider in --model [env: OARLOCK_BASE_URL]
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) base_url: Option<String>,
    /// Answer from a script of recorded replies instead of a model
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "base_url"])]
    pub(in crate::cli) script: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct RunArgs {
    /// The goal, in plain words; "-" reads it from standard input
    #[arg(required_unless_present = "file")]
    pub(in crate::cli) goal: Option<String>,
    /// Read the goal from a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "goal")]
    pub(in crate::cli) file: Option<PathBuf>,
    /// Give the fleet files or directories to work on; put the goal first, or -- before it
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(in crate::cli) attach: Vec<PathBuf>,
    /// Folder for the files of the result [default: oarlock-out/<run>]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Print the run's id and leave it to the fleet
    #[arg(long)]
    pub(in crate::cli) detach: bool,
    /// Print the whole reply as JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Give up waiting after so many seconds; the run goes on
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(in crate::cli) timeout: Option<Duration>,
    /// What the run may spend, at most what the fleet allows: tokens=200000,usd=2.5,time_s=600,tasks=10,depth=4,exchanges=40
    #[arg(long, value_name = "BOUNDS", default_value = "", hide_default_value = true)]
    pub(in crate::cli) budget: Budget,
    /// On whose account the run is; nobody checks it [env: OARLOCK_TENANT] [default: default]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) tenant: Option<Tenant>,
    #[command(flatten)]
    pub(in crate::cli) gates: GateArgs,
    /// What Ctrl-C does to the run [default: ask on a terminal, else detach]
    #[arg(long, value_name = "WHAT")]
    pub(in crate::cli) on_interrupt: Option<OnInterrupt>,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
}

/// What Ctrl-C does to a run that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum OnInterrupt {
    /// Ask the person at the terminal
    Ask,
    /// Leave the run to the fleet
    Detach,
    /// Cancel the run
    Cancel,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct CancelArgs {
    /// The run, or <run>/<task>
    pub(in crate::cli) what: String,
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
    /// Do not wait until the workers have stopped
    #[arg(long)]
    pub(in crate::cli) kill: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct RetryArgs {
    /// The run
    pub(in crate::cli) run: RunId,
    /// Do this task again, and whatever builds on it: a task's id, plan, or answer
    #[arg(long, value_name = "TASK")]
    pub(in crate::cli) from: Option<TaskId>,
    /// Change the plan first, in $VISUAL or $EDITOR
    #[arg(long)]
    pub(in crate::cli) edit: bool,
    /// Leave it to the fleet
    #[arg(long)]
    pub(in crate::cli) detach: bool,
    /// Folder for the files of the result [default: oarlock-out/<run>]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Print the whole reply as JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Give up waiting after so many seconds; the run goes on
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(in crate::cli) timeout: Option<Duration>,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct DemoArgs {
    /// Which recorded goal
    #[arg(default_value = "fibonacci")]
    pub(in crate::cli) which: DemoName,
    /// Folder for the files of the result [default: oarlock-out/<run>]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Print the whole reply as JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum DemoName {
    /// "Write a function to calculate fibonacci": six tasks, all pass
    Fibonacci,
    /// A todo REST API: several files, a first failure, a rework
    Todo,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct UpArgs {
    /// How many processes of a role: coder=2; may be repeated [default: one of each]
    #[arg(long = "role", value_name = "ROLE=N", value_parser = role_count)]
    pub(in crate::cli) roles: Vec<(Role, usize)>,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct WorkerVerb {
    /// The role to serve
    pub(in crate::cli) role: Role,
    #[command(flatten)]
    pub(in crate::cli) worker: WorkerArgs,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct WorkerArgs {
    /// Tasks done at the same time [default: the role's]
    #[arg(long, value_name = "N")]
    pub(in crate::cli) slots: Option<usize>,
    /// Seconds that work in hand may take after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub(in crate::cli) grace: Duration,
    /// End when standard input closes
    #[arg(long, hide = true)]
    pub(in crate::cli) with_parent: bool,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn role_count(text: &str) -> Result<(Role, usize), String> {
    const COUNT_MAX: usize = 64;
    let (role, count) = text.split_once('=').ok_or("write it as role=number, for example coder=2")?;
    let role = role.parse::<Role>().map_err(|error| error.to_string())?;
    match count.parse() {
        Ok(count) if count <= COUNT_MAX => Ok((role, count)),
        _ => Err(format!("{count:?} must be a number from 0 to {COUNT_MAX}")),
    }
}

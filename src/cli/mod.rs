//! Floor 7: the user's tool, and what the role binaries are.
//!
//! The only room that reads the environment and the only one that prints. The answer of a command goes to standard output
//! and nothing else does; progress and talk go to standard error.

mod answer;
mod args;
mod artifacts;
mod asking;
mod attach;
mod budgets;
mod canary;
mod cancel;
mod chaos;
mod config;
mod connection;
mod context;
mod control;
mod dead;
mod demo;
mod doctor;
mod edit;
mod exit;
mod files;
mod fleet;
mod history;
mod init;
mod interrupt;
mod logging;
mod logs;
mod ls;
mod mcp;
mod models;
mod people;
mod progress;
mod ps;
mod questions;
mod retry;
mod run;
mod shell;
mod show;
mod show_task;
mod state;
mod state_watch;
mod story;
mod talk;
mod typed;
mod up;
mod upkeep;
mod watch;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use self::args::{Cli, Command, RoleCli, Verb};
use self::config::Config;
use crate::wire::Role;

/// First argument that makes any of our executables the sandbox's helper.
const HELPER_VERB: &str = "sandbox-exec";
/// First argument that makes any of our executables the keeper of a tool server.
const KEEPER_VERB: &str = "tool-server";

/// The user's tool.
pub fn main() -> ExitCode {
    if let Some(code) = as_helper() {
        return code;
    }
    let cli: Cli = args::parse();
    let screen = matches!(&cli.command, Verb::Watch(args) if !args.once);
    logging::start(&cli.global, matches!(cli.command, Verb::Worker(_)), screen);
    talk::set(&cli.global);
    enter(dispatch(cli))
}

/// A role's own binary: the same as `oarlock worker <role>`.
pub fn role_main(role: Role) -> ExitCode {
    if let Some(code) = as_helper() {
        return code;
    }
    let cli: RoleCli = args::parse();
    logging::start(&cli.global, true, false);
    talk::set(&cli.global);
    enter(async move {
        let config = Config::load(&cli.global)?;
        worker::serve(&config, role, &cli.worker).await
    })
}

fn as_helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first: OsString = arguments.next()?;
    match first.to_str() {
        Some(HELPER_VERB) => Some(crate::sandbox::helper_main(arguments)),
        Some(KEEPER_VERB) => Some(crate::tools::keeper_main(arguments)),
        _ => None,
    }
}

/// Runs a command on a runtime of two threads: one for the work, one for the heartbeat beside it. All heavy work is in
/// other processes, and every thread costs memory in each of them.
fn enter(command: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match built {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<()> {
    // These need no settings, and must work with broken ones.
    match &cli.command {
        Verb::Init(args) => return init::init(args),
        Verb::Completions(args) => return shell::completions(args.shell),
        Verb::Man(args) => return shell::man(args.dir.as_deref()),
        _ => {}
    }
    let config = Config::load(&cli.global)?;
    match cli.command {
        Verb::Run(args) => run::run(&config, args).await,
        Verb::Demo(args) => demo::demo(&config, args).await,
        Verb::Up(args) => up::up(&config, args).await,
        Verb::Worker(args) => worker::serve(&config, args.role, &args.worker).await,
        Verb::Ps(args) => ps::ps(&config, args).await,
        Verb::Ls(args) => ls::ls(&config, args).await,
        Verb::Show(args) => show::show(&config, args).await,
        Verb::Watch(args) => watch::watch(&config, args).await,
        Verb::Logs(args) => logs::logs(&config, args).await,
        Verb::History(args) => history::history(&config, args).await,
        Verb::Artifacts(args) => artifacts::artifacts(&config, args).await,
        Verb::Cancel(args) => cancel::cancel(&config, args).await,
        Verb::Inbox(args) => people::inbox(&config, args).await,
        Verb::Approve(args) => people::approve(&config, args).await,
        Verb::Reject(args) => people::reject(&config, args).await,
        Verb::Answer(args) => questions::answer(&config, args).await,
        Verb::Note(args) => people::note(&config, args).await,
        Verb::Pause(args) => people::hold(&config, args, "pause").await,
        Verb::Resume(args) => people::hold(&config, args, "resume").await,
        Verb::Retry(args) => retry::retry(&config, args).await,
        Verb::State(args) => state::state(&config, args).await,
        Verb::Dead(args) => dead::dead(&config, args).await,
        Verb::Gc(args) => upkeep::gc(&config, args).await,
        Verb::Migrate(args) => upkeep::migrate(&config, args).await,
        Verb::Chaos(args) => chaos::chaos(&config, args).await,
        Verb::Doctor(args) => doctor::doctor(&config, args).await,
        Verb::Init(_) | Verb::Completions(_) | Verb::Man(_) => Ok(()),
    }
}

/// The parser, for checks of the documentation.
pub fn command() -> clap::Command {
    Command::of_tool()
}

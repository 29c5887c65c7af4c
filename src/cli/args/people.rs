//! Arguments of the verbs by which people steer a run.

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::seconds;
use crate::wire::{Approve, Gates, Otherwise, RunId, limits};

/// What `--help` calls these flags.
const HEADING: &str = "What waits for people";

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct GateArgs {
    /// What waits for a person before the run goes on: nothing, the plan, or the plan and every result
    #[arg(long, help_heading = HEADING, value_name = "WHAT", default_value = "none",
        value_parser = PossibleValuesParser::new(["none", "plan", "all"]).try_map(|word| word_of::<Approve>(&word)))]
    pub(in crate::cli) approve: Approve,
    /// How many people must say the same
    #[arg(long, help_heading = HEADING, value_name = "N", default_value = "1")]
    pub(in crate::cli) quorum: u32,
    /// Seconds after which the default stands [default: a week]
    #[arg(long, help_heading = HEADING, value_name = "SECONDS", value_parser = seconds)]
    pub(in crate::cli) approve_within: Option<Duration>,
    /// What stands when nobody decided in time: reject ends the run
    #[arg(long, help_heading = HEADING, value_name = "WHAT", default_value = "reject",
        value_parser = PossibleValuesParser::new(["reject", "approve"]).try_map(|word| word_of::<Otherwise>(&word)))]
    pub(in crate::cli) approve_default: Otherwise,
    /// Agents may ask you: answer with `oarlock answer`; --approve-within and --approve-default hold for questions too
    #[arg(long)]
    pub(in crate::cli) ask: bool,
}

fn word_of<T: serde::de::DeserializeOwned>(word: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(word.into())
}

impl GateArgs {
    /// What the goal says about people.
    ///
    /// # Errors
    /// The bound that is broken.
    pub(in crate::cli) fn gates(&self) -> Result<Gates, String> {
        let within_s = self.approve_within.map_or(limits::APPROVE_WITHIN_S, |time| time.as_secs());
        let (approve, quorum, default, ask) = (self.approve, self.quorum, self.approve_default, self.ask);
        let gates = Gates { approve, quorum, within_s, default, ask };
        gates.check().map(|()| gates)
    }
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct InboxArgs {
    /// The run; without it, all that go on
    pub(in crate::cli) run: Option<RunId>,
    /// Print JSON
    #[arg(long, short)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct WhoArgs {
    /// Who says it; nobody checks it [default: $USER]
    #[arg(long = "as", value_name = "NAME")]
    pub(in crate::cli) who: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct ApproveArgs {
    /// The run, or <run>/<item> when several things of it wait
    pub(in crate::cli) what: String,
    /// Change the plan first, in $VISUAL or $EDITOR; the changed one is the plan then
    #[arg(long)]
    pub(in crate::cli) edit: bool,
    #[command(flatten)]
    pub(in crate::cli) who: WhoArgs,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct RejectArgs {
    /// The run, or <run>/<item> when several things of it wait
    pub(in crate::cli) what: String,
    /// Why; the next attempt is told
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: String,
    #[command(flatten)]
    pub(in crate::cli) who: WhoArgs,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct AnswerArgs {
    /// The run, or <run>/<item> when several questions of it wait
    pub(in crate::cli) what: String,
    /// The answer; the task that asked goes on with it
    pub(in crate::cli) text: String,
    #[command(flatten)]
    pub(in crate::cli) who: WhoArgs,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct NoteArgs {
    /// The run
    pub(in crate::cli) run: RunId,
    /// What its tasks should know from now on
    pub(in crate::cli) text: String,
    #[command(flatten)]
    pub(in crate::cli) who: WhoArgs,
}

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct HoldArgs {
    /// The run
    pub(in crate::cli) run: RunId,
    #[command(flatten)]
    pub(in crate::cli) who: WhoArgs,
}

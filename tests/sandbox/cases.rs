//! What is expected of every file of the corpus, in the order of the file names.

use std::time::Duration;

use oarlock::sandbox::{Limits, Outcome, TestRun, Tier};

const MIB: u64 = 1024 * 1024;

/// Well before the usual wall limit.
const EARLY: Duration = Duration::from_secs(45);

/// What a hostile file does.
pub enum Hostile {
    /// Passes its own test when it reached what it wanted.
    Reaches,
    /// The same, but not every machine lets it even without a sandbox.
    MayReach,
    /// The same for something that exists only in a run, so that tier off shows that it works.
    ReachesInside,
    /// Uses too much; must end in one of these.
    Exhausts(&'static [Outcome], fn(&mut Limits)),
    /// Leaves something behind; its own verdict does not matter, only what is left.
    Leaves,
    /// Wants a pass that it did not earn; must end in one of these.
    Forges(&'static [Outcome]),
}

impl Hostile {
    pub fn limits(&self) -> Limits {
        let mut limits = usual_limits();
        limits.output_bytes_max = 8 * MIB;
        if let Hostile::Exhausts(_, adjust) = self {
            adjust(&mut limits);
        }
        limits
    }

    pub fn allows(&self, run: &TestRun) -> bool {
        match self {
            Hostile::ReachesInside if run.tier == Tier::Off => run.outcome == Outcome::Passed,
            // The attack was really tried, and it failed.
            Hostile::Reaches | Hostile::MayReach | Hostile::ReachesInside => {
                run.outcome == Outcome::Failed && run.failures == 1
            }
            // The very limit that is tested ended it, not the wall limit at last.
            Hostile::Exhausts(outcomes, _) => outcomes.contains(&run.outcome) && run.wall < EARLY,
            Hostile::Forges(outcomes) => outcomes.contains(&run.outcome),
            Hostile::Leaves => run.wall < EARLY,
        }
    }
}

/// What an honest file comes to.
pub struct Honest {
    pub outcome: Outcome,
    pub limited_in_landlock: bool,
}

pub fn usual_limits() -> Limits {
    Limits { wall: Duration::from_secs(60), ..Limits::default() }
}

use Hostile::{Exhausts, Forges, Leaves, MayReach, Reaches, ReachesInside};
use Outcome::{Failed, Inconclusive, Killed, Memory, OutputFlood, Passed, Timeout};

pub const HOSTILE: &[(&str, Hostile)] = &[
    ("all_skipped", Forges(&[Inconclusive])),
    ("change_mode_outside", Reaches),
    ("change_source", ReachesInside),
    ("clone_namespace", MayReach),
    ("connect_abstract", Reaches),
    ("connect_tcp", Reaches),
    ("connect_unix", Reaches),
    ("daemon_holding_output", Leaves),
    ("daemon_new_session", Leaves),
    ("deep_directories", Leaves),
    ("deselected", Forges(&[Inconclusive])),
    ("disk_deleted", Exhausts(&[Failed, Killed], |limits| limits.disk_bytes = 32 * MIB)),
    ("disk_many", Exhausts(&[Failed, Killed], |limits| limits.disk_bytes = 32 * MIB)),
    ("disk_one", Exhausts(&[Failed, Killed], |_| ())),
    ("exit_in_conftest", Forges(&[Inconclusive])),
    ("exit_zero", Forges(&[Inconclusive])),
    ("fork_bomb", Exhausts(&[Failed, Killed], |_| ())),
    ("fork_chain", Leaves),
    ("hidden_by_options", Forges(&[Failed])),
    ("hide_memory", Reaches),
    ("infinite_loop", Exhausts(&[Timeout], |limits| limits.cpu_s = 1)),
    ("infinite_sleep", Exhausts(&[Timeout], |limits| limits.wall = Duration::from_millis(1500))),
    ("limit_process", Reaches),
    ("many_files", Exhausts(&[Killed], |_| ())),
    ("memory_many", Exhausts(&[Memory], |limits| limits.memory_bytes = 256 * MIB)),
    ("memory_one", Exhausts(&[Failed], |_| ())),
    ("nest_namespace", MayReach),
    ("no_tests", Forges(&[Inconclusive])),
    ("open_io_uring", MayReach),
    ("open_vsock", MayReach),
    ("output_flood", Exhausts(&[OutputFlood, Failed, Killed], |_| ())),
    ("output_flood_to_terminal", Exhausts(&[OutputFlood], |_| ())),
    ("processor_many", Exhausts(&[Timeout], |limits| limits.cpu_s = 2)),
    ("read_any_process_environment", Reaches),
    ("read_descriptor", Reaches),
    ("read_environment", Reaches),
    ("read_hard_link", Reaches),
    ("read_process_environment", Reaches),
    ("read_process_root", Reaches),
    ("read_secret", Reaches),
    ("read_ssh_key", Reaches),
    ("read_through_link", Reaches),
    ("remove_outside", Reaches),
    ("report_flood", Forges(&[Inconclusive])),
    ("report_link", Forges(&[Failed, Inconclusive])),
    ("send_udp", Reaches),
    ("send_unix_datagram", Reaches),
    ("set_attribute_outside", MayReach),
    ("signal_parent", Leaves),
    ("signal_process", Reaches),
    ("thread_bomb", Exhausts(&[Failed, Killed], |_| ())),
    ("truncate_outside", Reaches),
    ("use_keyring", MayReach),
    ("watch_outside", Reaches),
    ("write_new_file", Reaches),
    ("write_outside", Reaches),
    ("write_through_link", Reaches),
];

const fn ends(outcome: Outcome) -> Honest {
    Honest { outcome, limited_in_landlock: false }
}

const LIMITED: Honest = Honest { outcome: Passed, limited_in_landlock: true };

pub const HONEST: &[(&str, Honest)] = &[
    ("asynchronous", ends(Passed)),
    ("broken", ends(Failed)),
    ("database", ends(Passed)),
    ("failing", ends(Failed)),
    ("files", ends(Passed)),
    ("local_server", LIMITED),
    ("new_session", LIMITED),
    ("package", ends(Passed)),
    ("plain", ends(Passed)),
    ("processes", LIMITED),
    ("subprocesses", ends(Passed)),
    ("threads", ends(Passed)),
];

//! Which step is struck in which tale. `TABLE` is what the tests play; a step that is missing in it fails
//! `every_step_is_played`.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures::FutureExt;
use futures::future::join_all;
use oarlock::bus::Point;
use oarlock::bus::failpoint::{Fault, Side};
use tokio::sync::Semaphore;

use crate::picture::Picture;
use crate::{doors, expire, holder, shared, worker};

/// Cases that run at the same time, each with a server and some processes of its own.
static PLACES: Semaphore = Semaphore::const_new(12);
/// Places of a case that runs pytest: many of these starve their workers beyond `ack_wait`, and then a task is rightly begun
/// once more than is counted here.
const PYTEST_PLACES: u32 = 3;

/// What happens around the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tale {
    /// A run of three tasks, its holder struck.
    Normal,
    /// The same, with another orchestrator there from the start.
    Beside,
    /// A check finds faults once.
    Rework,
    /// A task fails for good while another one is under way.
    Failing,
    /// Nobody serves a role, and its time is over.
    Timeout,
    /// A task fails once and is tried again after a pause.
    Pause,
    /// The plan waits for a person, nobody answers, and the default is to approve it.
    Gate,
    /// A task asks one that is not there, and then a person, who does not answer; the default is that it decides alone.
    Asking,
    /// The holder is told to stop in the middle.
    Drain,
    /// The one who takes over is struck too.
    Takeover,
    /// A run that killed too many holders is given up.
    GivenUp,
    /// A goal comes to a door.
    Submit,
    /// A failed run is tried again.
    Retry,
    /// A failed run is tried again, and a task of it fails once more and is tried again after a pause.
    Generations,
    /// A run is canceled in the middle.
    Cancel,
    /// A person approves the plan of a parked run.
    Answer,
    /// A finished run is removed.
    Expire,
    /// A coder's task.
    Coder,
    /// A qa's task.
    Qa,
    /// A worker is told to stop, and hands its task back.
    HandBack,
    /// A task that killed its workers.
    Poison,
    /// Shared state.
    Shared,
    /// A reply proposes changes of shared state, and the holder is struck as it makes them.
    Proposing,
}

/// A step, the how-manieth time that the struck process reaches it, and the tale.
const TABLE: &[(Point, u32, Tale)] = &[
    (Point::Claim, 1, Tale::Normal),
    // What the run takes of its tenant's day, and what it gives back at its end: the sum each time, and then its part.
    (Point::Spend, 1, Tale::Normal),
    (Point::Spend, 2, Tale::Normal),
    (Point::Spend, 3, Tale::Normal),
    (Point::Spend, 4, Tale::Normal),
    (Point::History, 1, Tale::Normal),
    (Point::Dispatch, 1, Tale::Normal),
    (Point::Later, 1, Tale::Normal),
    (Point::Plan, 1, Tale::Normal),
    (Point::Adopt, 1, Tale::Normal),
    // The researcher's and the documenter's request and task: the run is half done.
    (Point::History, 3, Tale::Normal),
    (Point::Dispatch, 3, Tale::Normal),
    (Point::Result, 1, Tale::Normal),
    (Point::End, 1, Tale::Normal),
    (Point::Ack, 1, Tale::Normal),
    (Point::Claim, 1, Tale::Beside),
    (Point::Dispatch, 1, Tale::Beside),
    (Point::Result, 1, Tale::Beside),
    (Point::History, 4, Tale::Rework),
    (Point::Dispatch, 4, Tale::Rework),
    (Point::Result, 1, Tale::Failing),
    (Point::Cancel, 1, Tale::Failing),
    (Point::End, 1, Tale::Failing),
    (Point::Late, 1, Tale::Timeout),
    (Point::Later, 2, Tale::Pause),
    (Point::Due, 1, Tale::Pause),
    (Point::Later, 2, Tale::Gate),
    (Point::Park, 1, Tale::Gate),
    (Point::Ack, 1, Tale::Gate),
    // Half of the time is over, and then all of it.
    (Point::Input, 1, Tale::Gate),
    (Point::Park, 2, Tale::Gate),
    (Point::Input, 2, Tale::Gate),
    (Point::Refuse, 1, Tale::Asking),
    // The question to the person, which is a message and no task.
    (Point::History, 4, Tale::Asking),
    (Point::Park, 1, Tale::Asking),
    (Point::Input, 2, Tale::Asking),
    (Point::Release, 1, Tale::Drain),
    (Point::Nak, 1, Tale::Drain),
    (Point::Over, 1, Tale::Takeover),
    (Point::Claim, 1, Tale::Takeover),
    (Point::Dead, 1, Tale::GivenUp),
    (Point::Result, 1, Tale::GivenUp),
    (Point::Blob, 1, Tale::Submit),
    (Point::Goal, 1, Tale::Submit),
    (Point::Record, 1, Tale::Submit),
    (Point::Start, 1, Tale::Submit),
    (Point::Retry, 1, Tale::Retry),
    // The first start is that of the first generation.
    (Point::Start, 2, Tale::Retry),
    (Point::Cancel, 1, Tale::Cancel),
    (Point::Start, 2, Tale::Cancel),
    (Point::End, 1, Tale::Cancel),
    (Point::Input, 1, Tale::Answer),
    // The wake; the first start is that of the goal.
    (Point::Start, 2, Tale::Answer),
    (Point::Expire, 1, Tale::Expire),
    (Point::Blob, 1, Tale::Coder),
    (Point::Reply, 1, Tale::Coder),
    (Point::Ack, 1, Tale::Coder),
    (Point::Blob, 1, Tale::Qa),
    (Point::Reply, 1, Tale::Qa),
    (Point::Ack, 1, Tale::Qa),
    (Point::Nak, 1, Tale::HandBack),
    (Point::Dead, 1, Tale::Poison),
    (Point::Reply, 1, Tale::Poison),
    (Point::State, 1, Tale::Shared),
    (Point::Decide, 1, Tale::Proposing),
    // The documenter's, which shows the state.
    (Point::History, 3, Tale::Proposing),
    (Point::Dispatch, 3, Tale::Proposing),
];

/// When a stopped process is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// After the others have finished.
    Late,
    /// While another one is at work on the same.
    Amid,
}

/// One process struck at one step.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub point: Point,
    pub side: Side,
    pub time: u32,
    pub tale: Tale,
    pub fault: Fault,
    pub wake: Wake,
}

impl Case {
    /// The variable that arms the failpoint, with its value.
    pub fn variable(&self) -> (&'static str, String) {
        let name = if self.fault == Fault::Crash { "OARLOCK_CRASH_AT" } else { "OARLOCK_STOP_AT" };
        (name, format!("{}:{}:{}", self.point.name(), format!("{:?}", self.side).to_lowercase(), self.time))
    }

    /// What the struck process says last.
    pub fn last_words(&self) -> String {
        format!("failpoint {}:{:?}: {:?}", self.point.name(), self.side, self.fault)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let woken = match (self.fault, self.wake) {
            (Fault::Crash, _) => String::new(),
            (Fault::Stop, wake) => format!(", woken {wake:?}"),
        };
        write!(f, "{:?}: {}={}{woken}", self.tale, self.variable().0, self.variable().1)
    }
}

fn cases(tale: Tale, fault: Fault) -> Vec<Case> {
    let wakes: &[Wake] = if fault == Fault::Crash { &[Wake::Late] } else { &[Wake::Late, Wake::Amid] };
    let mut cases = Vec::new();
    for &(point, time, _) in TABLE.iter().filter(|(_, _, of)| *of == tale) {
        for side in [Side::Before, Side::After] {
            cases.extend(wakes.iter().map(|&wake| Case { point, side, time, tale, fault, wake }));
        }
    }
    cases
}

async fn play(case: &Case, undisturbed: Option<&Picture>) {
    match (case.tale, undisturbed) {
        (Tale::Coder | Tale::Qa | Tale::HandBack | Tale::Poison, _) => worker::play(case).await,
        (Tale::Shared, _) => shared::play(case).await,
        (Tale::Expire, _) => expire::play(case).await,
        (Tale::Submit | Tale::Retry | Tale::Cancel | Tale::Answer, Some(picture)) => doors::play(case, picture).await,
        (_, Some(picture)) => holder::play(case, picture).await,
        (tale, None) => panic!("{tale:?} has no picture"),
    }
}

/// How the tale looks when nobody is struck.
async fn undisturbed(tale: Tale) -> Option<Picture> {
    match tale {
        Tale::Coder | Tale::Qa | Tale::HandBack | Tale::Poison | Tale::Shared | Tale::Expire => None,
        Tale::Submit | Tale::Retry | Tale::Cancel | Tale::Answer => Some(doors::undisturbed(tale).await),
        _ => Some(holder::undisturbed(tale).await),
    }
}

/// Plays every case of a tale, and fails with the names of those that failed.
async fn play_all(tale: Tale, fault: Fault) {
    // A case may be chosen while one is looked for.
    let only = std::env::var("FAILPOINTS_ONLY").unwrap_or_default();
    let undisturbed = undisturbed(tale).await;
    let playing = cases(tale, fault).into_iter().filter(|case| case.to_string().contains(&only)).map(async |case| {
        let places = if tale == Tale::Qa { PYTEST_PLACES } else { 1 };
        let _place = PLACES.acquire_many(places).await.unwrap();
        let started = Instant::now();
        let played = AssertUnwindSafe(play(&case, undisturbed.as_ref())).catch_unwind().await;
        println!("measured: {case} in {:.1} s", started.elapsed().as_secs_f64());
        let panic = played.err()?;
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Some(format!("{case}\n    {}", text.unwrap_or_default()))
    });
    let failed: Vec<String> = join_all(playing).await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

macro_rules! played {
    ($($name:ident: $tale:ident, $fault:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                play_all(Tale::$tale, Fault::$fault).await;
            }
        )*
        /// What the tests above play.
        const PLAYED: &[(Tale, Fault)] = &[$((Tale::$tale, Fault::$fault)),*];
    };
}

played! {
    a_holder_dies: Normal, Crash;
    a_holder_sleeps: Normal, Stop;
    one_of_two_dies: Beside, Crash;
    one_of_two_sleeps: Beside, Stop;
    a_holder_dies_in_rework: Rework, Crash;
    a_holder_sleeps_in_rework: Rework, Stop;
    the_holder_of_a_failing_run_dies: Failing, Crash;
    the_holder_of_a_failing_run_sleeps: Failing, Stop;
    a_holder_dies_at_a_deadline: Timeout, Crash;
    a_holder_sleeps_at_a_deadline: Timeout, Stop;
    a_mover_of_the_schedule_dies: Pause, Crash;
    a_mover_of_the_schedule_sleeps: Pause, Stop;
    a_parking_holder_dies: Gate, Crash;
    a_parking_holder_sleeps: Gate, Stop;
    the_holder_of_a_run_that_asks_dies: Asking, Crash;
    the_holder_of_a_run_that_asks_sleeps: Asking, Stop;
    a_draining_holder_dies: Drain, Crash;
    a_draining_holder_sleeps: Drain, Stop;
    the_next_holder_dies_too: Takeover, Crash;
    the_next_holder_sleeps: Takeover, Stop;
    who_gives_a_run_up_dies: GivenUp, Crash;
    who_gives_a_run_up_sleeps: GivenUp, Stop;
    a_door_dies_with_a_goal: Submit, Crash;
    a_door_sleeps_with_a_goal: Submit, Stop;
    a_door_dies_with_a_retry: Retry, Crash;
    a_door_sleeps_with_a_retry: Retry, Stop;
    a_door_dies_with_a_cancel: Cancel, Crash;
    a_door_sleeps_with_a_cancel: Cancel, Stop;
    a_door_dies_with_an_answer: Answer, Crash;
    a_door_sleeps_with_an_answer: Answer, Stop;
    a_janitor_dies: Expire, Crash;
    a_janitor_sleeps: Expire, Stop;
    a_coder_dies: Coder, Crash;
    a_coder_sleeps: Coder, Stop;
    a_qa_dies: Qa, Crash;
    a_qa_sleeps: Qa, Stop;
    a_worker_dies_as_it_hands_back: HandBack, Crash;
    a_worker_sleeps_as_it_hands_back: HandBack, Stop;
    who_buries_a_task_dies: Poison, Crash;
    who_buries_a_task_sleeps: Poison, Stop;
    a_writer_of_shared_state_dies: Shared, Crash;
    a_writer_of_shared_state_sleeps: Shared, Stop;
    a_holder_dies_as_it_decides_on_changes: Proposing, Crash;
    a_holder_sleeps_as_it_decides_on_changes: Proposing, Stop;
}

#[test]
fn every_step_is_played() {
    for point in Point::ALL {
        assert!(TABLE.iter().any(|(of, _, _)| *of == point), "no tale for the step {}: add it", point.name());
    }
    for (_, _, tale) in TABLE {
        for fault in [Fault::Crash, Fault::Stop] {
            assert!(PLAYED.contains(&(*tale, fault)), "no test plays {tale:?} with {fault:?}");
        }
    }
    let names: BTreeSet<String> = TABLE.iter().map(|row| format!("{row:?}")).collect();
    assert_eq!(names.len(), TABLE.len(), "a row stands twice");
}

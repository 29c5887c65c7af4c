//! Every bound of the wire, by name, with its unit last. A bound that is hit is named in the error.

/// Characters of a run or task id.
pub const ID_CHARS_MAX: usize = 32;
/// Bytes of a goal's text.
pub const GOAL_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an idempotency key (header `Oarlock-Key`).
pub const KEY_BYTES_MAX: usize = 256;
/// Files attached to a goal.
pub const ATTACHMENTS_MAX: usize = 64;
/// Bytes of one file, attached or produced.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of all files of one task or goal.
pub const FILES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Files that one reply may name.
pub const FILES_MAX: usize = 128;
/// Characters of a file's path.
pub const PATH_CHARS_MAX: usize = 200;
/// Folders in a file's path.
pub const PATH_DEPTH_MAX: usize = 16;
/// Bytes of one part of a blob.
pub const BLOB_PART_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a task's goal, context and evidence together that travel inside the task; the rest goes by reference.
pub const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a reply's content.
pub const REPLY_CONTENT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of any payload that the fleet publishes; the server's own limit is 1 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 768 * 1024;
/// Bytes of text in one token event.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Tasks of a plan.
pub const PLAN_TASKS_MAX: usize = 200;
/// Attempts of a task, and generations of a run: far above what any bound lets a run come to.
pub const ATTEMPT_MAX: u32 = 1_000_000;
/// Bytes of a task's description.
pub const DESCRIPTION_BYTES_MAX: usize = 16 * 1024;
/// New attempts that a failed check may cause, per coder task, unless configured.
pub const REWORK_MAX: u32 = 3;
/// Attempts in a row that bring nothing new, no file and no other test outcome, unless configured.
pub const NO_PROGRESS_MAX: u32 = 2;
/// Tokens of an answer that must be left, or a model is not asked.
pub const ANSWER_TOKENS_MIN: u64 = 256;
/// Exchanges, or tasks, that a budget can name.
pub const BUDGET_COUNT_MAX: u64 = 1_000_000;
/// Seconds that a budget can name: a year.
pub const BUDGET_TIME_S_MAX: u64 = 365 * 24 * 3600;
/// Tokens that a budget can name.
pub const BUDGET_TOKENS_MAX: u64 = 1_000_000_000_000;
/// Dollars that a budget can name.
pub const BUDGET_USD_MAX: u64 = 1_000_000;
/// Tasks of a plan that wait for each other in a row, unless configured: far above what honest plans come to, and the time
/// of a run is at least the sum of such a row.
pub const PLAN_DEPTH_MAX: usize = 50;
/// Tokens of a run, unless configured: some ten times what 200 tasks with a rework of each take.
pub const RUN_TOKENS_MAX: u64 = 20_000_000;
/// Money of a run, unless configured, in dollars.
pub const RUN_USD_MAX: u64 = 50;
/// Time of a run, unless configured: 30 days, so that one may wait for people.
pub const RUN_TIME_S_MAX: u64 = 30 * 24 * 3600;
/// Tokens that all runs of a tenant may take in a UTC day, unless configured: fifty times those of one run.
pub const TENANT_TOKENS_MAX: u64 = 1_000_000_000;
/// Money of a tenant in a UTC day, unless configured, in dollars.
pub const TENANT_USD_MAX: u64 = 1_000;
/// Attempts of one run that are under way at the same time, per role, unless configured: a large run does not starve the
/// others.
pub const WINDOW_MAX: usize = 8;
/// Questions that one task may ask in a generation of its run.
pub const QUESTIONS_MAX: usize = 8;
/// Bytes of a person's answer.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Questions that a question may lead to, one about the other.
pub const QUESTIONS_DEPTH_MAX: usize = 6;
/// Bytes of one shared-state value.
pub const STATE_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Keys of one shared-state update.
pub const STATE_KEYS_MAX: usize = 100;
/// Changes of shared state that one reply may propose; several may be of one key.
pub const STATE_CHANGES_MAX: usize = 200;
/// Reasons that are kept when the changes of a reply are refused.
pub const STATE_REFUSALS_MAX: usize = 20;
/// Attempts of one task whose changes of shared state came too late, because others were quicker: twice what a window of tasks can
/// do to one of them.
pub const STATE_RACES_MAX: u32 = 16;
/// Characters of the name of a shared-state value.
pub const STATE_NAME_CHARS_MAX: usize = 128;
/// Bytes of shared state, names and values, that travel inside a task.
pub const STATE_INLINE_BYTES_MAX: usize = 32 * 1024;
/// Equal votes that a goal may ask for.
pub const QUORUM_MAX: u32 = 16;
/// Seconds that an item waits for people unless the goal says otherwise: a week.
pub const APPROVE_WITHIN_S: u64 = 7 * 24 * 3600;
/// Seconds that an item may wait for people.
pub const APPROVE_WITHIN_S_MAX: u64 = 90 * 24 * 3600;
/// Seconds that a run may stay paused.
pub const PAUSED_S_MAX: u64 = 90 * 24 * 3600;
/// Bytes of the name that somebody gives with an input.
pub const WHO_BYTES_MAX: usize = 100;
/// Bytes of the reason of a rejection.
pub const REASON_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one note, as they stand in JSON.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of all notes of a run, as they stand in JSON: each task that is dispatched carries them.
pub const NOTES_BYTES_MAX: usize = 64 * 1024;
/// Notes of one run.
pub const NOTES_MAX: usize = 500;
/// Pauses of one generation of a run; each has room for its end.
pub const PAUSES_MAX: usize = 100;
/// Inputs about one result. What is no edit has more than twice the room that the largest quorum needs to come about, so nobody
/// is kept from deciding.
pub const ITEM_INPUTS_MAX: usize = 64;
/// Edits of one plan that wait for a decision.
pub const ITEM_EDITS_MAX: usize = 16;
/// Bytes of an edited plan, as JSON.
pub const EDIT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of all inputs of a run, as JSON. Those of at most [`SHORT_INPUT_BYTES`] have room in any case.
pub const INPUTS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of an input that says its word and little else.
pub const SHORT_INPUT_BYTES: usize = 1024;
/// Bytes of a plan that waits for people where it is shown: every task has room for its line.
pub const PLAN_SHOWN_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a vote's reason where votes are listed.
pub const VOTE_BYTES_MAX: usize = 200;
/// Bytes of an error text that goes to a caller.
pub const ERROR_BYTES_MAX: usize = 4 * 1024;

/// Exchanges that a run of `tasks` planned tasks may have: every task and the planner's and synthesizer's, each asked and
/// answered `attempts_max` times, which is with all its rework and retries; never under 20.
pub fn exchanges_max(tasks: usize, attempts_max: u32) -> usize {
    (tasks + 2).saturating_mul(2).saturating_mul(attempts_max as usize).max(20)
}

/// Hops that a message of a run may be away from the goal: twice the longest way through a plan of `depth` tasks in a row,
/// the planner's and the synthesizer's added, when each is attempted `attempts_max` times; never under 20. Honest work stays
/// below half of it, and the other half is for questions.
pub fn hops_max(depth: usize, attempts_max: u32) -> u32 {
    let hops = (depth + 2).saturating_mul(2).saturating_mul(attempts_max as usize).max(20);
    u32::try_from(hops).unwrap_or(u32::MAX)
}

/// `text` cut to at most `bytes_max` bytes at a character's edge, with a mark where something was cut.
pub fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let keep = text.floor_char_boundary(bytes_max);
    format!("{}… ({} bytes more)", &text[..keep], text.len() - keep)
}

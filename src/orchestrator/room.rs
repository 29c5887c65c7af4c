//! Room for what people say. Each kind of input has a bound of its own, so that nobody can bury decisions under notes, or a pause
//! under both; and a decision that says little has room even when reasons and edits have filled theirs. What is said again takes
//! no room: whoever looks here has seen that it is new.

use super::facts::Facts;
use super::gates;
use super::request::Refused;
use crate::store::Heard;
use crate::wire::{Input, ItemId, RunId, Said, limits};

/// Refuses a new input for which there is no room, and says what there is room for.
pub(super) fn has_room(run: &RunId, facts: &Facts, input: &Input) -> Result<(), Refused> {
    let count = |of_kind: &dyn Fn(&Said) -> bool, item: Option<&ItemId>| {
        let fits = |heard: &&Heard| item.is_none_or(|item| heard.input.item == *item) && of_kind(&heard.input.says);
        facts.inputs.iter().filter(fits).count()
    };
    let is_edit = |says: &Said| matches!(says, Said::Edit { .. });
    let about = &input.item;
    let (there, max, name, way) = match input.says {
        Said::Note { .. } => {
            let there = count(&|says| matches!(says, Said::Note { .. }), None);
            (there, limits::NOTES_MAX, "notes_max", "say it as the reason of a rejection")
        }
        Said::Pause => {
            let there = gates::holds(facts).0.div_ceil(2) as usize;
            (there, limits::PAUSES_MAX, "pauses_max", "let it go on")
        }
        Said::Edit { .. } => {
            let there = count(&is_edit, Some(about));
            (there, limits::ITEM_EDITS_MAX, "item_edits_max", "approve or reject the plan")
        }
        Said::Approve | Said::Reject { .. } | Said::Answer { .. } => {
            let there = count(&|says| !is_edit(says), Some(about));
            (there, limits::ITEM_INPUTS_MAX - limits::ITEM_EDITS_MAX, "item_inputs_max", "wait for its deadline")
        }
        _ => (0, 1, "", ""),
    };
    if there >= max {
        let why = format!(
            "there are {there} of these already, as many as there may be ({name} {max}); {way}, or cancel the run: \
             oarlock cancel {run}"
        );
        return Err(Refused::Because(413, why));
    }
    let (bytes, bytes_max) = (size(input), limits::INPUTS_BYTES_MAX);
    if bytes <= limits::SHORT_INPUT_BYTES {
        return Ok(());
    }
    let before: usize = facts.inputs.iter().map(|heard| size(&heard.input)).sum();
    if before + bytes > bytes_max {
        let short = limits::SHORT_INPUT_BYTES;
        let why = format!(
            "this has {bytes} bytes, and what was said about run {run} has {before} already; together they may have \
             inputs_bytes_max {bytes_max}. Say it in less than {short} bytes, or cancel the run: oarlock cancel {run}"
        );
        return Err(Refused::Because(413, why));
    }
    Ok(())
}

fn size(input: &Input) -> usize {
    serde_json::to_vec(input).map_or(0, |json| json.len())
}

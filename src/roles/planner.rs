//! The planner: a plan for a goal, prose for anything else that falls to it.

use super::briefing::Briefing;
use super::{Desk, Product, Stopped};
use crate::wire::plan::Proposal;
use crate::wire::{Report, TaskId, Usage};

pub(super) async fn work(desk: &Desk, briefing: &Briefing, usage: &mut Usage) -> Result<Product, Stopped> {
    // A plan inside a plan could go on for ever: only the run's own planning task makes one.
    if briefing.task.id != TaskId::plan() {
        return desk.ask_text(briefing, usage).await.map(Product::text);
    }
    let plan = desk.ask_json(briefing, usage, |value| {
        let proposal: Proposal = serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
        proposal.check()
    });
    let plan = plan.await?;
    let content = plan.in_words(usize::MAX);
    Ok(Product { report: Some(Report::Plan(plan)), ..Product::text(content) })
}

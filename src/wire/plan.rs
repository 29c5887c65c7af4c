//! A plan: tasks, who does them, and what each needs first. Checked here, by one rule for everybody who reads one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Role, TaskId, WIRE_VERSION, limits, one_line};

/// Faults that are told of one proposal: enough to mend it by, however many there are.
const FAULTS_MAX: usize = 20;

/// A checked plan; its tasks stand in an order in which each comes after all that it depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Wire version.
    pub v: u32,
    /// The tasks.
    pub tasks: Vec<PlanTask>,
}

/// One task of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanTask {
    /// `t1` to `tn`.
    pub id: TaskId,
    /// What to do.
    pub description: String,
    /// Who does it.
    pub role: Role,
    /// The tasks whose results it needs.
    #[serde(default)]
    pub depends_on: Vec<TaskId>,
}

/// A plan as a model writes it: any ids, roles as words or missing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Proposal {
    /// The tasks.
    pub tasks: Vec<ProposedTask>,
}

/// One task of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ProposedTask {
    /// Any text, unique in the proposal.
    pub id: String,
    /// What to do.
    pub description: String,
    /// A role's name; without one the description's words choose.
    #[serde(default)]
    pub role: Option<String>,
    /// Ids of other tasks.
    #[serde(default)]
    pub depends_on: Vec<String>,
}

impl Proposal {
    /// The plan that this proposes, with ids `t1` to `tn` in the plan's order; or the first faults of it, one sentence
    /// each, in words that a model can mend it by.
    pub fn check(&self) -> Result<Plan, Vec<String>> {
        let mut faults = self.size_faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut ids = BTreeMap::new();
        for (index, task) in self.tasks.iter().enumerate() {
            if ids.insert(task.id.as_str(), TaskId::planned(index + 1)).is_some() && faults.len() < FAULTS_MAX {
                faults.push(format!("the id {:?} is used twice", shown(&task.id)));
            }
        }
        let mut tasks = Vec::with_capacity(self.tasks.len());
        for task in &self.tasks {
            if faults.len() >= FAULTS_MAX {
                break;
            }
            tasks.extend(task.check(&ids, &mut faults));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let plan = Plan { v: WIRE_VERSION, tasks };
        // The cycle is told in the proposal's own ids, which are the ones that its author can mend.
        plan.in_order().map(Plan::renumbered).map_err(|cycle| {
            let name = |id: &TaskId| shown(&self.tasks[plan.position(id)].id);
            let names: Vec<String> = cycle.iter().map(name).collect();
            vec![format!("the tasks depend on each other in a cycle: {}", names.join(" → "))]
        })
    }

    fn size_faults(&self) -> Vec<String> {
        let count = self.tasks.len();
        if count == 0 {
            return vec!["the plan has no tasks".into()];
        }
        if count > limits::PLAN_TASKS_MAX {
            return vec![format!("the plan has {count} tasks, more than plan_tasks_max {}", limits::PLAN_TASKS_MAX)];
        }
        Vec::new()
    }
}

impl ProposedTask {
    fn check(&self, ids: &BTreeMap<&str, TaskId>, faults: &mut Vec<String>) -> Option<PlanTask> {
        let before = faults.len();
        let name = shown(&self.id);
        if self.description.trim().is_empty() {
            faults.push(format!("task {name:?} has no description"));
        }
        if self.description.len() > limits::DESCRIPTION_BYTES_MAX {
            let (bytes, max) = (self.description.len(), limits::DESCRIPTION_BYTES_MAX);
            faults.push(format!(
                "the description of task {name:?} has {bytes} bytes, more than description_bytes_max {max}"
            ));
        }
        let role = match self.role.as_deref().map(str::trim) {
            None | Some("") => Some(Role::for_words(&self.description)),
            Some(word) => {
                word.to_lowercase().parse().map_err(|error| faults.push(format!("task {name:?}: {error}"))).ok()
            }
        };
        if role.is_some_and(|role| !role.plannable()) {
            faults.push(format!("task {name:?} is given to the orchestrator, who takes no tasks of a plan"));
        }
        let mut depends_on = BTreeSet::new();
        for id in &self.depends_on {
            if faults.len() >= FAULTS_MAX {
                return None;
            }
            match ids.get(id.as_str()) {
                _ if *id == self.id => faults.push(format!("task {name:?} depends on itself")),
                Some(known) => drop(depends_on.insert(known.clone())),
                None => faults.push(format!("task {name:?} depends on {:?}, which is no task of the plan", shown(id))),
            }
        }
        let (Some(role), true) = (role, faults.len() == before) else {
            return None;
        };
        let id = ids.get(self.id.as_str())?.clone();
        Some(PlanTask {
            id,
            description: self.description.trim().to_owned(),
            role,
            depends_on: depends_on.into_iter().collect(),
        })
    }
}

/// The beginning of a text on one line, at most `bytes_max` bytes with the `…` where something was cut.
fn beginning(text: &str, bytes_max: usize) -> String {
    let line = one_line(text, bytes_max);
    let keep = bytes_max.saturating_sub('…'.len_utf8());
    match line.len() > bytes_max {
        true => format!("{}…", &line[..line.floor_char_boundary(keep)]),
        false => line,
    }
}

impl Plan {
    /// Checks a plan that came over the wire, by the same rule as a proposal.
    pub fn recheck(&self) -> Result<Plan, Vec<String>> {
        let tasks = self.tasks.iter().map(|task| ProposedTask {
            id: task.id.to_string(),
            description: task.description.clone(),
            role: Some(task.role.to_string()),
            depends_on: task.depends_on.iter().map(TaskId::to_string).collect(),
        });
        Proposal { tasks: tasks.collect() }.check()
    }

    /// The same plan, its ids kept, with each task after all that it depends on; checked like any other.
    pub fn ordered(&self) -> Result<Plan, Vec<String>> {
        self.recheck()?;
        self.in_order().map_err(|_| Vec::new())
    }

    /// A line for each task, together at most about `bytes_max` bytes: where that is too little, each description is the
    /// beginning of its words, an equal share each, so that every task is seen.
    pub fn in_words(&self, bytes_max: usize) -> String {
        let lines = |share: Option<usize>| {
            let line = |task: &PlanTask| {
                let needs: Vec<&str> = task.depends_on.iter().map(TaskId::as_str).collect();
                let needs = if needs.is_empty() { String::new() } else { format!(" (after {})", needs.join(", ")) };
                let words = share.map(|bytes_max| beginning(&task.description, bytes_max));
                let words = words.as_ref().unwrap_or(&task.description);
                format!("{} {}: {words}{needs}", task.id, task.role)
            };
            self.tasks.iter().map(line).collect::<Vec<_>>().join("\n")
        };
        let whole = lines(None);
        if whole.len() <= bytes_max {
            return whole;
        }
        let left = bytes_max.saturating_sub(lines(Some(0)).len());
        lines(Some(left / self.tasks.len().max(1)))
    }

    /// The task with this id.
    pub fn task(&self, id: &TaskId) -> Option<&PlanTask> {
        self.tasks.iter().find(|task| task.id == *id)
    }

    /// The tasks that `id` needs, directly or through others, in the plan's order.
    pub fn ancestors(&self, id: &TaskId) -> Vec<&PlanTask> {
        let mut wanted: BTreeSet<&TaskId> =
            self.task(id).map(|task| task.depends_on.iter().collect()).unwrap_or_default();
        for task in self.tasks.iter().rev() {
            if wanted.contains(&task.id) {
                wanted.extend(&task.depends_on);
            }
        }
        self.tasks.iter().filter(|task| wanted.contains(&task.id)).collect()
    }

    /// Tasks in the longest row of tasks that wait for each other.
    pub fn depth(&self) -> usize {
        let mut rows: BTreeMap<&TaskId, usize> = BTreeMap::new();
        for task in &self.tasks {
            let before = task.depends_on.iter().filter_map(|id| rows.get(id)).max().copied().unwrap_or(0);
            rows.insert(&task.id, before + 1);
        }
        rows.into_values().max().unwrap_or(0)
    }

    /// The same plan with its tasks called `t1` to `tn` as they stand.
    fn renumbered(self) -> Plan {
        let names: BTreeMap<TaskId, TaskId> =
            self.tasks.iter().enumerate().map(|(index, task)| (task.id.clone(), TaskId::planned(index + 1))).collect();
        let rename = |id: &TaskId| names.get(id).unwrap_or(id).clone();
        let tasks = self.tasks.into_iter().map(|task| PlanTask {
            id: rename(&task.id),
            // Sorted, as a check leaves them: a checked plan that is checked again stays as it is.
            depends_on: task.depends_on.iter().map(rename).collect::<BTreeSet<_>>().into_iter().collect(),
            ..task
        });
        Plan { v: self.v, tasks: tasks.collect() }
    }

    fn position(&self, id: &TaskId) -> usize {
        self.tasks.iter().position(|task| task.id == *id).unwrap_or_default()
    }

    /// The same plan with each task after all that it depends on, or a cycle, its first task repeated at the end.
    fn in_order(&self) -> Result<Plan, Vec<TaskId>> {
        let mut done: BTreeSet<&TaskId> = BTreeSet::new();
        let mut tasks = Vec::with_capacity(self.tasks.len());
        let mut waiting: Vec<&PlanTask> = self.tasks.iter().collect();
        while !waiting.is_empty() {
            let (ready, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|task| task.depends_on.iter().all(|id| done.contains(id)));
            if ready.is_empty() {
                return Err(cycle(&rest));
            }
            done.extend(ready.iter().map(|task| &task.id));
            tasks.extend(ready.into_iter().cloned());
            waiting = rest;
        }
        Ok(Plan { v: self.v, tasks })
    }
}

/// A cycle among tasks of which each depends on another of them.
fn cycle(waiting: &[&PlanTask]) -> Vec<TaskId> {
    let mut path = vec![&waiting[0].id];
    loop {
        let last = path[path.len() - 1];
        let next = waiting
            .iter()
            .find(|task| task.id == *last)
            .and_then(|task| task.depends_on.iter().find(|id| waiting.iter().any(|other| other.id == **id)));
        let Some(next) = next else {
            return path.into_iter().cloned().collect();
        };
        let seen = path.iter().position(|id| *id == next);
        path.push(next);
        if let Some(start) = seen {
            return path[start..].iter().map(|id| (*id).clone()).collect();
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(tasks: &[(&str, &str, Option<&str>, &[&str])]) -> Proposal {
        let tasks = tasks.iter().map(|(id, description, role, depends_on)| ProposedTask {
            id: (*id).into(),
            description: (*description).into(),
            role: role.map(Into::into),
            depends_on: depends_on.iter().map(|id| (*id).to_owned()).collect(),
        });
        Proposal { tasks: tasks.collect() }
    }

    #[test]
    fn ids_are_mapped_roles_chosen_and_tasks_put_in_order() {
        let plan =
            proposal(&[("test it", "run it", Some("QA"), &["code it"]), ("code it", "implement fibonacci", None, &[])]);
        let plan = plan.check().unwrap();
        let seen: Vec<_> = plan.tasks.iter().map(|task| (task.id.as_str(), task.role, task.depends_on.len())).collect();
        assert_eq!(seen, [("t1", Role::Coder, 0), ("t2", Role::Qa, 1)]);
        assert_eq!(plan.recheck().unwrap(), plan);
    }

    #[test]
    fn what_is_no_plan_is_refused_with_the_reason() {
        let many: Vec<_> = (0..=limits::PLAN_TASKS_MAX).map(|n| (n.to_string(), "write it".to_owned())).collect();
        let many: Vec<_> = many.iter().map(|(id, text)| (id.as_str(), text.as_str(), None, &[][..])).collect();
        let long = "x".repeat(limits::DESCRIPTION_BYTES_MAX + 1);
        for (bad, says) in [
            (proposal(&[]), "no tasks"),
            (proposal(&many), "plan_tasks_max"),
            (proposal(&[("a", "x", None, &["b"]), ("b", "y", None, &["c"]), ("c", "z", None, &["b"])]), "b → c → b"),
            (proposal(&[("a", "x", None, &["a"])]), "depends on itself"),
            (proposal(&[("a", "x", None, &["z"])]), "\"z\", which is no task"),
            (proposal(&[("a", "x", None, &[]), ("a", "y", None, &[])]), "used twice"),
            (proposal(&[("a", "x", Some("tester"), &[])]), "unknown role"),
            (proposal(&[("a", "x", Some("orchestrator"), &[])]), "takes no tasks"),
            (proposal(&[("a", " ", None, &[])]), "no description"),
            (proposal(&[("a", &long, None, &[])]), "description_bytes_max"),
        ] {
            let faults = bad.check().unwrap_err().join("; ");
            assert!(faults.contains(says), "{says}: {faults}");
        }
    }

    #[test]
    fn a_checked_plan_is_checked_into_itself() {
        let plan = proposal(&[("a", "x", None, &["b"]), ("b", "x", None, &[]), ("c", "x", None, &["a", "b"])])
            .check()
            .unwrap();
        assert_eq!(plan.recheck(), Ok(plan));
    }

    #[test]
    fn the_faults_of_a_hostile_proposal_are_bounded() {
        let wild = "\u{7f}".repeat(100);
        let many = vec![wild.as_str(); 10_000];
        for bad in [
            proposal(&[("a", "x", None, &many), (&wild, " ", None, &many)]),
            proposal(&[(wild.as_str(), " ", None, &[][..]); 200]),
        ] {
            let faults = bad.check().unwrap_err();
            assert!(faults.len() <= FAULTS_MAX + 4, "{} faults", faults.len());
            assert!(faults.iter().all(|fault| fault.len() < 1024), "{faults:?}");
        }
    }

    #[test]
    fn every_task_of_a_plan_is_shown() {
        let small = proposal(&[("a", "look", Some("researcher"), &[]), ("b", "write", Some("coder"), &["a"])]).check();
        assert_eq!(small.unwrap().in_words(1_000), "t1 researcher: look\nt2 coder: write (after t1)");
        let (names, long): (Vec<String>, _) =
            ((0..100).map(|number| format!("a{number}")).collect(), "long ".repeat(1_000));
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), long.as_str(), Some("qa"), &[][..])).collect();
        let words = proposal(&many).check().unwrap().in_words(4_096);
        assert!(words.len() <= 4_096 && words.lines().count() == 100 && words.contains("t100 qa: long"), "{words}");
    }

    #[test]
    fn ancestors_are_all_that_came_before() {
        let plan = proposal(&[
            ("a", "x", None, &[]),
            ("b", "x", None, &["a"]),
            ("c", "x", None, &[]),
            ("d", "x", None, &["b"]),
        ]);
        let plan = plan.check().unwrap();
        let ids: Vec<_> = plan.ancestors(&TaskId::planned(4)).iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["t1", "t3"]);
        assert_eq!(plan.depth(), 3, "a, b, d");
    }
}

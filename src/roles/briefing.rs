//! Everything that a task refers to, fetched: its goal, the results before it, its files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::researcher::Material;
use crate::store::{FileSet, Store, StoreError};
use crate::wire::{Content, ContentHash, Failure, FailureKind, Role, Task, TaskId};

/// A task with its material.
pub(super) struct Briefing {
    /// When the work on it began.
    pub(super) started: Instant,
    pub(super) task: Task,
    pub(super) goal: String,
    pub(super) context: Vec<Text>,
    pub(super) evidence: Vec<Text>,
    pub(super) files: FileSet,
    /// Hash of the words that the model was asked with, once it was.
    pub(super) asked: OnceLock<ContentHash>,
    /// What a researcher read for it; empty for the others.
    pub(super) material: Material,
    /// The tools that were called for it and answered, well or not: what a reply says of tools is held against this.
    pub(super) called: Called,
}

/// Names of tools, `server/tool`.
#[derive(Debug, Default)]
pub(super) struct Called(Mutex<BTreeSet<String>>);

impl Called {
    /// Takes note of a tool that answered.
    pub(super) fn answered(&self, tool: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tool);
    }

    /// True when this tool answered.
    pub(super) fn holds(&self, tool: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(tool)
    }
}

/// One earlier reply, in words.
pub(super) struct Text {
    pub(super) task: TaskId,
    pub(super) role: Role,
    pub(super) content: String,
}

impl Text {
    /// True for what people said of the attempt before; their words come by the orchestrator.
    pub(super) fn is_peoples(&self) -> bool {
        self.role == Role::Orchestrator
    }
}

impl Briefing {
    /// Fetches what `task` names.
    ///
    /// # Errors
    /// A failure that says what is missing.
    pub(super) async fn fetch(store: &Store, task: &Task) -> Result<Self, Failure> {
        let started = Instant::now();
        let goal = resolve(store, task, &task.goal).await?;
        let mut texts = BTreeMap::new();
        for (index, item) in task.context.iter().chain(&task.evidence).enumerate() {
            let content = resolve(store, task, &item.content).await?;
            texts.insert(index, Text { task: item.task.clone(), role: item.role, content });
        }
        let evidence = texts.split_off(&task.context.len());
        let files = store.artifacts.get_all(&task.run, &task.files).await.map_err(storage)?;
        Ok(Self {
            started,
            task: task.clone(),
            goal,
            context: texts.into_values().collect(),
            evidence: evidence.into_values().collect(),
            files,
            asked: OnceLock::new(),
            material: Material::default(),
            called: Called::default(),
        })
    }
}

async fn resolve(store: &Store, task: &Task, content: &Content) -> Result<String, Failure> {
    let missing = |what: &str| {
        Failure::again(FailureKind::Storage, format!("{what}, which task {} needs, is not stored", task.id))
    };
    match content {
        Content::Inline { text } => Ok(text.clone()),
        Content::Goal => {
            let goal = store.runs.goal(&task.run).await.map_err(storage)?;
            goal.map(|goal| goal.text).ok_or_else(|| missing("the goal"))
        }
        Content::Result { subject } => {
            store.results.text(subject).await.map_err(storage)?.ok_or_else(|| missing(subject))
        }
    }
}

/// A store's error as a task's failure; another attempt may find the store well again.
pub(super) fn storage(error: StoreError) -> Failure {
    let kind = match &error {
        StoreError::TooLarge { .. } => FailureKind::TooLarge,
        _ => FailureKind::Storage,
    };
    Failure::again(kind, format!("{:#}", anyhow::Error::from(error)))
}

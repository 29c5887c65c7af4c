//! Files, by the hash of their content, in parts that fit a message. A stored part never changes, so putting a file
//! twice is harmless, and readers trust nothing: they hash what they read.

use std::collections::BTreeMap;

use super::StoreError;
use crate::bus::{Bus, BusError, Outgoing, Point};
use crate::wire::{Artifact, ContentHash, FilePath, Role, RunId, limits};

/// Files by name.
pub type FileSet = BTreeMap<FilePath, Vec<u8>>;

/// The stream of file parts.
#[derive(Clone)]
pub struct Artifacts {
    bus: Bus,
    stream: String,
}

impl Artifacts {
    pub(super) fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), stream: bus.root.blobs_stream() }
    }

    /// Stores files that `role` made in `run`, and returns their descriptions in the order of their names.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for too many, too large a file, or too much in total; nothing is stored then.
    pub async fn put(&self, run: &RunId, role: Role, files: &FileSet) -> Result<Vec<Artifact>, StoreError> {
        check_sizes(files)?;
        let mut artifacts = Vec::with_capacity(files.len());
        for (path, content) in files {
            let sha256 = ContentHash::of(content);
            let parts = content.chunks(limits::BLOB_PART_BYTES_MAX).enumerate().map(|(number, part)| {
                let subject = self.bus.root.blob(role, run, &sha256, number as u64);
                Outgoing::new(Point::Blob, self.stream.clone(), subject, part.to_vec()).expecting(0)
            });
            for stored in self.bus.store_all(parts.collect()).await {
                match stored {
                    Ok(_) | Err(BusError::Taken { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            artifacts.push(Artifact { path: path.clone(), sha256, bytes: content.len() as u64, role });
        }
        Ok(artifacts)
    }

    /// Reads a file back.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a part is missing or the hash differs.
    pub async fn get(&self, run: &RunId, artifact: &Artifact) -> Result<Vec<u8>, StoreError> {
        let damaged = |why: &str| StoreError::Damaged { path: artifact.path.clone(), why: why.to_owned() };
        let bytes = usize::try_from(artifact.bytes).unwrap_or(usize::MAX);
        if bytes > limits::FILE_BYTES_MAX {
            return Err(too_large(&artifact.path, "file_bytes_max", limits::FILE_BYTES_MAX));
        }
        let mut content = Vec::with_capacity(bytes);
        for number in 0..bytes.div_ceil(limits::BLOB_PART_BYTES_MAX) {
            let subject = self.bus.root.blob(artifact.role, run, &artifact.sha256, number as u64);
            let part = self.bus.last_known(&self.stream, &subject).await?;
            content.extend_from_slice(&part.ok_or_else(|| damaged(&format!("part {number} is missing")))?.payload);
        }
        match ContentHash::of(&content) == artifact.sha256 {
            true => Ok(content),
            false => Err(damaged("its content does not match its hash")),
        }
    }

    /// Reads several files.
    pub async fn get_all(&self, run: &RunId, artifacts: &[Artifact]) -> Result<FileSet, StoreError> {
        if artifacts.len() > limits::FILES_MAX {
            return Err(too_large(&format!("{} files", artifacts.len()), "files_max", limits::FILES_MAX));
        }
        let mut files = FileSet::new();
        for artifact in artifacts {
            files.insert(artifact.path.clone(), self.get(run, artifact).await?);
            check_sizes(&files)?;
        }
        Ok(files)
    }
}

fn check_sizes(files: &FileSet) -> Result<(), StoreError> {
    if files.len() > limits::FILES_MAX {
        return Err(too_large(&format!("{} files", files.len()), "files_max", limits::FILES_MAX));
    }
    if let Some((path, _)) = files.iter().find(|(_, content)| content.len() > limits::FILE_BYTES_MAX) {
        return Err(too_large(path, "file_bytes_max", limits::FILE_BYTES_MAX));
    }
    let total: usize = files.values().map(Vec::len).sum();
    if total > limits::FILES_BYTES_MAX {
        return Err(too_large(&format!("a file set of {total} bytes"), "files_bytes_max", limits::FILES_BYTES_MAX));
    }
    Ok(())
}

fn too_large(what: &dyn std::fmt::Display, bound: &'static str, max: usize) -> StoreError {
    StoreError::TooLarge { what: what.to_string(), bound, max }
}

//! What one run may use. Every number is a bound that ends or refuses something; none is a target.

use std::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The bounds of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from start to end; then [`Outcome::Timeout`](super::Outcome::Timeout). Default 60 s.
    pub wall: Duration,
    /// Processor seconds, for each process (by the kernel) and for all together (by the watchdog). Default 10 s.
    pub cpu_s: u64,
    /// Address space of each process. Default 1 GiB.
    pub address_space_bytes: u64,
    /// Memory of the whole process tree, shared pages counted once (PSS). Default 1 GiB.
    pub memory_bytes: u64,
    /// Size of any one file. Default 64 MiB.
    pub file_bytes: u64,
    /// Size of the workspace: a tmpfs in tier bwrap, watched in the others. Default 128 MiB.
    pub disk_bytes: u64,
    /// Processes and threads together: refused by the kernel in tier bwrap, ended by the watchdog in the others, where
    /// the kernel counts all of one user together. Default 64.
    pub processes: u64,
    /// Open files of each process. Default 256.
    pub open_files: u64,
    /// Output at which the run is ended as a flood. Default 64 MiB.
    pub output_bytes_max: u64,
    /// Output kept, half of it from the start and half from the end. Default 256 KiB.
    pub output_bytes_kept: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            wall: Duration::from_secs(60),
            cpu_s: 10,
            address_space_bytes: 1024 * MIB,
            memory_bytes: 1024 * MIB,
            file_bytes: 64 * MIB,
            disk_bytes: 128 * MIB,
            processes: 64,
            open_files: 256,
            output_bytes_max: 64 * MIB,
            output_bytes_kept: 256 * KIB,
        }
    }
}

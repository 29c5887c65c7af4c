//! The processes below us, read from `/proc`: what they use, and which of them are left.

use std::collections::HashSet;
use std::fs;

use nix::unistd::Pid;

/// One line of `/proc/<pid>/stat`, the fields we need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: i32,
    pub parent: i32,
    pub zombie: bool,
    /// Processor time of itself and of its children that it waited for.
    pub ticks: u64,
    /// The part of `ticks` that belongs to children.
    pub children_ticks: u64,
    pub threads: u64,
    pub resident_pages: u64,
}

/// Every process below `root`, in no order; and `root` itself for its children's processor time.
pub(super) fn below(root: Pid) -> (Vec<Process>, Option<Process>) {
    let mut all: Vec<Process> = numbers("/proc").filter_map(read).collect();
    let mut members = HashSet::from([root.as_raw()]);
    loop {
        let before = members.len();
        members.extend(
            all.iter()
                .filter(|process| members.contains(&process.parent))
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
        );
        if members.len() == before {
            break;
        }
    }
    let own = all.iter().find(|process| process.pid == root.as_raw()).cloned();
    all.retain(|process| process.pid != root.as_raw() && members.contains(&process.pid));
    (all, own)
}

/// Memory of one process with shared pages counted once, and what it has swapped; `None` if it hides.
pub(super) fn proportional_bytes(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().split(' ').next()?.parse::<u64>().ok()
    };
    Some((kib("Pss:")? + kib("SwapPss:").unwrap_or(0)) * 1024)
}

/// Processes and threads of a user, which is what the kernel counts against the limit of processes.
pub(super) fn threads_of_user(user: u32) -> u64 {
    let threads = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next());
        (field("Uid:")?.parse() == Ok(user)).then(|| field("Threads:")?.parse::<u64>().ok())?
    };
    numbers("/proc").filter_map(threads).sum()
}

/// Entries of a directory whose names are numbers.
pub(super) fn numbers(directory: &str) -> impl Iterator<Item = i32> {
    fs::read_dir(directory).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn read(pid: i32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may contain anything, so fields are counted from its end.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    // proc(5) counts from 1 and the first field here is number 3.
    let number = |position: usize| fields.get(position - 3)?.parse::<u64>().ok();
    let children_ticks = number(16)? + number(17)?;
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        zombie: matches!(fields.first(), Some(&("Z" | "X"))),
        ticks: number(14)? + number(15)? + children_ticks,
        children_ticks,
        threads: number(20)?,
        resident_pages: number(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        let stat = "7 (a) Z 1 (b) S 3 7 7 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 5 0 12345 1000000 250 184";
        let process = parse(7, stat).unwrap();
        assert_eq!(
            process,
            Process {
                pid: 7,
                parent: 3,
                zombie: false,
                ticks: 127,
                children_ticks: 7,
                threads: 5,
                resident_pages: 250
            }
        );
    }

    #[test]
    fn a_child_is_found_and_measured() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (found, own) = below(Pid::this());
        let id = i32::try_from(child.id()).unwrap();
        let seen = found.iter().any(|process| process.pid == id);
        let bytes = proportional_bytes(std::process::id().try_into().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen && own.is_some());
        assert!(bytes.is_some_and(|bytes| bytes > 0));
        assert!(threads_of_user(nix::unistd::Uid::current().as_raw()) > 1);
    }
}

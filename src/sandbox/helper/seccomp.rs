//! Closes the parts of the kernel that no test needs and that have let code out of sandboxes before.
//!
//! Filters of one errno each: most calls fail with EPERM; `clone3` fails with ENOSYS so that libraries fall back to
//! `clone`, whose flags can be seen. Tier landlock adds what namespaces do in tier bwrap: no sockets but connected
//! pairs, no leaving the process group (so that one signal kills all), nothing that reaches foreign processes. There,
//! changes of mode, owner and time are ignored but succeed: Landlock cannot confine them to the workspace, and copying
//! files, which harmless code does all the time, would fail without them.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::sandbox::Tier;

/// Rules by system call: each is a list of conditions that must all hold; no rule means always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Never needed by tests, in any tier.
const DENIED: [c_long; 49] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_fanotify_init,
    // Memory that belongs to no process and so escapes the watchdog.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_shmat,
];

/// What namespaces make harmless in tier bwrap.
const DENIED_WITHOUT_NAMESPACES: [c_long; 21] = [
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_inotify_add_watch,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    // setxattrat, removexattrat and file_setattr, newer than the libc crate; the numbers are the same everywhere.
    463,
    466,
    469,
    libc::SYS_msgctl,
];

/// Calls that act on the process in their first argument, where 0 is the caller.
const ONLY_ON_ITSELF: [c_long; 5] = [
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
];

/// Calls whose second argument says on whom they act, where 0 is the caller.
const ONLY_ON_ITSELF_SECOND: [c_long; 2] = [libc::SYS_setpriority, libc::SYS_ioprio_set];

/// Signals, denied where Landlock cannot keep them inside.
const SIGNALS: [c_long; 6] = [
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
];

/// Succeed without effect in tier landlock.
const IGNORED: [c_long; 4] = [libc::SYS_fchmodat, FCHMODAT2, libc::SYS_fchownat, libc::SYS_utimensat];

/// Newer than the libc crate on some architectures; the number is the same everywhere.
const FCHMODAT2: c_long = 452;

/// The old names of the same, where they exist.
#[cfg(target_arch = "x86_64")]
const IGNORED_OLD: [c_long; 6] =
    [libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
#[cfg(not(target_arch = "x86_64"))]
const IGNORED_OLD: [c_long; 0] = [];

/// Part of a socket type that is the type itself.
const SOCKET_TYPE_MASK: u64 = 0xf;

/// Confines this thread and all that it will start. `signals_scoped`: something else keeps signals inside.
pub(super) fn install(tier: Tier, signals_scoped: bool) -> Result<(), String> {
    let build = || -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
        let mut programs = vec![
            compile(denied(tier, signals_scoped)?, libc::EPERM)?,
            compile(Rules::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?,
        ];
        if tier == Tier::Landlock {
            let ignored = IGNORED.iter().chain(&IGNORED_OLD).map(|&call| (call, Vec::new())).collect();
            programs.push(compile(ignored, 0)?);
        }
        Ok(programs)
    };
    let mut programs = build().map_err(|error| format!("compile seccomp filters: {error}"))?;
    programs.extend(foreign_numbers());
    programs.iter().try_for_each(|program| apply_filter(program)).map_err(|error| format!("install seccomp: {error}"))
}

fn denied(tier: Tier, signals_scoped: bool) -> Result<Rules, seccompiler::BackendError> {
    let always = |calls: &[c_long]| calls.iter().map(|&call| (call, Vec::new())).collect::<Vec<_>>();
    let mut rules: Rules = always(&DENIED).into_iter().collect();
    let user_namespace = u64::from(libc::CLONE_NEWUSER as u32);
    rules.insert(libc::SYS_clone, vec![rule([masked(0, user_namespace, user_namespace)?])?]);
    // Typing into the terminal of whoever started us.
    let typing = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| rule([equal(1, request)?]));
    rules.insert(libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
    for call in ONLY_ON_ITSELF {
        rules.insert(call, vec![rule([differs(0, 0)?])?]);
    }
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(|family| differs(0, family as u64));
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(families.into_iter().collect::<Result<_, _>>()?)?]);
    if tier == Tier::Landlock {
        rules.extend(always(&DENIED_WITHOUT_NAMESPACES));
        for call in ONLY_ON_ITSELF_SECOND {
            rules.insert(call, vec![rule([differs(1, 0)?])?]);
        }
        // A datagram socket can send to any address, even as one of a pair; a raw one is a datagram socket here.
        let datagram = [libc::SOCK_DGRAM, libc::SOCK_RAW].map(|kind| rule([masked(1, SOCKET_TYPE_MASK, kind as u64)?]));
        rules.insert(libc::SYS_socketpair, datagram.into_iter().collect::<Result<_, _>>()?);
    }
    if !signals_scoped {
        rules.extend(always(&SIGNALS));
        let owner = [libc::F_SETOWN, F_SETOWN_EX].map(|command| rule([equal(1, command as u64)?]));
        rules.insert(libc::SYS_fcntl, owner.into_iter().collect::<Result<_, _>>()?);
    }
    Ok(rules)
}

/// `fcntl` command that names who gets a descriptor's signals; not in the libc crate.
const F_SETOWN_EX: i32 = 15;

fn compile(rules: Rules, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let action = SeccompAction::Errno(errno.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, action, architecture)?.try_into()
}

/// On x86-64 a second set of numbers (x32) would pass every filter above: none of them is allowed.
fn foreign_numbers() -> Option<BpfProgram> {
    const LOAD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const X32_BIT: u32 = 0x4000_0000;
    let step = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    let program = vec![
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 1, X32_BIT),
        step(RETURN, 0, 0, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()).into()),
        step(RETURN, 0, 0, SeccompAction::Allow.into()),
    ];
    cfg!(target_arch = "x86_64").then_some(program)
}

fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions.into())
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn differs(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    /// A filter holds for one thread, so a thread of its own can try it.
    fn behind<T: Send + 'static>(tier: Tier, signals_scoped: bool, act: impl FnOnce() -> T + Send + 'static) -> T {
        let confined = move || install(tier, signals_scoped).map(|()| act());
        std::thread::spawn(confined).join().unwrap().unwrap()
    }

    #[test]
    fn signals_are_denied_where_landlock_cannot_keep_them() {
        assert_eq!(behind(Tier::Landlock, false, || kill(Pid::this(), None)), Err(Errno::EPERM));
        assert_eq!(behind(Tier::Landlock, true, || kill(Pid::this(), None)), Ok(()));
    }

    #[test]
    fn sockets_are_denied_by_tier() {
        let pair = || std::os::unix::net::UnixStream::pair().is_ok();
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").is_ok();
        assert!(behind(Tier::Bwrap, true, listen));
        assert!(!behind(Tier::Landlock, true, listen));
        assert!(behind(Tier::Landlock, true, pair));
        assert!(!behind(Tier::Landlock, true, || { std::os::unix::net::UnixDatagram::pair().is_ok() }));
    }

    #[test]
    fn changes_of_mode_are_ignored_in_tier_landlock() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let before = std::fs::metadata(&path).unwrap().permissions().mode();
        let result = behind(Tier::Landlock, true, move || {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).is_ok()
        });
        assert!(result);
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode(), before);
    }
}

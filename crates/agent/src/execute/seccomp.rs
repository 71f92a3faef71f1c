//! The seccomp filter of programs (seccomp(2)): the [refused](super::refused_calls) system calls as a classic BPF
//! program.
//!
//! The filter is a binary search over ranges of numbers, built once: the kernel evaluates it for every number when
//! it is installed (`seccomp_cache_prepare`, kernel/seccomp.c), which is on an execution's path. Afterwards calls
//! that are always allowed are looked up in the kernel's bitmap.

use std::sync::OnceLock;

use libc::{
    BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, ENOSYS,
    EPERM, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, sock_filter,
};

use super::refused_calls::Action::{self, AllowValueOrRefuseBits, Refuse, RefuseBits, RefuseValue};
use super::refused_calls::{Call, LAST, NAMESPACES, NAMESPACES_32, OTHERS, OTHERS_32};

/// Offsets in `struct seccomp_data` (include/uapi/linux/seccomp.h). Of the first argument, its low half.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// AUDIT_ARCH_X86_64 and AUDIT_ARCH_I386 (include/uapi/linux/audit.h).
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

/// The filters of the three kinds of programs.
#[derive(Debug)]
pub struct Filters {
    confined: Vec<sock_filter>,
    /// Root with a user namespace could mount its cgroup anew, whose files belong to root, and raise its limits.
    unconfined_root: Vec<sock_filter>,
}

impl Filters {
    /// The filter of a program; none for an unconfined one that is not root.
    pub fn of(&self, unconfined: bool, root: bool) -> Option<&[sock_filter]> {
        match (unconfined, root) {
            (false, _) => Some(&self.confined),
            (true, true) => Some(&self.unconfined_root),
            (true, false) => None,
        }
    }
}

/// The filters. Call it once before the first stage: afterwards it only reads.
pub fn filters() -> &'static Filters {
    static FILTERS: OnceLock<Filters> = OnceLock::new();
    FILTERS.get_or_init(|| Filters {
        confined: build(
            &[NAMESPACES, OTHERS].concat(),
            &[NAMESPACES_32, OTHERS_32].concat(),
        ),
        unconfined_root: build(NAMESPACES, NAMESPACES_32),
    })
}

fn build(refused: &[Call], refused_32: &[Call]) -> Vec<sock_filter> {
    let (native, compatible) = (search(&ranges(refused)), search(&ranges(refused_32)));
    let mut program = vec![load(ARCHITECTURE)];
    for (architecture, search) in [(X86_64, native), (I386, compatible)] {
        // BPF_JA, because a search can be longer than a conditional jump reaches.
        program.extend([
            jump(BPF_JEQ, architecture, 1, 0),
            skip(search.len() + 1),
            load(NUMBER),
        ]);
        program.extend(search);
    }
    program.push(refuse(ENOSYS));
    program
}

/// The first number of each range, and what happens to the calls in it.
fn ranges(refused: &[Call]) -> Vec<(u32, Action)> {
    let mut refused: Vec<(u32, Action)> = refused
        .iter()
        .map(|(number, action)| (*number as u32, *action))
        .collect();
    refused.sort_unstable_by_key(|(number, _)| *number);
    let mut ranges = vec![(0, Action::Allow)];
    let mut add = |first, action| match ranges.last_mut() {
        Some((start, last)) if *start == first => *last = action,
        Some((_, last)) if *last == action => {}
        _ => ranges.push((first, action)),
    };
    for (number, action) in refused {
        add(number, action);
        add(number + 1, Action::Allow);
    }
    add(LAST + 1, Refuse(ENOSYS));
    ranges
}

/// Instructions that find the accumulator's range and carry out its action.
fn search(ranges: &[(u32, Action)]) -> Vec<sock_filter> {
    if let [(_, action)] = ranges {
        return carry_out(*action);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let (first, lower, upper) = (upper[0].0, search(lower), search(upper));
    let mut program = vec![jump(BPF_JGE, first, lower.len(), 0)];
    program.extend(lower);
    program.extend(upper);
    program
}

fn carry_out(action: Action) -> Vec<sock_filter> {
    match action {
        Action::Allow => vec![allow()],
        Refuse(errno) => vec![refuse(errno)],
        RefuseBits(bits) => vec![
            load(FIRST_ARGUMENT),
            jump(BPF_JSET, bits, 0, 1),
            refuse(EPERM),
            allow(),
        ],
        RefuseValue(value, errno) => vec![
            load(FIRST_ARGUMENT),
            jump(BPF_JEQ, value, 0, 1),
            refuse(errno),
            allow(),
        ],
        AllowValueOrRefuseBits(value, bits) => vec![
            load(FIRST_ARGUMENT),
            jump(BPF_JEQ, value, 2, 0),
            jump(BPF_JSET, bits, 0, 1),
            refuse(EPERM),
            allow(),
        ],
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

/// Skips `then` instructions if the condition holds, else `otherwise`. A jump reaches 255 instructions; a test
/// verifies each.
fn jump(condition: u32, operand: u32, then: usize, otherwise: usize) -> sock_filter {
    instruction(BPF_JMP | condition | BPF_K, operand, then, otherwise)
}

fn skip(instructions: usize) -> sock_filter {
    sock_filter {
        k: instructions as u32,
        ..instruction(BPF_JMP | BPF_JA, 0, 0, 0)
    }
}

fn allow() -> sock_filter {
    instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0)
}

fn refuse(errno: i32) -> sock_filter {
    instruction(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errno as u32, 0, 0)
}

fn instruction(code: u32, k: u32, then: usize, otherwise: usize) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: then as u8,
        jf: otherwise as u8,
        k,
    }
}

#[cfg(test)]
mod tests {
    use libc::EAFNOSUPPORT;

    use super::*;

    const ALLOWED: u32 = SECCOMP_RET_ALLOW;

    /// Runs the filter on a call by the rules of classic BPF, and returns its value.
    fn verdict(architecture: u32, number: u32, argument: u32) -> u32 {
        verdict_of(&filters().confined, architecture, number, argument)
    }

    fn verdict_of(program: &[sock_filter], architecture: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let condition = match u32::from(code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    accumulator = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FIRST_ARGUMENT => argument,
                        other => panic!("load of {other}"),
                    };
                    continue;
                }
                code if code == BPF_JMP | BPF_JA => {
                    at += k as usize;
                    continue;
                }
                code if code == BPF_RET | BPF_K => return k,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => accumulator == k,
                code if code == BPF_JMP | BPF_JGE | BPF_K => accumulator >= k,
                code if code == BPF_JMP | BPF_JSET | BPF_K => accumulator & k != 0,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if condition { jt } else { jf });
        }
    }

    fn native(number: libc::c_long, argument: u32) -> u32 {
        verdict(X86_64, number as u32, argument)
    }

    fn refused(errno: i32) -> u32 {
        SECCOMP_RET_ERRNO | errno as u32
    }

    /// Each number by the lists, without the search.
    fn expected(refused_calls: &[Call], number: u32) -> Action {
        match refused_calls
            .iter()
            .find(|(refused, _)| *refused as u32 == number)
        {
            Some((_, action)) => *action,
            None if number > LAST => Refuse(ENOSYS),
            None => Action::Allow,
        }
    }

    #[test]
    fn the_search_finds_the_action_of_every_number() {
        let native = [NAMESPACES, OTHERS].concat();
        let compatible = [NAMESPACES_32, OTHERS_32].concat();
        for (architecture, list) in [(X86_64, native), (I386, compatible)] {
            for number in 0..2000 {
                let wanted = match expected(&list, number) {
                    Refuse(errno) => refused(errno),
                    // The argument 0 is none of those that are refused.
                    _ => ALLOWED,
                };
                assert_eq!(verdict(architecture, number, 0), wanted, "{number}");
            }
        }
    }

    #[test]
    fn jumps_are_in_reach() {
        for lists in [[NAMESPACES, OTHERS], [NAMESPACES_32, OTHERS_32]] {
            let ranges = ranges(&lists.concat());
            let (lower, _) = ranges.split_at(ranges.len() / 2);
            assert!(search(lower).len() < 256);
        }
        assert!(filters().confined.len() < 4096, "BPF_MAXINSNS");
    }

    #[test]
    fn threads_and_processes_are_cloned_namespaces_are_not() {
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u32;
        let process = libc::SIGCHLD as u32;
        for flags in [thread, process] {
            assert_eq!(native(libc::SYS_clone, flags), ALLOWED);
        }
        for namespace in [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWPID,
        ] {
            let flags = namespace as u32;
            assert_eq!(native(libc::SYS_clone, process | flags), refused(EPERM));
            assert_eq!(native(libc::SYS_unshare, flags), refused(EPERM));
        }
        let files = libc::CLONE_FILES as u32;
        assert_eq!(native(libc::SYS_unshare, files), ALLOWED);
        assert_eq!(native(libc::SYS_clone3, 0), refused(ENOSYS));
    }

    #[test]
    fn unconfined_root_gets_no_namespaces_and_mounts() {
        let Filters {
            unconfined_root, ..
        } = filters();
        let verdict = |number: libc::c_long, argument| {
            verdict_of(unconfined_root, X86_64, number as u32, argument)
        };
        let user = libc::CLONE_NEWUSER as u32;
        assert_eq!(verdict(libc::SYS_unshare, user), refused(EPERM));
        assert_eq!(verdict(libc::SYS_mount, 0), refused(EPERM));
        assert_eq!(verdict(libc::SYS_io_uring_setup, 0), ALLOWED);
        assert_eq!(filters().of(true, false), None);
    }

    #[test]
    fn sockets_are_of_every_family_but_vsock() {
        for family in [
            libc::AF_UNIX,
            libc::AF_INET,
            libc::AF_INET6,
            libc::AF_NETLINK,
        ] {
            assert_eq!(native(libc::SYS_socket, family as u32), ALLOWED);
        }
        let vsock = libc::AF_VSOCK as u32;
        assert_eq!(native(libc::SYS_socket, vsock), refused(EAFNOSUPPORT));
    }

    #[test]
    fn a_personality_turns_off_address_randomization_alone() {
        const MMAP_PAGE_ZERO: u32 = 0x0010_0000;
        const READ_IMPLIES_EXEC: u32 = 0x0040_0000;
        for personality in [0, 0x0004_0000, u32::MAX] {
            assert_eq!(native(libc::SYS_personality, personality), ALLOWED);
        }
        for personality in [MMAP_PAGE_ZERO, READ_IMPLIES_EXEC] {
            assert_eq!(native(libc::SYS_personality, personality), refused(EPERM));
        }
    }

    #[test]
    fn calls_of_another_architecture_do_not_exist() {
        const X32_BIT: u32 = 0x4000_0000;
        const AARCH64: u32 = 0xc000_00b7;
        assert_eq!(verdict(X86_64, X32_BIT, 0), refused(ENOSYS));
        assert_eq!(verdict(AARCH64, 0, 0), refused(ENOSYS));
    }
}

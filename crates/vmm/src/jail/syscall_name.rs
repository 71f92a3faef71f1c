//! Names of system calls, for messages.

use syscalls::Sysno;

/// The name of the x86-64 system call of this number, or `unknown`.
pub fn syscall_name(number: i64) -> &'static str {
    let known = usize::try_from(number).ok().and_then(Sysno::new);
    known.map_or("unknown", |call| call.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_name_of_its_call() {
        assert_eq!(syscall_name(libc::SYS_ptrace), "ptrace");
        assert_eq!(syscall_name(libc::SYS_io_uring_setup), "io_uring_setup");
        assert_eq!(syscall_name(-1), "unknown");
    }
}

//! SIGSYS: tells the host which system call was forbidden, and ends the process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// The exit code of a process that made a forbidden system call: 128 + SIGSYS.
pub const FORBIDDEN_EXIT_CODE: u8 = 128 + 31;

/// The control socket.
static CONTROL: AtomicI32 = AtomicI32::new(-1);

/// Installs the handler. Without it, or where SIGSYS is blocked, the kernel kills the process at the signal.
pub(super) fn install(control: BorrowedFd<'_>) -> io::Result<()> {
    CONTROL.store(control.as_raw_fd(), Ordering::Relaxed);
    // SAFETY: all bytes zero are a valid `sigaction`, and the handler's signature is that of SA_SIGINFO.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            on_sigsys;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The place of `si_syscall` in `siginfo_t` (asm-generic/siginfo.h, 64 bits): after `si_call_addr`.
const SI_SYSCALL: usize = 24;

/// Async-signal-safe: it reads the signal's information, writes one packet from its stack, and ends the process.
extern "C" fn on_sigsys(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a `siginfo_t` of 128 bytes, aligned to 8, and SIGSYS fills `si_syscall`.
    let number = unsafe { info.cast::<u8>().add(SI_SYSCALL).cast::<i32>().read() };
    let mut buffer = [0; MESSAGE];
    let message = message(number, &mut buffer);
    // SAFETY: write reads the message from the stack. A full or closed socket is an error that changes nothing.
    unsafe {
        libc::send(
            CONTROL.load(Ordering::Relaxed),
            message.as_ptr().cast(),
            message.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        );
        libc::_exit(FORBIDDEN_EXIT_CODE.into());
    }
}

const BEFORE: &[u8] = br#"{"event":"exited","reason":{"kind":"forbidden_syscall","number":"#;
const AFTER: &[u8] = br#"},"console_dropped_bytes":0}"#;
/// Room for both and for ten digits and a sign.
const MESSAGE: usize = BEFORE.len() + AFTER.len() + 11;

/// [`crate::control::Event::Exited`] in JSON, made without allocation.
fn message(number: i32, buffer: &mut [u8; MESSAGE]) -> &[u8] {
    let mut digits = [0; 11];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    let mut length = 0;
    for byte in BEFORE.iter().chain(&digits[at..]).chain(AFTER) {
        buffer[length] = *byte;
        length += 1;
    }
    &buffer[..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Event, ExitReason};

    #[test]
    fn the_report_is_an_event_of_the_control_protocol() {
        for number in [0, 101, i32::MAX, i32::MIN] {
            let mut buffer = [0; MESSAGE];
            let event: Event = serde_json::from_slice(message(number, &mut buffer)).unwrap();
            let Event::Exited(report) = event else {
                panic!("{event:?}");
            };
            assert_eq!(report.reason, ExitReason::ForbiddenSyscall { number });
        }
    }
}

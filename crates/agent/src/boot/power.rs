//! How a VM ends from inside.

use nix::sys::reboot::{RebootMode, reboot};

/// Turn the VM off.
pub fn off() -> ! {
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_POWER_OFF);
    // Only without the right to do so, which PID 1 has.
    loop {
        nix::unistd::pause();
    }
}

/// Say on the console why there is no going on, and turn the VM off.
pub fn fatal(error: &str) -> ! {
    eprintln!("cloude-agent: fatal: {error}");
    drain_console();
    off()
}

/// A panic of PID 1 would be one of the kernel; say what happened instead, and turn the VM off.
pub fn set_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("cloude-agent: fatal: {panic}");
        drain_console();
        off()
    }));
}

/// Powering off does not wait for what the console has not sent yet.
fn drain_console() {
    // SAFETY: a plain system call on a plain number.
    unsafe { libc::tcdrain(2) };
}

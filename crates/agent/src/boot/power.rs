//! Powers the VM off.

use nix::sys::reboot::{RebootMode, reboot};

/// Syncs and powers the VM off (reboot(2)).
pub fn off() -> ! {
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_POWER_OFF);
    // reboot returns without CAP_SYS_BOOT, which PID 1 has.
    loop {
        nix::unistd::pause();
    }
}

/// Logs a fatal error to the console and powers the VM off.
pub fn fatal(error: &str) -> ! {
    eprintln!("cloude-agent: fatal: {error}");
    drain_console();
    off()
}

/// Logs a panic and powers the VM off. The exit of PID 1 would panic the kernel.
pub fn set_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("cloude-agent: fatal: {panic}");
        drain_console();
        off()
    }));
}

/// Waits until the console has sent its buffer: power-off does not.
fn drain_console() {
    // SAFETY: tcdrain(3) with a number.
    unsafe { libc::tcdrain(2) };
}

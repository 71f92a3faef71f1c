//! `cloude-agent`: PID 1 of a micro-VM. It sets the guest up, then serves `GET /health`, `POST /warm`,
//! `POST /execute` and `POST /input` over HTTP/1.1, on vsock and on the VM's IP address if it has a network.
//!
//! - [`boot`]: mounts, modules, host name, network, console shell, power-off.
//! - [`http`]: the server: blocking, one thread per connection, everything bounded.
//! - [`execute`]: one program: files, compile and run stages, limits, events.
//! - [`identity`]: entropy, clock, names and network of a fork.
//! - [`options`]: the same server as an ordinary process, for development and tests.
//!
//! The binary is static, so that it runs in any image. It does not use NSS: [`user`] parses /etc/passwd.

pub mod boot;
pub mod execute;
pub mod http;
pub mod identity;
pub mod net;
pub mod options;
pub mod spare;
pub mod uevent;
pub mod user;
pub mod vsock;

/// Boots the guest as PID 1; serves as an ordinary process otherwise. Returns the exit code.
pub fn main() -> i32 {
    if std::process::id() == 1 {
        boot::run()
    } else {
        options::run()
    }
}

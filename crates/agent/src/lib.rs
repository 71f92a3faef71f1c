//! `cloude-agent`: PID 1 of a micro-VM. It sets the guest up, then answers `GET /health` and
//! `POST /execute` over HTTP/1.1 on vsock and, where the VM has a network, on its own address.
//!
//! - [`boot`]: mounts, modules, identity, network, console shell, power-off.
//! - [`http`]: the server: bounded, blocking, one thread a connection.
//! - [`execute`]: one program: files, compile and run stages, limits, events.
//! - [`options`]: serving as an ordinary process, for development and tests.
//!
//! The agent is static and resolves no names: users are read from /etc/passwd by [`user`].
#![deny(missing_docs)]

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

/// Run as PID 1, or as an ordinary server where told to. Gives the exit code.
pub fn main() -> i32 {
    if std::process::id() == 1 {
        boot::run()
    } else {
        options::run()
    }
}

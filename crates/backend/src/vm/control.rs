//! A worker process and its control socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::Child;

use cloude_protocol::agent::Cause;
use cloude_vmm::control::{self, Channel, ChannelError, Event, ExitReason, Request};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Death;

/// Every worker is a host of its own to its one guest, so that all guests have the same number;
/// 0 to 2 are reserved (include/uapi/linux/vm_sockets.h).
pub const GUEST_CID: u32 = 3;

/// `AsyncFd` asks for a raw descriptor.
struct Pollable(Channel);

impl AsRawFd for Pollable {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A worker. Dropped, it is killed and reaped; [`Worker::stop`] does so off the async threads.
pub struct Worker {
    child: Option<Child>,
    channel: AsyncFd<Pollable>,
}

impl Worker {
    /// Starts `cloude-vmm worker`.
    pub async fn spawn(binary: &Path) -> io::Result<Self> {
        let path = binary.to_owned();
        let (child, channel) = tokio::task::spawn_blocking(move || control::spawn(&path))
            .await
            .map_err(io::Error::other)??;
        Worker::of(child, channel)
    }

    /// The worker that `child` is, with the host's end of its control socket.
    pub(super) fn of(child: Child, channel: Channel) -> io::Result<Self> {
        // The guard first: an error below must not leave the process.
        let child = Reaper(Some(child));
        // SAFETY: the channel owns its descriptor, is owned by the `AsyncFd` until both are dropped,
        // and never exchanges it: `as_raw_fd` gives the same open descriptor all the while.
        let channel =
            unsafe { AsyncFd::register_with_interest(Pollable(channel), Interest::READABLE) }?;
        Ok(Worker {
            child: child.release(),
            channel,
        })
    }

    /// The worker's process id.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.id() as i32)
    }

    /// Sends a request and copies of the descriptors. Does not wait: a worker that stopped reading its
    /// requests is an error, [`ChannelError::Full`], and is to be killed.
    pub fn send(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.channel.get_ref().0.try_send(request, descriptors)
    }

    /// Waits for the next event. Nothing is lost if this is dropped.
    pub async fn event(&self) -> Result<Event, ChannelError> {
        Ok(self.event_with_descriptors().await?.0)
    }

    /// As [`Worker::event`], with the descriptors that came with it.
    pub async fn event_with_descriptors(&self) -> Result<(Event, Vec<OwnedFd>), ChannelError> {
        loop {
            let mut ready = self.channel.readable().await?;
            match self.channel.get_ref().0.try_recv::<Event>()? {
                Some(received) => return Ok(received),
                None => ready.clear_ready(),
            }
        }
    }

    /// Waits until the VM ends and says why.
    pub async fn death(&self) -> Death {
        loop {
            match self.event().await {
                Ok(event) => {
                    if let Some(death) = death_of(&event) {
                        return death;
                    }
                }
                Err(error) => {
                    return Death::infrastructure(format!("the VM's worker is gone: {error}"));
                }
            }
        }
    }

    /// Kills and reaps.
    pub async fn stop(mut self) {
        let mut reaper = Reaper(self.child.take());
        // At once, so that the blocking thread below has little to wait for.
        reaper.kill();
        let reaped = tokio::task::spawn_blocking(move || drop(reaper)).await;
        if let Err(error) = reaped {
            tracing::error!(%error, "reaping a worker");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(Reaper(self.child.take()));
    }
}

/// Kills and reaps its child when dropped.
struct Reaper(Option<Child>);

impl Reaper {
    fn kill(&mut self) {
        if let Some(child) = &mut self.0 {
            // Fails only when it has ended already.
            let _ = child.kill();
        }
    }

    fn release(mut self) -> Option<Child> {
        self.0.take()
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut child) = self.0.take() {
            let _ = child.wait();
        }
    }
}

/// What an event says about the VM's end, if it does.
pub fn death_of(event: &Event) -> Option<Death> {
    match event {
        Event::Exited(report) => Some(Death {
            cause: cause_of(&report.reason),
            message: format!("the VM ended: {}", report.reason),
        }),
        Event::Failed { message } => Some(Death::infrastructure(format!(
            "the VM could not be made: {message}"
        ))),
        _ => None,
    }
}

/// What the guest did itself is its own; what KVM or we did is not.
fn cause_of(reason: &ExitReason) -> Cause {
    match reason {
        ExitReason::PowerOff | ExitReason::Reset | ExitReason::Panic | ExitReason::TripleFault => {
            Cause::GuestPanic
        }
        _ => Cause::Infrastructure,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use cloude_vmm::control::ExitReport;

    use super::*;

    fn script(dir: &Path, body: &str) -> std::path::PathBuf {
        let path = dir.join("worker");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_guests_own_end_is_told_from_the_hosts_failure() {
        let exited = |reason| {
            death_of(&Event::Exited(ExitReport {
                reason,
                console_dropped_bytes: 0,
            }))
            .unwrap()
        };
        assert_eq!(exited(ExitReason::Panic).cause, Cause::GuestPanic);
        assert_eq!(
            exited(ExitReason::FailEntry { reason: 7 }).cause,
            Cause::Infrastructure
        );
        let panicked = exited(ExitReason::WorkerPanic {
            message: "panicked at x.rs:1".to_owned(),
        });
        assert_eq!(panicked.cause, Cause::Infrastructure);
        assert!(panicked.message.contains("panicked at x.rs:1"));
        assert_eq!(death_of(&Event::Ready), None);
    }

    #[tokio::test]
    async fn a_worker_that_ends_without_a_word_is_an_infrastructure_death() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::spawn(&script(dir.path(), "exit 3")).await.unwrap();
        let death = worker.death().await;
        assert_eq!(death.cause, Cause::Infrastructure);
        assert!(death.message.contains("gone"), "{}", death.message);
    }

    #[tokio::test]
    async fn a_worker_that_reads_nothing_is_an_error_and_blocks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::spawn(&script(dir.path(), "exec sleep 1000"))
            .await
            .unwrap();
        let request = Request::ConsoleInput {
            bytes: vec![0; 4096],
        };
        let error = loop {
            if let Err(error) = worker.send(&request, &[]) {
                break error;
            }
        };
        assert!(matches!(error, ChannelError::Full), "{error}");
        worker.stop().await;
    }

    #[tokio::test]
    async fn a_stopped_worker_is_killed_and_reaped() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::spawn(&script(dir.path(), "exec sleep 1000"))
            .await
            .unwrap();
        let proc = format!("/proc/{}", worker.pid());
        assert!(Path::new(&proc).exists());
        worker.stop().await;
        assert!(!Path::new(&proc).exists(), "not even a zombie");
    }
}

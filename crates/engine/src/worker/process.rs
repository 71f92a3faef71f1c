//! One worker process (`cloude-vmm worker`) and its control socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use cloude_protocol::agent::Cause;
use cloude_vmm::control::{
    self, Channel, ChannelError, Event, ExitReason, Request, SpawnOptions, WorkerProcess,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Failure;
use crate::run_dir::WorkerFile;

/// The vsock context id of every guest. Each worker is a separate vsock host, so ids cannot collide; 0 to 2
/// are reserved (include/uapi/linux/vm_sockets.h).
pub const GUEST_CID: u32 = 3;

/// [`AsyncFd`] needs [`AsRawFd`].
struct Pollable(Channel);

impl AsRawFd for Pollable {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A worker. Dropping it kills and reaps the process, which blocks; [`Worker::stop`] does so off the async
/// threads.
pub struct Worker {
    process: Option<WorkerProcess>,
    channel: AsyncFd<Pollable>,
    /// Removed after the process is reaped: fields are dropped after [`Worker::drop`] has run.
    file: Option<WorkerFile>,
}

impl Worker {
    /// Spawns `binary worker` with its control socket as descriptor 3.
    pub async fn spawn(binary: &Path, options: SpawnOptions) -> io::Result<Self> {
        let path = binary.to_owned();
        let spawn = move || control::spawn(&path, &options);
        let (process, channel) = tokio::task::spawn_blocking(spawn)
            .await
            .map_err(io::Error::other)??;
        Worker::of(process, channel)
    }

    /// The worker of a process and of the host's end of its control socket.
    pub(super) fn of(process: WorkerProcess, channel: Channel) -> io::Result<Self> {
        // Guarded first: an error below must not leave the process.
        let process = Reaper(Some(process));
        // SAFETY: the channel owns its descriptor and never replaces it, and the `AsyncFd` owns the channel:
        // `as_raw_fd` returns the same open descriptor for as long as the `AsyncFd` exists.
        let channel =
            unsafe { AsyncFd::register_with_interest(Pollable(channel), Interest::READABLE) }?;
        Ok(Worker {
            process: process.release(),
            channel,
            file: None,
        })
    }

    /// Ties the worker's file in the run directory to its life.
    pub(super) fn with_file(self, file: Option<WorkerFile>) -> Self {
        let mut worker = self;
        worker.file = file;
        worker
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.process
            .as_ref()
            .map_or(0, |process| process.id() as i32)
    }

    /// Sends a request and duplicates of the descriptors. Never blocks: [`ChannelError::Full`] means that the
    /// worker has stopped reading, and must be killed.
    pub fn try_send(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.channel.get_ref().0.try_send(request, descriptors)
    }

    /// [`Worker::try_send`] with the error of an execution.
    pub fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        self.try_send(request, descriptors).map_err(|error| {
            Failure::infrastructure(format!("sending to the VM's worker: {error}"))
        })
    }

    /// The next event with its descriptors. The VM's end is an error.
    pub async fn next(&self) -> Result<(Event, Vec<OwnedFd>), Failure> {
        let (event, descriptors) = self.event_with_descriptors().await.map_err(|error| {
            Failure::infrastructure(format!("the VM's worker is gone: {error}"))
        })?;
        match failure_of(&event) {
            Some(failure) => Err(failure),
            None => Ok((event, descriptors)),
        }
    }

    /// Waits for the next event. Cancel safe.
    pub async fn event(&self) -> Result<Event, ChannelError> {
        Ok(self.event_with_descriptors().await?.0)
    }

    /// [`Worker::event`] with the descriptors that the worker sent along.
    async fn event_with_descriptors(&self) -> Result<(Event, Vec<OwnedFd>), ChannelError> {
        loop {
            let mut ready = self.channel.readable().await?;
            match self.channel.get_ref().0.try_recv::<Event>()? {
                Some(received) => return Ok(received),
                None => ready.clear_ready(),
            }
        }
    }

    /// Waits until the VM ends, and returns the reason. Cancel safe.
    pub async fn failed(&self) -> Failure {
        loop {
            match self.event().await {
                Ok(event) => {
                    if let Some(failure) = failure_of(&event) {
                        return failure;
                    }
                }
                Err(error) => {
                    return Failure::infrastructure(format!("the VM's worker is gone: {error}"));
                }
            }
        }
    }

    /// Kills and reaps the process.
    pub async fn stop(mut self) {
        // The file is removed after the process is reaped, also if this future is dropped.
        let (reaper, file) = (Reaper(self.process.take()), self.file.take());
        // Killed here, so that the blocking thread waits as short as possible.
        reaper.kill();
        let reaped = tokio::task::spawn_blocking(move || {
            drop(reaper);
            drop(file);
        })
        .await;
        if let Err(error) = reaped {
            tracing::error!(%error, "reaping a worker");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(Reaper(self.process.take()));
    }
}

/// Kills and reaps its process when dropped.
struct Reaper(Option<WorkerProcess>);

impl Reaper {
    fn kill(&self) {
        if let Some(process) = &self.0 {
            // Fails for no process that this one has started.
            let _ = process.kill();
        }
    }

    fn release(mut self) -> Option<WorkerProcess> {
        self.0.take()
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut process) = self.0.take() {
            let _ = process.wait();
        }
    }
}

/// The failure that an event reports, if it ends the VM.
pub fn failure_of(event: &Event) -> Option<Failure> {
    match event {
        Event::Exited(report) => Some(Failure {
            cause: cause_of(&report.reason),
            message: format!("the VM ended: {}", report.reason),
        }),
        Event::Failed { message } => Some(Failure::infrastructure(format!(
            "the worker could not create or restore the VM: {message}"
        ))),
        _ => None,
    }
}

/// An end that the guest caused itself is `GuestPanic`; one that KVM or the worker caused is `Infrastructure`.
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
    fn a_guest_panic_is_not_an_infrastructure_failure() {
        let exited = |reason| {
            failure_of(&Event::Exited(ExitReport {
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
        assert_eq!(failure_of(&Event::Ready), None);
    }

    #[tokio::test]
    async fn a_worker_that_ends_silently_is_an_infrastructure_failure() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::spawn(&script(dir.path(), "exit 3"), SpawnOptions::default())
            .await
            .unwrap();
        let failure = worker.failed().await;
        assert_eq!(failure.cause, Cause::Infrastructure);
        assert!(failure.message.contains("gone"), "{}", failure.message);
    }

    #[tokio::test]
    async fn a_worker_that_reads_nothing_is_an_error_and_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::spawn(
            &script(dir.path(), "exec sleep 1000"),
            SpawnOptions::default(),
        )
        .await
        .unwrap();
        let request = Request::ConsoleInput {
            bytes: vec![0; 4096],
        };
        let error = loop {
            if let Err(error) = worker.try_send(&request, &[]) {
                break error;
            }
        };
        assert!(matches!(error, ChannelError::Full), "{error}");
        worker.stop().await;
    }

    #[tokio::test]
    async fn a_stopped_worker_is_killed_and_reaped() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::spawn(
            &script(dir.path(), "exec sleep 1000"),
            SpawnOptions::default(),
        )
        .await
        .unwrap();
        let proc = format!("/proc/{}", worker.pid());
        assert!(Path::new(&proc).exists());
        worker.stop().await;
        assert!(!Path::new(&proc).exists(), "the worker is left as a zombie");
    }
}

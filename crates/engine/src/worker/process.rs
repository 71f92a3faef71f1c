//! One worker process (`cloude-vmm worker`) and its control socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use cloude_protocol::agent::Cause;
use cloude_vmm::control::{self, Channel, ChannelError, Event, ExitReason, Request, WorkerProcess};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Failure;
use crate::isolation::Cell;
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
    // Dropped in this order: the file and the cell belong to a process that is reaped.
    process: Killed,
    file: Option<WorkerFile>,
    cell: Cell,
    channel: AsyncFd<Pollable>,
}

impl Worker {
    /// Spawns `binary worker` with its control socket as descriptor 3, in the cell that `cell` makes.
    pub async fn spawn(
        binary: &Path,
        cell: impl FnOnce() -> io::Result<Cell> + Send + 'static,
    ) -> io::Result<Self> {
        let path = binary.to_owned();
        let spawn = move || {
            let cell = cell()?;
            let (process, channel) = control::spawn(&path, &cell.options()?)?;
            Ok::<_, io::Error>((Killed(process), cell, channel))
        };
        // If the caller drops its future, what the thread returns is dropped: process first.
        let (process, cell, channel) = tokio::task::spawn_blocking(spawn)
            .await
            .map_err(io::Error::other)??;
        Worker::of(process, cell, channel)
    }

    /// The worker of a process and of the host's end of its control socket.
    pub(super) fn of(process: Killed, cell: Cell, channel: Channel) -> io::Result<Self> {
        // SAFETY: the channel owns its descriptor and never replaces it, and the `AsyncFd` owns the channel:
        // `as_raw_fd` returns the same open descriptor for as long as the `AsyncFd` exists.
        let registered =
            unsafe { AsyncFd::register_with_interest(Pollable(channel), Interest::READABLE) };
        let channel = match registered {
            Ok(channel) => channel,
            Err(error) => {
                drop((process, cell));
                return Err(error.into());
            }
        };
        Ok(Worker {
            process,
            file: None,
            cell,
            channel,
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
        self.process.0.id() as i32
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

    /// Another channel to the worker, for requests alone: events arrive here.
    pub(super) fn requests(&self) -> io::Result<Channel> {
        let socket = self.channel.get_ref().0.as_fd().try_clone_to_owned()?;
        Ok(Channel::new(socket))
    }

    /// [`Worker::try_send`] with the error of an execution.
    pub fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        self.try_send(request, descriptors).map_err(|error| {
            Failure::infrastructure(format!("sending to the VM's worker: {error}"))
        })
    }

    /// The next event with its descriptors. The VM's end is an error.
    pub async fn next(&self) -> Result<(Event, Vec<OwnedFd>), Failure> {
        let received = self.event_with_descriptors().await;
        let (event, descriptors) = received.map_err(|error| self.gone(&error))?;
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
                Err(error) => return self.gone(&error),
            }
        }
    }

    /// The failure of a worker that ended without a report.
    fn gone(&self, error: &ChannelError) -> Failure {
        let message = match self.cell.was_out_of_memory() {
            true => {
                "the VM's worker was killed: it reached the memory limit of its cgroup".to_owned()
            }
            false => format!("the VM's worker is gone: {error}"),
        };
        Failure::infrastructure(message)
    }

    /// Kills and reaps the process. Its cgroup is removed later.
    pub async fn stop(self) {
        let Worker {
            process,
            file,
            cell,
            channel: _channel,
        } = self;
        // Killed here, so that the blocking thread waits as short as possible.
        process.kill();
        let (reaped, done) = tokio::sync::oneshot::channel();
        // Runs to its end also if this future is dropped.
        tokio::task::spawn_blocking(move || {
            drop(process);
            drop(file);
            let _ = reaped.send(());
            drop(cell);
        });
        if done.await.is_err() {
            tracing::error!("reaping a worker: the blocking thread panicked");
        }
    }
}

/// A process that is killed and reaped when it is dropped.
pub(super) struct Killed(pub WorkerProcess);

impl Killed {
    fn kill(&self) {
        // Fails for no process that this one has started.
        let _ = self.0.kill();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.wait();
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
    use cloude_vmm::jail::{Wall, Walls};

    use super::*;
    use crate::config::Isolation;
    use crate::isolation::{Limits, Prison};

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
        let worker = Worker::spawn(&script(dir.path(), "exit 3"), || Ok(Cell::default()))
            .await
            .unwrap();
        let failure = worker.failed().await;
        assert_eq!(failure.cause, Cause::Infrastructure);
        assert!(failure.message.contains("gone"), "{}", failure.message);
    }

    #[tokio::test]
    async fn a_worker_that_needs_too_much_memory_is_killed_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let body = "exec python3 -c 'bytearray(512 << 20)'";
        let worker = script(dir.path(), body);
        let only_cgroup = Isolation {
            require: Walls::NONE.with(Wall::Cgroup),
            skip: Wall::ALL
                .into_iter()
                .filter(|wall| *wall != Wall::Cgroup)
                .collect(),
            ..Isolation::default()
        };
        let other = tempfile::tempdir().unwrap();
        let healthy = script(other.path(), "exit 0");
        let prison = Prison::open(&only_cgroup, dir.path(), &healthy).unwrap();
        let limits = Limits {
            memory: 64 << 20,
            threads: 9,
            vcpus: 1,
        };
        let cell = prison.cell(&limits).unwrap();

        let worker = Worker::spawn(&worker, move || Ok(cell)).await.unwrap();

        let failure = worker.failed().await;
        assert!(failure.message.contains("memory limit"), "{failure}");
    }

    #[tokio::test]
    async fn a_worker_that_reads_nothing_is_an_error_and_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::spawn(&script(dir.path(), "exec sleep 1000"), || {
            Ok(Cell::default())
        })
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
        let worker = Worker::spawn(&script(dir.path(), "exec sleep 1000"), || {
            Ok(Cell::default())
        })
        .await
        .unwrap();
        let proc = format!("/proc/{}", worker.pid());
        assert!(Path::new(&proc).exists());
        worker.stop().await;
        assert!(!Path::new(&proc).exists(), "the worker is left as a zombie");
    }
}

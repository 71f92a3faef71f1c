//! A VM that was created before it is known which snapshot it restores.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use cloude_protocol::agent::READY_PORT;
use cloude_vmm::control::{BlankVmSpec, CpuBaseline, Event, Request, TapSpec, VsockSpec};
use tokio::net::UnixStream;

use super::paused::PausedFork;
use super::process::{GUEST_CID, Worker};
use super::save::unexpected;
use crate::error::Failure;
use crate::machine::MachineShape;
use crate::snapshot::{Snapshot, WorkingSet};

/// The descriptors and settings of a blank VM.
pub struct BlankVmParts {
    /// /dev/kvm.
    pub kvm: File,
    /// The TAP of a shape with a network device.
    pub tap: Option<(TapSpec, OwnedFd)>,
    /// The write end of the console's pipe.
    pub console: OwnedFd,
    /// Must equal the baseline under which the snapshot was saved.
    pub cpu_baseline: CpuBaseline,
}

/// A worker with a KVM VM and devices, and no guest state.
pub struct BlankVm {
    worker: Worker,
}

impl BlankVm {
    /// Creates the KVM VM in a fresh worker. Takes milliseconds (a process, a memory slot), so it is done off
    /// a request's path where possible.
    pub async fn create(
        worker: Worker,
        shape: MachineShape,
        parts: BlankVmParts,
    ) -> Result<Self, Failure> {
        let mut descriptors = vec![parts.kvm.as_fd()];
        descriptors.extend(parts.tap.as_ref().map(|(_, tap)| tap.as_fd()));
        descriptors.push(parts.console.as_fd());
        let spec = BlankVmSpec {
            vcpus: shape.vcpus,
            memory_mib: shape.memory_mib,
            tap: parts.tap.as_ref().map(|(spec, _)| spec.clone()),
            console: true,
            vsock: Some(VsockSpec {
                guest_cid: GUEST_CID,
                ready_port: READY_PORT,
            }),
            cpu_baseline: parts.cpu_baseline,
        };
        worker.send(&Request::Blank(spec), &descriptors)?;
        match worker.next().await?.0 {
            Event::BlankReady => Ok(BlankVm { worker }),
            other => Err(unexpected(&other, "`blank_ready`")),
        }
    }

    /// Restores a snapshot; the vCPUs stay paused. The pages of a working set are mapped or copied ahead, so
    /// that the guest's first accesses to them cause no page faults.
    pub async fn restore(
        self,
        snapshot: &Snapshot,
        working_set: Option<&WorkingSet>,
    ) -> Result<PausedFork, Failure> {
        let (ours, workers) = UnixStream::pair()
            .map_err(|error| Failure::infrastructure(format!("a fork's stream: {error}")))?;
        let request = Request::Restore {
            origin: snapshot.origin.clone(),
            working_set: working_set.is_some(),
        };
        let mut descriptors = vec![
            snapshot.memory.as_fd(),
            snapshot.state.as_fd(),
            workers.as_fd(),
        ];
        descriptors.extend(working_set.map(|set| set.list.as_fd()));
        self.worker.send(&request, &descriptors)?;
        drop(workers);
        match self.worker.next().await?.0 {
            Event::Restored { costs } => Ok(PausedFork {
                worker: self.worker,
                stream: ours,
                costs,
            }),
            other => Err(unexpected(&other, "`restored`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use cloude_vmm::control::{Channel, RestoreCosts};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::fake::{file, origin, worker};
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            memory: Arc::new(file("memory")),
            state: Arc::new(file("state")),
            origin: origin(),
        }
    }

    fn parts() -> BlankVmParts {
        BlankVmParts {
            kvm: file("kvm"),
            tap: None,
            console: file("console").into(),
            cpu_baseline: CpuBaseline::Host,
        }
    }

    const SHAPE: MachineShape = MachineShape {
        vcpus: 2,
        memory_mib: 64,
        network: false,
    };

    fn text(file: &OwnedFd) -> String {
        let file = File::from(file.try_clone().unwrap());
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn blank_ready(channel: &Channel) {
        let (request, _) = channel.recv::<Request>().unwrap();
        assert!(matches!(request, Request::Blank(_)), "{request:?}");
        channel.send(&Event::BlankReady, &[]).unwrap();
    }

    #[tokio::test]
    async fn a_restored_forks_stream_leads_to_its_worker() {
        let worker = worker(|channel| {
            blank_ready(&channel);
            let (request, fds) = channel.recv::<Request>().unwrap();
            let restore = Request::Restore {
                origin: origin(),
                working_set: false,
            };
            assert_eq!(request, restore);
            assert_eq!(
                (text(&fds[0]), text(&fds[1])),
                ("memory".into(), "state".into())
            );
            let costs = RestoreCosts {
                ioctls: 5,
                ..RestoreCosts::default()
            };
            channel.send(&Event::Restored { costs }, &[]).unwrap();
            assert_eq!(channel.recv::<Request>().unwrap().0, Request::Resume);
            channel.send(&Event::Started, &[]).unwrap();
            let mut byte = [0];
            let mut stream = std::os::unix::net::UnixStream::from(fds[2].try_clone().unwrap());
            stream.set_nonblocking(false).unwrap();
            std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
            std::io::Write::write_all(&mut stream, &[byte[0] + 1]).unwrap();
        });

        let blank = BlankVm::create(worker, SHAPE, parts()).await.unwrap();
        let fork = blank.restore(&snapshot(), None).await.unwrap();
        assert_eq!(fork.costs().ioctls, 5);
        assert!(!fork.is_dead());
        let (worker, mut stream) = fork.resume().unwrap();
        stream.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'b');
        worker.stop().await;
    }

    #[tokio::test]
    async fn a_refused_restore_is_a_failure_with_the_workers_reason() {
        let worker = worker(|channel| {
            blank_ready(&channel);
            channel.recv::<Request>().unwrap();
            let message = "another CPU".into();
            channel.send(&Event::Failed { message }, &[]).unwrap();
        });
        let blank = BlankVm::create(worker, SHAPE, parts()).await.unwrap();
        let failure = blank.restore(&snapshot(), None).await.err().unwrap();
        assert!(failure.message.contains("another CPU"), "{failure}");
    }

    #[tokio::test]
    async fn an_unexpected_worker_message_is_an_error() {
        let worker = worker(|channel| {
            channel.recv::<Request>().unwrap();
            channel.send(&Event::Started, &[]).unwrap();
        });
        let failure = BlankVm::create(worker, SHAPE, parts()).await.err().unwrap();
        assert!(failure.message.contains("Started"), "{failure}");
    }

    #[tokio::test]
    async fn a_fork_whose_worker_ended_is_dead() {
        let worker = worker(|channel| {
            blank_ready(&channel);
            channel.recv::<Request>().unwrap();
            let costs = RestoreCosts::default();
            channel.send(&Event::Restored { costs }, &[]).unwrap();
        });
        let blank = BlankVm::create(worker, SHAPE, parts()).await.unwrap();
        let fork = blank.restore(&snapshot(), None).await.unwrap();
        // The worker's thread closes its end of the socket when it returns.
        for _ in 0..60_000 {
            if fork.is_dead() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("the fork does not count as dead");
    }
}

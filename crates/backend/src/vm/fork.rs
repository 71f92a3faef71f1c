//! Saved VMs and what is made of them: a shell, made before it is known whose state it will take;
//! a fork, restored and paused; and then a VM that runs.
//!
//! None of this knows of identities: a stream that [`Fork::resume`] gives leads to an agent that is the
//! template's twin, and must get an identity before anything else.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use cloude_protocol::agent::READY_PORT;
use cloude_vmm::control::{
    CpuBaseline, Event, Origin, Request, RestoreCosts, ShellSpec, TapSpec, VsockSpec,
};
use tokio::net::UnixStream;

use super::control::{GUEST_CID, Worker, death_of};
use super::{AgentStream, Death};

/// The pages that forks of a template touch, as one of them has shown.
#[derive(Debug)]
pub struct WorkingSet {
    /// The list, for workers.
    pub list: File,
    /// Pages of 4 KiB that a fork writes to. They are copied when it is resumed.
    pub written_pages: u64,
    /// Pages that it only reads. They are mapped when it is made, and stay the template's.
    pub read_pages: u64,
}

/// A saved VM: its memory and its state, which nobody changes any more. Clones share it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The guest's memory: a sealed memfd, or a file of the disk cache.
    pub memory: Arc<File>,
    /// The record of all other state.
    pub record: Arc<File>,
    /// What it was booted of.
    pub origin: Origin,
}

/// What a shell must have in common with the templates that it can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// 1 to 8.
    pub vcpus: u8,
    /// MiB.
    pub memory_mib: u64,
    /// May it reach beyond the host? It has a network device then, and also without where agents are reached
    /// over IP.
    pub network: bool,
}

/// What a shell is given of its own.
pub struct Parts {
    /// /dev/kvm.
    pub kvm: File,
    /// Its TAP, for a shape with a network.
    pub tap: Option<(TapSpec, OwnedFd)>,
    /// The console's write end.
    pub console: OwnedFd,
    /// Which features of the host's processor its guest sees: the same as where the template was saved.
    pub cpu_baseline: CpuBaseline,
}

/// The next event that matters: a VM's end is an error.
async fn next(worker: &Worker) -> Result<(Event, Vec<OwnedFd>), Death> {
    let (event, descriptors) = worker
        .event_with_descriptors()
        .await
        .map_err(|error| Death::infrastructure(format!("the VM's worker is gone: {error}")))?;
    match death_of(&event) {
        Some(death) => Err(death),
        None => Ok((event, descriptors)),
    }
}

fn send(worker: &Worker, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), Death> {
    worker
        .send(request, fds)
        .map_err(|error| Death::infrastructure(format!("sending to the VM's worker: {error}")))
}

/// Which pages a restored VM has touched so far: a list for [`Shell::take`].
pub async fn working_set(worker: &Worker) -> Result<WorkingSet, Death> {
    let path = format!("/proc/{}/pagemap", worker.pid());
    let pagemap =
        File::open(&path).map_err(|error| Death::infrastructure(format!("{path}: {error}")))?;
    send(worker, &Request::WorkingSet, &[pagemap.as_fd()])?;
    loop {
        let (event, mut descriptors) = next(worker).await?;
        match (event, descriptors.pop()) {
            (
                Event::WorkingSet {
                    written_pages,
                    read_pages,
                },
                Some(list),
            ) => {
                return Ok(WorkingSet {
                    list: list.into(),
                    written_pages,
                    read_pages,
                });
            }
            (Event::Started | Event::Ready | Event::Connected { .. }, _) => {}
            (other, _) => return Err(unexpected(&other, "what its VM has touched")),
        }
    }
}

/// Any other answer than the one that the protocol has there.
fn unexpected(event: &Event, wanted: &str) -> Death {
    Death::infrastructure(format!("the VM's worker said {event:?}, not {wanted}"))
}

/// Saves the VM of a worker. It is paused from then on, and of no more use
/// than to be stopped.
pub async fn save(worker: &Worker, origin: Origin) -> Result<Snapshot, Death> {
    let request = Request::Save {
        origin: origin.clone(),
    };
    send(worker, &request, &[])?;
    loop {
        let (event, descriptors) = next(worker).await?;
        match event {
            Event::Saved => {
                let [memory, record] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|got| {
                    let count = got.len();
                    Death::infrastructure(format!(
                        "a saved VM came with {count} descriptors, not its memory and its record"
                    ))
                })?;
                return Ok(Snapshot {
                    memory: Arc::new(memory.into()),
                    record: Arc::new(record.into()),
                    origin,
                });
            }
            // What happened before it was told.
            Event::Started | Event::Ready | Event::Connected { .. } => {}
            other => return Err(unexpected(&other, "that the VM is saved")),
        }
    }
}

/// A worker with a VM that has no guest yet.
pub struct Shell {
    worker: Worker,
}

impl Shell {
    /// Makes a shell of a fresh worker. Takes long, as requests see it (a memslot, a process): never on
    /// a request's path if that can be helped.
    pub async fn make(worker: Worker, shape: Shape, parts: Parts) -> Result<Self, Death> {
        let mut descriptors = vec![parts.kvm.as_fd()];
        descriptors.extend(parts.tap.as_ref().map(|(_, tap)| tap.as_fd()));
        descriptors.push(parts.console.as_fd());
        let spec = ShellSpec {
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
        send(&worker, &Request::Shell(spec), &descriptors)?;
        match next(&worker).await?.0 {
            Event::ShellReady => Ok(Shell { worker }),
            other => Err(unexpected(&other, "that its shell is ready")),
        }
    }

    /// The worker's process.
    pub fn pid(&self) -> i32 {
        self.worker.pid()
    }

    /// Takes a template's state. The guest stays paused. With a working set its first accesses to those pages
    /// cost no page faults.
    pub async fn take(
        self,
        snapshot: &Snapshot,
        working_set: Option<&WorkingSet>,
    ) -> Result<Fork, Death> {
        let (ours, workers) = UnixStream::pair()
            .map_err(|error| Death::infrastructure(format!("a fork's stream: {error}")))?;
        let request = Request::Restore {
            origin: snapshot.origin.clone(),
            working_set: working_set.is_some(),
        };
        let mut descriptors = vec![
            snapshot.memory.as_fd(),
            snapshot.record.as_fd(),
            workers.as_fd(),
        ];
        descriptors.extend(working_set.map(|set| set.list.as_fd()));
        send(&self.worker, &request, &descriptors)?;
        drop(workers);
        match next(&self.worker).await?.0 {
            Event::Restored { costs } => Ok(Fork {
                worker: self.worker,
                stream: ours,
                costs,
            }),
            other => Err(unexpected(&other, "that its VM is restored")),
        }
    }

    /// Kills it, off the async threads.
    pub async fn stop(self) {
        self.worker.stop().await;
    }
}

/// A restored VM, paused at the instant at which its template was saved.
pub struct Fork {
    worker: Worker,
    stream: UnixStream,
    costs: RestoreCosts,
}

impl Fork {
    /// The worker's process.
    pub fn pid(&self) -> i32 {
        self.worker.pid()
    }

    /// What the restore cost.
    pub fn costs(&self) -> RestoreCosts {
        self.costs
    }

    /// Has its worker ended while it waited? Costs a system call; a fork that has is not to be handed out.
    pub fn is_dead(&self) -> bool {
        use futures_util::FutureExt;
        // A paused fork says nothing: whatever there is to receive is its end.
        self.worker.event().now_or_never().is_some()
    }

    /// Lets it run. The stream is the connection on which the template's agent waits for a request, which
    /// may be sent at once: whether it does run, the worker says as it says how a VM ends.
    pub fn resume(self) -> Result<(Worker, Box<dyn AgentStream>), Death> {
        send(&self.worker, &Request::Resume, &[])?;
        Ok((self.worker, Box::new(self.stream)))
    }

    /// Kills it, off the async threads.
    pub async fn stop(self) {
        self.worker.stop().await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use cloude_vmm::control::Channel;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A worker that is a thread: it answers as `play` says. Its process does nothing.
    fn worker(play: impl FnOnce(Channel) + Send + 'static) -> Worker {
        let (host, theirs) = Channel::pair().unwrap();
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        std::thread::spawn(move || play(theirs));
        Worker::of(child, host).unwrap()
    }

    fn file(text: &str) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        file
    }

    fn origin() -> Origin {
        Origin {
            kernel: "k".into(),
            initramfs: "i".into(),
        }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            memory: Arc::new(file("memory")),
            record: Arc::new(file("record")),
            origin: origin(),
        }
    }

    fn parts() -> Parts {
        Parts {
            kvm: file("kvm"),
            tap: None,
            console: file("console").into(),
            cpu_baseline: CpuBaseline::Host,
        }
    }

    const SHAPE: Shape = Shape {
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

    fn shell_ready(channel: &Channel) {
        let (request, _) = channel.recv::<Request>().unwrap();
        assert!(matches!(request, Request::Shell(_)), "{request:?}");
        channel.send(&Event::ShellReady, &[]).unwrap();
    }

    #[tokio::test]
    async fn a_shell_takes_a_snapshot_and_its_stream_leads_to_the_worker() {
        let worker = worker(|channel| {
            shell_ready(&channel);
            let (request, fds) = channel.recv::<Request>().unwrap();
            let restore = Request::Restore {
                origin: origin(),
                working_set: false,
            };
            assert_eq!(request, restore);
            assert_eq!(
                (text(&fds[0]), text(&fds[1])),
                ("memory".into(), "record".into())
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

        let shell = Shell::make(worker, SHAPE, parts()).await.unwrap();
        let fork = shell.take(&snapshot(), None).await.unwrap();
        assert_eq!(fork.costs().ioctls, 5);
        assert!(!fork.is_dead());
        let (worker, mut stream) = fork.resume().unwrap();
        stream.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'b');
        worker.stop().await;
    }

    #[tokio::test]
    async fn a_worker_that_refuses_a_state_is_an_infrastructure_death_with_its_words() {
        let worker = worker(|channel| {
            shell_ready(&channel);
            channel.recv::<Request>().unwrap();
            let message = "another CPU".into();
            channel.send(&Event::Failed { message }, &[]).unwrap();
        });
        let shell = Shell::make(worker, SHAPE, parts()).await.unwrap();
        let death = shell.take(&snapshot(), None).await.err().unwrap();
        assert!(death.message.contains("another CPU"), "{}", death.message);
    }

    #[tokio::test]
    async fn an_answer_out_of_turn_is_refused() {
        let worker = worker(|channel| {
            channel.recv::<Request>().unwrap();
            channel.send(&Event::Started, &[]).unwrap();
        });
        let death = Shell::make(worker, SHAPE, parts()).await.err().unwrap();
        assert!(death.message.contains("Started"), "{}", death.message);
    }

    #[tokio::test]
    async fn a_fork_whose_worker_ended_is_known_to_be_dead() {
        let worker = worker(|channel| {
            shell_ready(&channel);
            channel.recv::<Request>().unwrap();
            let costs = RestoreCosts::default();
            channel.send(&Event::Restored { costs }, &[]).unwrap();
        });
        let shell = Shell::make(worker, SHAPE, parts()).await.unwrap();
        let fork = shell.take(&snapshot(), None).await.unwrap();
        // The thread that played the worker has closed its end, or is about to.
        for _ in 0..60_000 {
            if fork.is_dead() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("the fork still passes for one that is alive");
    }

    #[tokio::test]
    async fn a_saved_vm_brings_memory_and_record_or_is_refused() {
        let complete = worker(|channel| {
            channel.recv::<Request>().unwrap();
            let (memory, record) = (file("m"), file("r"));
            let fds = [memory.as_fd(), record.as_fd()];
            channel.send(&Event::Ready, &[]).unwrap();
            channel.send(&Event::Saved, &fds).unwrap();
        });
        let saved = save(&complete, origin()).await.unwrap();
        assert_eq!(saved.memory.metadata().unwrap().len(), 1);

        let half = worker(|channel| {
            channel.recv::<Request>().unwrap();
            let memory = file("m");
            channel.send(&Event::Saved, &[memory.as_fd()]).unwrap();
        });
        let death = save(&half, origin()).await.unwrap_err();
        assert!(death.message.contains("1 descriptors"), "{}", death.message);
    }
}

//! Saving a VM, and listing the pages that it touched.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloude_vmm::control::{Event, Origin, Request};

use super::process::Worker;
use crate::error::Failure;
use crate::snapshot::{Snapshot, WorkingSet};

/// A message that the worker must not send at this point of the protocol.
pub(super) fn unexpected(event: &Event, expected: &str) -> Failure {
    Failure::infrastructure(format!(
        "the VM's worker sent {event:?} instead of {expected}"
    ))
}

/// Saves the worker's VM. The VM stays paused afterwards and can only be stopped.
pub async fn save(worker: &Worker, origin: Origin) -> Result<Snapshot, Failure> {
    let request = Request::Save {
        origin: origin.clone(),
    };
    worker.send(&request, &[])?;
    loop {
        let (event, descriptors) = worker.next().await?;
        match event {
            Event::Saved => {
                let [memory, state] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|got| {
                    let count = got.len();
                    Failure::infrastructure(format!(
                        "a saved VM came with {count} descriptors instead of 2 (memory and VM state)"
                    ))
                })?;
                return Ok(Snapshot {
                    memory: Arc::new(memory.into()),
                    state: Arc::new(state.into()),
                    origin,
                });
            }
            // Sent before the worker received the request.
            Event::Started | Event::Ready | Event::Connected { .. } => {}
            other => return Err(unexpected(&other, "`saved`")),
        }
    }
}

/// The pages that a restored VM has touched so far.
pub async fn working_set(worker: &Worker) -> Result<WorkingSet, Failure> {
    worker.send(&Request::WorkingSet, &[])?;
    loop {
        let (event, mut descriptors) = worker.next().await?;
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
            (other, _) => return Err(unexpected(&other, "`working_set`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::fake::{file, origin, worker};
    use super::*;

    #[tokio::test]
    async fn a_save_returns_memory_and_vm_state() {
        let worker = worker(|channel| {
            channel.recv::<Request>().unwrap();
            let (memory, state) = (file("m"), file("r"));
            let fds = [memory.as_fd(), state.as_fd()];
            channel.send(&Event::Ready, &[]).unwrap();
            channel.send(&Event::Saved, &fds).unwrap();
        });

        let saved = save(&worker, origin()).await.unwrap();

        assert_eq!(saved.memory.metadata().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_save_without_vm_state_is_an_error() {
        let worker = worker(|channel| {
            channel.recv::<Request>().unwrap();
            let memory = file("m");
            channel.send(&Event::Saved, &[memory.as_fd()]).unwrap();
        });

        let failure = save(&worker, origin()).await.unwrap_err();

        assert!(failure.message.contains("1 descriptors"), "{failure}");
    }
}

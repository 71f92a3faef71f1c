//! Workers that a killed clouded left. They end by themselves when its control sockets close; this
//! makes sure before their addresses are given out again.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::store::{Store, WorkerRecord};

/// Field 22 of /proc/PID/stat (proc(5)): when the process started, in clock ticks since boot.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, is in parentheses and may hold spaces and parentheses itself.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Records a worker that was started, so that a later clouded can end it, and find its VM's address taken.
pub fn record(store: &Store, pid: i32, ip: Option<Ipv4Addr>) {
    if let Some(start_time) = start_time(pid) {
        store.worker_started(WorkerRecord { pid, start_time }, ip);
    }
}

/// Kills a worker if it still is the same process, and waits until it is gone.
pub async fn end(worker: &WorkerRecord) {
    let Some(pid) = Pid::from_raw(worker.pid) else {
        return;
    };
    // The descriptor first: what it refers to cannot become another process.
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if start_time(worker.pid) != Some(worker.start_time) {
        return;
    }
    tracing::warn!(
        pid = worker.pid,
        "ending a worker that an earlier clouded left"
    );
    if let Err(error) = pidfd_send_signal(&handle, Signal::KILL) {
        tracing::error!(pid = worker.pid, %error, "ending a worker");
        return;
    }
    let proc = format!("/proc/{}", worker.pid);
    // It is not our child: whoever it fell to reaps it. Its memory and descriptors are gone before.
    for _ in 0..100 {
        if !Path::new(&proc).exists() || start_time(worker.pid) != Some(worker.start_time) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_very_same_process_is_ended() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let started = start_time(pid).unwrap();

        end(&WorkerRecord {
            pid,
            start_time: started + 1,
        })
        .await;
        assert!(
            child.try_wait().unwrap().is_none(),
            "another process of that number is left alone"
        );

        let reaped = tokio::task::spawn_blocking(move || child.wait());
        end(&WorkerRecord {
            pid,
            start_time: started,
        })
        .await;
        assert!(!reaped.await.unwrap().unwrap().success());
    }
}

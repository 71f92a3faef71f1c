//! Ends workers that outlived a killed process.
//!
//! A worker ends by itself when its control socket closes. Its address must not be given out again before it
//! has ended, so the next process waits for that.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::run_dir::{RecordedWorker, RunDir, start_time};

/// Polls of /proc before a worker that was killed is given up.
const POLLS: u32 = 100;
const POLL: Duration = Duration::from_millis(20);

/// Kills every worker that an earlier process recorded, and waits until they are gone.
pub async fn end_all(run_dir: &RunDir) {
    for (worker, file) in run_dir.workers() {
        end(&worker).await;
        drop(file);
    }
}

async fn end(worker: &RecordedWorker) {
    let Some(pid) = Pid::from_raw(worker.pid) else {
        return;
    };
    // Opened before the check: the process of a pidfd does not change.
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if start_time(worker.pid) != Some(worker.start_time) {
        return;
    }
    tracing::warn!(
        pid = worker.pid,
        "killing a worker that an earlier process left"
    );
    if let Err(error) = pidfd_send_signal(&handle, Signal::KILL) {
        tracing::error!(pid = worker.pid, %error, "killing a worker");
        return;
    }
    // Its parent is another process, which reaps it. Its memory and descriptors are released before that.
    let proc = format!("/proc/{}", worker.pid);
    for _ in 0..POLLS {
        if !Path::new(&proc).exists() || start_time(worker.pid) != Some(worker.start_time) {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_process_is_killed() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let started = start_time(pid).unwrap();

        end(&RecordedWorker {
            pid,
            start_time: started + 1,
        })
        .await;
        assert!(
            child.try_wait().unwrap().is_none(),
            "a later process of that number was killed"
        );

        let reaped = tokio::task::spawn_blocking(move || child.wait());
        end(&RecordedWorker {
            pid,
            start_time: started,
        })
        .await;
        assert!(!reaped.await.unwrap().unwrap().success());
    }
}

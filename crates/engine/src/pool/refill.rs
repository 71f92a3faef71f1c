//! Keeps paused forks ready.

use std::sync::Arc;
use std::time::Duration;

use super::list::private_kib;
use super::owner::Pool;
use super::plan::Make;

/// The pool is planned at each change, and after this time: to shrink an idle pool, and to replace forks
/// that failed.
const INTERVAL: Duration = Duration::from_secs(5);

/// Spawns the task that makes and stops forks until the pool closes.
pub fn spawn(pool: &Arc<Pool>) {
    let own = Arc::clone(pool);
    pool.tasks.spawn(async move { own.refill().await });
}

impl Pool {
    async fn refill(self: Arc<Self>) {
        let mut changes = self.forks.changes();
        loop {
            changes.mark_unchanged();
            let plan = self.forks.plan(self.forks_at_once());
            self.stop_all(plan.stop);
            for make in plan.make {
                let pool = Arc::clone(&self);
                self.tasks
                    .spawn(async move { pool.make_waiting_fork(make).await });
            }
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
                // Each finished fork is a change.
                _ = changes.changed() => {}
            }
        }
    }

    /// Forks made at a time: one for each CPU without a running VM, and at least one, so that the pool does not
    /// run empty on a busy host.
    fn forks_at_once(&self) -> usize {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        cpus.saturating_sub(self.parts.workers.running()).max(1)
    }

    async fn make_waiting_fork(&self, make: Make) {
        if self.closing.is_cancelled() {
            return;
        }
        let Make {
            id,
            template,
            making,
        } = make;
        let network = &self.parts.network;
        let attached = match network.try_attach(template.shape.network).await {
            Ok(attached) => attached,
            // Executions use all addresses. The template is not to blame.
            Err(error) => {
                tracing::debug!(template = id, %error, "no address for a paused fork");
                return;
            }
        };
        match self.parts.workers.fork(&template, attached).await {
            Ok(fork) => {
                let pid = fork.fork.pid();
                let kib = tokio::task::spawn_blocking(move || private_kib(pid)).await;
                if let Ok(Some(kib)) = kib {
                    self.forks.measured(&id, kib);
                }
                self.forks.made(&id);
                // Before the fork counts as ready, so that it never counts twice.
                drop(making);
                self.stop_all(self.forks.put(&id, fork).into_iter().collect());
            }
            Err(failure) => self.fork_failed(&id, &failure),
        }
    }
}

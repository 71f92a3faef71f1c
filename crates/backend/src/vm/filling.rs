//! How a launcher keeps forks ready.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::launcher::VmLauncher;
use super::pool::list::private_kib;
use super::pool::{Make, Paused};

/// However quiet it is, the pool is looked at so often, to shrink, and to make up for forks that failed.
const LOOK: Duration = Duration::from_secs(5);

impl VmLauncher {
    /// Stops forks off everybody's path.
    pub(super) fn stop_all(&self, forks: Vec<Paused>) {
        if !forks.is_empty() {
            let store = self.store.clone();
            self.tasks.spawn(async move {
                for paused in forks {
                    paused.stop(&store).await;
                }
            });
        }
    }

    /// Keeps the pool as its policy wants it, until the launcher goes.
    pub(super) async fn keep_pool(me: Weak<VmLauncher>) {
        let Some(mut changes) = me.upgrade().map(|launcher| launcher.forks.changes()) else {
            return;
        };
        loop {
            let Some(launcher) = me.upgrade() else { return };
            changes.mark_unchanged();
            launcher.tend_pool();
            let closing = launcher.closing.clone();
            drop(launcher);
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// Begins to make the forks that the pool lacks. Each that is ready is a change, at which the pool is looked
    /// at again.
    fn tend_pool(&self) {
        let plan = self.forks.plan(self.forks_at_once());
        self.stop_all(plan.stop);
        for make in plan.make {
            let Some(me) = self.me.upgrade() else { return };
            self.tasks
                .spawn(async move { me.make_waiting_fork(make).await });
        }
    }

    /// How many forks are made at once: one for each CPU that no VM runs on, and one on a busy host, so that the
    /// pool does not run empty there.
    fn forks_at_once(&self) -> usize {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        // The launcher has one clone itself.
        let running = Arc::strong_count(&self.running) - 1;
        cpus.saturating_sub(running).max(1)
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
        let attached = match self.try_attach(template.shape.network).await {
            Ok(attached) => attached,
            // Nothing is wrong with the template: executions have all the addresses.
            Err(error) => {
                tracing::debug!(template = id, %error, "no network for a fork that would wait");
                return;
            }
        };
        match self.pause_fork(&template, attached).await {
            Ok(paused) => {
                let pid = paused.fork.pid();
                let kib = tokio::task::spawn_blocking(move || private_kib(pid)).await;
                if let Ok(Some(kib)) = kib {
                    self.forks.measured(&id, kib);
                }
                self.forks.made(&id);
                // Before it counts as one that waits, so that it never counts twice.
                drop(making);
                self.stop_all(self.forks.put(&id, paused).into_iter().collect());
            }
            Err(death) => self.fork_failed(&id, &death),
        }
    }

    /// Stops every fork and build, and waits until nothing of them is left.
    pub(super) async fn close_pool(&self) {
        self.closing.cancel();
        self.stop_all(self.forks.clear());
        self.tasks.close();
        self.tasks.wait().await;
        // What was made while it closed.
        for paused in self.forks.clear() {
            paused.stop(&self.store).await;
        }
    }
}

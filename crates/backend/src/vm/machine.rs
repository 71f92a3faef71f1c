//! One running VM: its worker, its network, its console.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;

use cloude_protocol::agent::{AGENT_PORT, Cause};
use cloude_vmm::control::{ChannelError, Event, Request};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::{TcpStream, UnixStream};

use super::console::Console;
use super::control::{Worker, death_of};
use super::{AgentStream, Death, Machine, orphans};
use crate::network::Attached;
use crate::store::Store;

/// The only connection that we ask a worker for.
const CONNECTION: u64 = 1;
/// So many of the console's last lines go into an error.
const CONSOLE_LINES: usize = 5;

/// A VM: its worker, its network, its console.
pub(super) struct Vm {
    pub(super) worker: Option<Worker>,
    /// Behind the worker: it is dropped after it.
    pub(super) attached: Option<Attached>,
    pub(super) console: Console,
    pub(super) store: Store,
    /// Counts this VM as one that runs.
    pub(super) _running: Arc<()>,
}

impl Vm {
    pub(super) fn adopt(&mut self, worker: Worker) {
        orphans::record(&self.store, worker.pid(), self.ip());
        self.worker = Some(worker);
    }

    pub(super) fn ip(&self) -> Option<Ipv4Addr> {
        self.attached.as_ref().map(Attached::ip)
    }

    pub(super) fn worker(&self) -> Result<&Worker, Death> {
        self.worker
            .as_ref()
            .ok_or_else(|| Death::infrastructure("the VM has no worker"))
    }

    /// Waits for one of the worker's events.
    async fn wait_for<T>(
        &self,
        mut wanted: impl FnMut(Event) -> Option<Result<T, Death>>,
    ) -> Result<T, Death> {
        let worker = self.worker()?;
        loop {
            let event = worker.event().await.map_err(|error| {
                Death::infrastructure(format!("the VM's worker is gone: {error}"))
            })?;
            if let Some(death) = death_of(&event) {
                return Err(death);
            }
            if let Some(result) = wanted(event) {
                return result;
            }
        }
    }

    pub(super) async fn connect_vsock(&self) -> Result<Box<dyn AgentStream>, Death> {
        let failed =
            |error: String| Death::infrastructure(format!("connecting to the agent: {error}"));
        let (ours, workers) = UnixStream::pair().map_err(|error| failed(error.to_string()))?;
        // The worker holds the request until the guest is ready.
        let connect = Request::Connect {
            id: CONNECTION,
            port: AGENT_PORT,
        };
        let worker = self.worker()?;
        match worker.send(&connect, &[workers.as_fd()]) {
            // It has ended already: its own word says why.
            Err(ChannelError::Closed) => return Err(worker.death().await),
            sent => sent.map_err(|error| failed(error.to_string()))?,
        }
        drop(workers);
        self.wait_for(|event| match event {
            Event::Connected { id: CONNECTION } => Some(Ok(())),
            Event::ConnectFailed {
                id: CONNECTION,
                reason,
            } => Some(Err(failed(reason))),
            _ => None,
        })
        .await?;
        Ok(Box::new(ours))
    }

    pub(super) async fn connect_ip(&self) -> Result<Box<dyn AgentStream>, Death> {
        let ip = self
            .ip()
            .ok_or_else(|| Death::infrastructure("the VM has no address"))?;
        self.wait_for(|event| matches!(event, Event::Ready).then_some(Ok(())))
            .await?;
        let port = u16::try_from(AGENT_PORT).unwrap_or(u16::MAX);
        let stream = tokio::select! {
            stream = TcpStream::connect((ip, port)) => stream,
            death = self.worker()?.death() => return Err(death),
        };
        let stream = stream.map_err(|error| {
            Death::infrastructure(format!("connecting to the agent at {ip}:{port}: {error}"))
        })?;
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }

    /// Adds the console's last lines: they usually say more than the VM's end does.
    pub(super) fn explain(&self, mut death: Death) -> Death {
        let lines = self.console.last_lines(CONSOLE_LINES);
        if death.cause != Cause::Cancelled && !lines.is_empty() {
            death.message = format!("{}; the guest's console ends with:\n{lines}", death.message);
        }
        death
    }
}

impl Machine for Vm {
    fn died(&mut self) -> BoxFuture<'_, Death> {
        async {
            match &self.worker {
                Some(worker) => self.explain(worker.death().await),
                None => Death::infrastructure("the VM has no worker"),
            }
        }
        .boxed()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.end().boxed()
    }
}

impl Vm {
    /// Kills it and waits until nothing of it is left.
    pub(super) async fn end(mut self: Box<Self>) {
        if let Some(worker) = self.worker.take() {
            let pid = worker.pid();
            worker.stop().await;
            self.store.worker_ended(pid);
        }
        // After the worker: its TAP is gone, and with it the last packet of that address.
        if let Some(attached) = self.attached.take() {
            attached.release().await;
        }
    }
}

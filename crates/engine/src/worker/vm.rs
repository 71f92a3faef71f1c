//! A running VM: worker, network attachment, console.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloude_protocol::agent::{AGENT_PORT, Cause};
use cloude_protocol::network::NetworkReport;
use cloude_vmm::control::{Channel, ChannelError, Event, Request};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::{TcpStream, UnixStream};

use super::console::Console;
use super::process::Worker;
use crate::error::Failure;
use crate::launched::{AgentConnector, Machine};
use crate::machine::AgentStream;
use crate::network::{Attached, network_report, release};

/// The id of the first vsock connection that the host opens. Further ones count up.
const CONNECTION: u64 = 1;
/// A worker that does not answer for so long is stuck, and does not hold its result back any longer.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of the guest's console that an error quotes.
const CONSOLE_LINES: usize = 5;

/// A running VM.
pub struct Vm {
    worker: Worker,
    /// Declared after the worker, which is dropped first.
    attached: Option<Attached>,
    console: Console,
    /// A clone counts the VM as running, see [`super::Workers::running`].
    _running: Arc<()>,
}

impl Vm {
    pub(super) fn new(
        worker: Worker,
        attached: Option<Attached>,
        console: Console,
        running: &Arc<()>,
    ) -> Self {
        Vm {
            worker,
            attached,
            console,
            _running: Arc::clone(running),
        }
    }

    /// Its worker.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn set_console(&mut self, console: Console) {
        self.console = console;
    }

    /// Its network attachment, if it has a network device.
    pub fn attached(&self) -> Option<&Attached> {
        self.attached.as_ref()
    }

    pub(super) fn attached_mut(&mut self) -> Option<&mut Attached> {
        self.attached.as_mut()
    }

    /// Its address, if it has a network device.
    pub fn ip(&self) -> Option<Ipv4Addr> {
        self.attached.as_ref().map(Attached::ip)
    }

    /// Waits for the event that `wanted` accepts, and ignores others.
    async fn wait_for<T>(
        &self,
        mut wanted: impl FnMut(Event) -> Option<Result<T, Failure>>,
    ) -> Result<T, Failure> {
        loop {
            if let Some(result) = wanted(self.worker.next().await?.0) {
                return result;
            }
        }
    }

    /// Connects to the agent over vsock, once the guest has reported that it is ready.
    pub(super) async fn connect_vsock(&self) -> Result<Box<dyn AgentStream>, Failure> {
        let failed =
            |error: String| Failure::infrastructure(format!("connecting to the agent: {error}"));
        let (ours, workers) = UnixStream::pair().map_err(|error| failed(error.to_string()))?;
        // The worker delays the connection until the guest is ready.
        let connect = Request::Connect {
            id: CONNECTION,
            port: AGENT_PORT,
        };
        match self.worker.try_send(&connect, &[workers.as_fd()]) {
            // The worker's last event explains why it has ended.
            Err(ChannelError::Closed) => return Err(self.worker.failed().await),
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

    /// Connects to the agent over TCP, once the guest has reported that it is ready.
    pub(super) async fn connect_ip(&self) -> Result<Box<dyn AgentStream>, Failure> {
        let ip = self
            .ip()
            .ok_or_else(|| Failure::infrastructure("the VM has no address"))?;
        self.wait_for(|event| matches!(event, Event::Ready).then_some(Ok(())))
            .await?;
        let port = u16::try_from(AGENT_PORT).unwrap_or(u16::MAX);
        let stream = tokio::select! {
            stream = TcpStream::connect((ip, port)) => stream,
            failure = self.worker.failed() => return Err(failure),
        };
        let stream = stream.map_err(|error| {
            Failure::infrastructure(format!("connecting to the agent at {ip}:{port}: {error}"))
        })?;
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }

    /// Appends the console's last lines to a failure: they usually name its cause.
    pub fn explain(&self, mut failure: Failure) -> Failure {
        let lines = self.console.last_lines(CONSOLE_LINES);
        if failure.cause != Cause::Cancelled && !lines.is_empty() {
            failure.message = format!(
                "{}; the guest's console ends with:\n{lines}",
                failure.message
            );
        }
        failure
    }

    /// Kills the worker and waits until it is gone; then releases the address, so that no packet of this VM
    /// follows.
    pub async fn end(self) {
        self.worker.stop().await;
        release(self.attached).await;
    }
}

/// The end of a VM whose firewall rules were removed and cannot be applied again.
pub(super) fn no_firewall(reason: &str) -> Failure {
    Failure::infrastructure(format!(
        "the VM was ended because the firewall rules of its network were removed and cannot be applied again: {reason}"
    ))
}

/// Connects to the agent over vsock. The worker's answer is not awaited: the caller of [`Machine::failed`] receives its
/// events, and a connection that the guest does not accept is closed.
fn connect_again(requests: &Channel, id: u64) -> Result<UnixStream, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::infrastructure(format!("another connection to the agent: {error}"))
    };
    let (ours, workers) = UnixStream::pair().map_err(|error| failed(&error))?;
    let connect = Request::Connect {
        id,
        port: AGENT_PORT,
    };
    requests
        .try_send(&connect, &[workers.as_fd()])
        .map_err(|error| failed(&error))?;
    Ok(ours)
}

impl Machine for Vm {
    fn connector(&self) -> Result<AgentConnector, Failure> {
        let requests = self
            .worker
            .requests()
            .map_err(|error| Failure::infrastructure(format!("a control socket: {error}")))?;
        let next = AtomicU64::new(CONNECTION + 1);
        Ok(AgentConnector::new(move || {
            let id = next.fetch_add(1, Ordering::Relaxed);
            let stream = connect_again(&requests, id)?;
            Ok(Box::new(stream) as Box<dyn AgentStream>)
        }))
    }

    fn failed(&mut self) -> BoxFuture<'_, Failure> {
        async {
            let broken = async {
                match &self.attached {
                    Some(attached) => attached.until_broken().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                failure = self.worker.failed() => self.explain(failure),
                reason = broken => no_firewall(&reason),
            }
        }
        .boxed()
    }

    fn network_report(&mut self) -> BoxFuture<'_, Option<NetworkReport>> {
        async {
            self.attached.as_ref()?;
            self.worker.try_send(&Request::Denied, &[]).ok()?;
            let report = self.wait_for(|event| match event {
                Event::Denied(report) => Some(Ok(network_report(report))),
                _ => None,
            });
            tokio::time::timeout(REPORT_TIMEOUT, report)
                .await
                .ok()?
                .ok()
        }
        .boxed()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        async move { self.end().await }.boxed()
    }
}

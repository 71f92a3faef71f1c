//! The network, set up at its first use, and attachments for VMs that wait for one.

use std::sync::{Arc, OnceLock, Weak};

use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, OnceCell};

use super::attached::Attached;
use super::bridge::Network;
use super::error::NetworkError;
use crate::config::EngineConfig;
use crate::error::Failure;
use crate::run_dir::RunDir;

/// Releases addresses of paused forks.
pub trait Reclaim: Send + Sync {
    /// Stops one paused fork with an address; `None` if there is none.
    fn reclaim_address(&self) -> Option<BoxFuture<'static, ()>>;
}

/// The owner of the [`Network`].
pub struct NetworkProvider {
    config: Arc<EngineConfig>,
    run_dir: RunDir,
    network: OnceCell<Arc<Network>>,
    /// True after [`NetworkProvider::shut_down`]. Locked while the network is set up or taken down.
    down: Mutex<bool>,
    reclaim: OnceLock<Weak<dyn Reclaim>>,
}

impl NetworkProvider {
    /// No network yet.
    pub fn new(config: Arc<EngineConfig>, run_dir: RunDir) -> Self {
        NetworkProvider {
            config,
            run_dir,
            network: OnceCell::new(),
            down: Mutex::new(false),
            reclaim: OnceLock::new(),
        }
    }

    /// Sets the source of addresses for when the range is exhausted.
    pub fn reclaim_from(&self, reclaim: Weak<dyn Reclaim>) {
        let _ = self.reclaim.set(reclaim);
    }

    /// The network; the first call sets it up.
    pub async fn network(&self) -> Result<&Arc<Network>, NetworkError> {
        self.network
            .get_or_try_init(|| async {
                let down = self.down.lock().await;
                if *down {
                    return Err(NetworkError::ShutDown);
                }
                let network = Network::set_up(
                    &self.config.network,
                    self.run_dir.path(),
                    self.run_dir.last_address(),
                )
                .await?;
                Ok(Arc::new(network))
            })
            .await
    }

    /// An address and a TAP for a VM, or `None` if its configuration has no network device.
    pub async fn try_attach(&self, outbound: bool) -> Result<Option<Attached>, NetworkError> {
        if !self.config.has_network_device(outbound) {
            return Ok(None);
        }
        let network = self.network().await?;
        let attached = Attached::new(network, outbound).await?;
        // Not awaited, and off the async threads: the directory lies on a disk.
        let (run_dir, ip) = (self.run_dir.clone(), attached.ip());
        tokio::task::spawn_blocking(move || run_dir.set_last_address(ip));
        Ok(Some(attached))
    }

    /// [`NetworkProvider::try_attach`] for a VM that an execution waits for: if the range is exhausted, paused
    /// forks give their addresses up.
    pub async fn attach(&self, outbound: bool) -> Result<Option<Attached>, Failure> {
        loop {
            let error = match self.try_attach(outbound).await {
                Ok(attached) => return Ok(attached),
                Err(error) => error,
            };
            let reclaimed = match &error {
                NetworkError::Exhausted(_) => self.reclaim.get().and_then(Weak::upgrade),
                _ => None,
            }
            .and_then(|reclaim| reclaim.reclaim_address());
            match reclaimed {
                Some(released) => released.await,
                None => return Err(Failure::infrastructure(format!("no network: {error}"))),
            }
        }
    }

    /// Takes the network down; later attachments fail.
    pub async fn shut_down(&self) {
        *self.down.lock().await = true;
        if let Some(network) = self.network.get() {
            network.remove().await;
        }
    }
}

//! Starts and stops `clouded`.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloude_engine::Engine;
use cloude_engine::languages::{Languages, LanguagesError};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError, KeyPolicy, Listen};
use crate::http::{self, Listener, TlsError, TlsFiles};
use crate::jobs::{Parts, Service};
use crate::keys::Keys;
use crate::scheduler::{Capacity, Scheduler, available_memory_mib};
use crate::store::{Retention, Store, StoreError};

/// Memory budget if MemAvailable cannot be read, in MiB.
const UNKNOWN_MEMORY_MIB: u64 = 2048;
/// Maximum bytes of the requests in the queue.
const QUEUE_BYTES: usize = 256 << 20;
/// Time that the service manager allows for the end of VMs and network, after the grace of the executions.
const STOP_RESERVE: Duration = Duration::from_secs(30);

/// clouded cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The language files cannot be loaded.
    #[error(transparent)]
    Languages(#[from] LanguagesError),
    /// The job store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] cloude_engine::SetUpError),
    /// The state folder cannot be used.
    #[error(
        "cannot use the state folder `{path}`: {source}; set `state_dir` (CLOUDE_STATE_DIR) to a folder that clouded may write"
    )]
    State { path: PathBuf, source: io::Error },
    /// Another clouded holds the lock of the state folder.
    #[error(
        "another clouded uses the state folder `{0}`; stop it, or choose another folder with --state-dir"
    )]
    Locked(PathBuf),
    /// A running clouded would not see a change of the stored keys.
    #[error(
        "clouded is running with the state folder `{0}`: manage its API keys with `cloude key`, which needs a key with \
         the scope `admin` unless clouded listens on a loopback address or a Unix socket; or stop it first"
    )]
    KeysLocked(PathBuf),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// bind(2) or listen(2) failed.
    #[error(
        "cannot listen on {address}: {source}; choose another address with --listen (BACKEND_SERVER_ADDR)"
    )]
    Listen { address: Listen, source: io::Error },
    /// An API key is required, and none is valid.
    #[error(
        "no valid API key, and `listen` = {0} requires one: create it with `clouded key create --scope admin`, or listen \
         on a loopback address or a Unix socket"
    )]
    NoKeys(Listen),
    /// Installing a signal handler failed.
    #[error("cannot handle SIGTERM and SIGINT: {0}")]
    Signals(#[source] io::Error),
}

/// Checks the configuration and the language files without starting anything.
pub fn check(config: &Config) -> Result<(), ServerError> {
    config.validate()?;
    Languages::load(&config.languages)?;
    Ok(())
}

/// Runs clouded until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), ServerError> {
    check(&config)?;
    let languages = Languages::load(&config.languages)?.in_host_time(config.time_factor);
    let config = config.in_host_time();
    let _lock = lock(&config.state_dir)?;
    let mut signals = Signals::new()?;
    if let Some(dir) = config.pool.disk_dir() {
        make_private(&dir.join("templates"));
    }
    let store = Store::open(&config.state_dir, retention(&config))?;
    let keys = Keys::load(&store).await?;
    if config.key_policy() == KeyPolicy::Required && !keys.any_valid() {
        return Err(ServerError::NoKeys(config.listen.clone()));
    }
    let capacity = capacity(&config);
    tracing::info!(
        vms = capacity.vms,
        vcpus = capacity.vcpus,
        memory_mib = capacity.memory_mib,
        "capacity"
    );
    let scheduler = Scheduler::with_quotas(capacity, (&config.quota).into());
    // Before the engine starts, so that a failure leaves nothing to shut down.
    let listener = listen(&config).await?;
    let admission = Arc::new(scheduler.clone());
    let engine = Engine::with_admission(config.engine(), languages, admission).await?;
    let result = serve(
        &config,
        &engine,
        (scheduler, store, keys),
        listener,
        &mut signals,
    )
    .await;
    engine.shut_down().await;
    result
}

fn retention(config: &Config) -> Retention {
    Retention {
        age_ms: i64::try_from(config.store.keep_hours.saturating_mul(3_600_000))
            .unwrap_or(i64::MAX / 2),
        jobs: config.store.keep_jobs,
        bytes: config.store.max_bytes,
    }
}

/// The API keys of a clouded that is not running. The state folder stays locked as long as the returned file is open.
pub async fn stopped_keys(config: &Config) -> Result<(File, Keys), ServerError> {
    config.validate()?;
    let lock = lock(&config.state_dir).map_err(|error| match error {
        ServerError::Locked(path) => ServerError::KeysLocked(path),
        error => error,
    })?;
    let store = Store::open(&config.state_dir, retention(config))?;
    Ok((lock, Keys::load(&store).await?))
}

async fn listen(config: &Config) -> Result<Listener, ServerError> {
    let tls = match config.tls.is_enabled() {
        true => Some(TlsFiles::load(&config.tls)?),
        false => None,
    };
    let listener = Listener::bind(&config.listen, &config.api)
        .await
        .map_err(|source| ServerError::Listen {
            address: config.listen.clone(),
            source,
        })?;
    Ok(match tls {
        Some(files) => listener.with_tls(files),
        None => listener,
    })
}

async fn serve(
    config: &Config,
    engine: &Arc<Engine>,
    (scheduler, store, keys): (Scheduler, Store, Keys),
    listener: Listener,
    signals: &mut Signals,
) -> Result<(), ServerError> {
    let service = Service::new(Parts {
        config: config.clone(),
        languages: engine.languages().clone(),
        images: Arc::clone(engine.images()) as _,
        launcher: Arc::clone(engine) as _,
        scheduler,
        store,
        keys,
    });
    let restarted = service.recover().await?;
    if restarted > 0 {
        tracing::warn!(
            count = restarted,
            "restarting executions that an earlier clouded accepted and did not finish"
        );
    }
    let address = listener.address().unwrap_or_else(|_| config.listen.clone());
    tracing::info!(%address, "listening");

    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    let router = http::router(service.clone());
    let limits = http::ConnectionLimits::new(&config.limits, service.bounds().clone());
    let serve = http::serve(listener, router, limits, stop.clone(), abort.clone());
    let server = tokio::spawn(serve);
    notify(&[NotifyState::Ready]);
    let delivering = service.clone();
    let callbacks = tokio::spawn(async move { delivering.deliver_callbacks(http::callback).await });
    signals.next().await;
    tracing::info!(
        grace_ms = config.shutdown.grace_ms,
        "stopping when all executions have finished; a second signal stops at once"
    );
    let grace = Duration::from_millis(config.shutdown.grace_ms);
    let stop_time = u32::try_from((grace + STOP_RESERVE).as_micros()).unwrap_or(u32::MAX);
    notify(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(stop_time),
    ]);
    service.drain();
    tokio::select! {
        () = service.finish(grace) => {}
        () = signals.next() => service.finish(Duration::ZERO).await,
    }
    // Callbacks that are not delivered yet are in the store, and the next start delivers them.
    callbacks.abort();
    // Until here the server answers, new executions with 503. Clients that waited have their answers by now.
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(2), server).await;
    abort.cancel();
    tracing::info!("stopped");
    Ok(())
}

/// Tells the service manager how far this process is (sd_notify(3)), if it asked for that (`Type=notify`).
fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager (NOTIFY_SOCKET)");
    }
}

fn capacity(config: &Config) -> Capacity {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_mib = match config.vm.memory_budget_mib {
        0 => available_memory_mib().unwrap_or(UNKNOWN_MEMORY_MIB) / 4 * 3,
        configured => configured,
    };
    let vms = match config.vm.max_concurrent {
        0 => 2 * cpus,
        configured => configured,
    };
    let vcpus = match config.vm.max_vcpus_total {
        0 => vms.max(2 * cpus),
        configured => configured,
    };
    Capacity {
        vms,
        vcpus,
        memory_mib,
        queue: config.queue.capacity,
        queue_bytes: QUEUE_BYTES,
    }
}

/// Locks the state folder. The kernel releases the lock with the returned file, also after SIGKILL.
fn lock(state_dir: &Path) -> Result<File, ServerError> {
    let failed = |source| ServerError::State {
        path: state_dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(state_dir).map_err(failed)?;
    make_private(state_dir);
    let file = File::create(state_dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServerError::Locked(state_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Sets mode 0700 on a folder and 0600 on its files, because earlier versions created them readable for all. Does not
/// change files of other users, nor the mode of a folder with the sticky bit, such as /tmp.
fn make_private(dir: &Path) {
    let owned = |path: &Path| {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        let is_owner = metadata.uid() == rustix::process::geteuid().as_raw();
        is_owner.then_some(metadata)
    };
    let Some(folder) = owned(dir).filter(std::fs::Metadata::is_dir) else {
        return;
    };
    let set = |path: &Path, mode| {
        if let Err(error) = std::fs::set_permissions(path, Permissions::from_mode(mode)) {
            tracing::warn!(path = %path.display(), %error, "cannot restrict this to clouded's user");
        }
    };
    if folder.mode() & 0o1000 == 0 {
        set(dir, 0o700);
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if owned(&path).is_some_and(|metadata| metadata.is_file()) {
            set(&path, 0o600);
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, ServerError> {
        let take = |kind| signal(kind).map_err(ServerError::Signals);
        Ok(Signals {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

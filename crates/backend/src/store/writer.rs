//! The thread that writes.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cloude_protocol::api::{Execution, Status};
use rusqlite::{Connection, Transaction, params};
use tokio::sync::oneshot;

use super::schema::status_text;
use super::{Retention, StoreError, WorkerRecord};

/// About so many commands are one transaction at most.
const BATCH: usize = 256;
/// What nobody waits for is written with what comes after it, at the latest after about so long: an execution
/// that is over sooner is one transaction, and the thread does not wake beside it.
const LINGER: Duration = Duration::from_millis(250);
/// Old executions are removed at the start and then so often.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

type Done = oneshot::Sender<Result<(), StoreError>>;

#[derive(Debug)]
pub enum Command {
    Accept {
        id: String,
        language: String,
        request: String,
        durable: bool,
        done: Done,
    },
    Started {
        id: String,
    },
    Finished {
        result: Arc<Execution>,
    },
    WorkerStarted {
        worker: WorkerRecord,
        ip: Option<Ipv4Addr>,
    },
    WorkerEnded {
        pid: i32,
    },
    Flush {
        done: oneshot::Sender<()>,
    },
}

impl Command {
    /// Whether it may be lost if this process is killed within [`LINGER`], and is read by nobody until then. A
    /// worker's record is what a killed process leaves, and a result may have been given out already.
    fn can_wait(&self) -> bool {
        match self {
            Command::Accept { durable, .. } => !durable,
            Command::Started { .. } | Command::WorkerEnded { .. } => true,
            Command::Finished { .. } | Command::WorkerStarted { .. } | Command::Flush { .. } => {
                false
            }
        }
    }
}

/// What is to be written, in its order: first what was sent, then what waits.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Vec<Command>>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Vec<Command>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's handle; dropped, it waits until everything is written.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    sender: Mutex<Option<mpsc::Sender<Vec<Command>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub fn start(connection: Connection, retention: Retention) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::default());
        let (sender, sent) = mpsc::channel();
        let commands = Commands {
            queue: Arc::clone(&queue),
            sent,
        };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_all(connection, &commands, retention))
            .map_err(|_| StoreError::Closed)?;
        Ok(Writer {
            queue,
            sender: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })
    }

    pub fn send(&self, command: Command) -> Result<(), StoreError> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.as_ref().ok_or(StoreError::Closed)?;
        // Held until it is sent, so that the order stays.
        let mut waiting = self.queue.lock();
        let send = !command.can_wait() || waiting.len() + 1 >= BATCH;
        waiting.push(command);
        if send {
            let batch = std::mem::take(&mut *waiting);
            sender.send(batch).map_err(|_| StoreError::Closed)?;
        }
        Ok(())
    }

    pub fn send_or_log(&self, command: Command) {
        if let Err(error) = self.send(command) {
            tracing::error!(%error, "storing");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            let _ = thread.join();
        }
    }
}

/// The thread's end of the queue.
struct Commands {
    queue: Arc<Queue>,
    sent: mpsc::Receiver<Vec<Command>>,
}

impl Commands {
    /// What is to be written next, none yet after [`LINGER`]; the error is the end, with nothing left.
    fn next(&self) -> Result<Vec<Command>, mpsc::RecvError> {
        let mut batch = match self.sent.recv_timeout(LINGER) {
            Ok(batch) => batch,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let mut waiting = self.queue.lock();
                // Sent before what waits now, but after the time was up.
                let mut batch: Vec<_> = self.sent.try_iter().flatten().collect();
                batch.append(&mut waiting);
                return Ok(batch);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let batch = std::mem::take(&mut *self.queue.lock());
                return match batch.is_empty() {
                    true => Err(mpsc::RecvError),
                    false => Ok(batch),
                };
            }
        };
        while batch.len() < BATCH
            && let Ok(more) = self.sent.try_recv()
        {
            batch.extend(more);
        }
        Ok(batch)
    }
}

/// Has this thread wait for its turn (sched(7), SCHED_BATCH): it wakes for each execution, and would take
/// the processor from the very vCPU that carries it out.
fn give_way() {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters outlive the call, which takes nothing but them. Where it is refused, the
    // thread runs as any other.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &none) };
}

fn write_all(mut connection: Connection, commands: &Commands, retention: Retention) {
    give_way();
    let mut pruned: Option<Instant> = None;
    while let Ok(batch) = commands.next() {
        if !batch.is_empty() {
            write_batch(&mut connection, batch);
        }
        if pruned.is_none_or(|at| at.elapsed() > PRUNE_EVERY) {
            if let Err(error) = prune(&connection, retention) {
                tracing::error!(%error, "removing old executions");
            }
            pruned = Some(Instant::now());
        }
    }
}

fn write_batch(connection: &mut Connection, batch: Vec<Command>) {
    let mut answers = Vec::new();
    let mut flushed = Vec::new();
    let written = connection
        .transaction()
        .map_err(StoreError::from)
        .and_then(|transaction| {
            for command in batch {
                apply(&transaction, command, &mut answers, &mut flushed)?;
            }
            Ok(transaction.commit()?)
        });
    let failure = written.err().map(|error| error.to_string());
    if let Some(error) = &failure {
        tracing::error!(%error, "storing");
    }
    for done in answers {
        // rusqlite's error is not Clone; each waiter learns that its own write did not happen.
        let answer = if failure.is_none() {
            Ok(())
        } else {
            Err(StoreError::Closed)
        };
        let _ = done.send(answer);
    }
    for done in flushed {
        let _ = done.send(());
    }
}

fn apply(
    transaction: &Transaction<'_>,
    command: Command,
    answers: &mut Vec<Done>,
    flushed: &mut Vec<oneshot::Sender<()>>,
) -> Result<(), StoreError> {
    let execute = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        transaction
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values))
    };
    match command {
        Command::Accept {
            id,
            language,
            request,
            durable,
            done,
        } => {
            answers.push(done);
            execute(
                "INSERT INTO jobs (id, language, request, status, durable, created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    id,
                    language,
                    request,
                    status_text(Status::Pending),
                    durable,
                    now_ms()
                ],
            )?;
        }
        Command::Started { id } => {
            execute(
                "UPDATE jobs SET status = ?2, attempts = attempts + 1 WHERE id = ?1",
                params![id, status_text(Status::Running)],
            )?;
        }
        Command::Finished { result } => {
            let json = serde_json::to_string(&*result)?;
            // The request is of no more use, and often the larger part.
            execute(
                "UPDATE jobs SET status = ?2, result = ?3, finished_ms = ?4, request = '' WHERE id = ?1",
                params![result.id, status_text(result.status), json, now_ms()],
            )?;
        }
        Command::WorkerStarted { worker, ip } => {
            execute(
                "INSERT OR REPLACE INTO workers (pid, start_time) VALUES (?1, ?2)",
                params![worker.pid, worker.start_time as i64],
            )?;
            if let Some(ip) = ip {
                execute(
                    "INSERT OR REPLACE INTO meta (key, value) VALUES ('last_ip', ?1)",
                    params![ip.to_string()],
                )?;
            }
        }
        Command::WorkerEnded { pid } => {
            execute("DELETE FROM workers WHERE pid = ?1", params![pid])?;
        }
        Command::Flush { done } => flushed.push(done),
    }
    Ok(())
}

fn prune(connection: &Connection, retention: Retention) -> Result<(), rusqlite::Error> {
    let oldest = now_ms().saturating_sub(retention.age_ms);
    connection.execute("DELETE FROM jobs WHERE finished_ms < ?1", params![oldest])?;
    let keep = i64::try_from(retention.jobs).unwrap_or(i64::MAX);
    connection.execute(
        "DELETE FROM jobs WHERE rowid IN (
            SELECT rowid FROM jobs WHERE finished_ms IS NOT NULL
            ORDER BY finished_ms DESC, rowid DESC LIMIT -1 OFFSET ?1)",
        params![keep],
    )?;
    Ok(())
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as i64)
}

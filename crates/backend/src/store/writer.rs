//! The thread that writes.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cloude_protocol::api::{Execution, Status};
use rusqlite::{Connection, Transaction, params};
use tokio::sync::oneshot;

use super::schema::status_text;
use super::{Retention, StoreError, WorkerRecord};

/// So many commands are one transaction at most.
const BATCH: usize = 256;
/// Old executions are removed at the start and then so often.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

type Done = oneshot::Sender<Result<(), StoreError>>;

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

/// The thread's handle; dropped, it waits until everything is written.
#[derive(Debug)]
pub struct Writer {
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub fn start(connection: Connection, retention: Retention) -> Result<Self, StoreError> {
        let (commands, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_all(connection, &receiver, retention))
            .map_err(|_| StoreError::Closed)?;
        Ok(Writer {
            commands: Mutex::new(Some(commands)),
            thread: Mutex::new(Some(thread)),
        })
    }

    pub fn send(&self, command: Command) -> Result<(), StoreError> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = commands.as_ref().ok_or(StoreError::Closed)?;
        sender.send(command).map_err(|_| StoreError::Closed)
    }

    pub fn send_or_log(&self, command: Command) {
        if let Err(error) = self.send(command) {
            tracing::error!(%error, "storing");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.commands
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

fn write_all(mut connection: Connection, commands: &mpsc::Receiver<Command>, retention: Retention) {
    let mut pruned: Option<Instant> = None;
    while let Ok(first) = commands.recv() {
        let batch: Vec<Command> = std::iter::once(first)
            .chain(commands.try_iter().take(BATCH - 1))
            .collect();
        write_batch(&mut connection, batch);
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

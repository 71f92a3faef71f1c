//! One stage: a process tree in namespaces, its streams, its time limits, its end.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use cloude_protocol::agent::StageName;

use super::child;
use super::clock::{Clock, CpuBudget, Reached};
use super::input::InputPort;
use super::pipes::{Pipes, ProgramEnds};
use super::plan::Plan;
use super::process::{self, monotonic_ns};
use super::ready::{Interest, Ready};
use super::relay::{OutputLimit, Relay};
use super::report::{self, Report, Step};
use super::sink::{CLIENT_STALL, Sink};

/// Measurements of a stage, complete once every process in it is dead.
#[derive(Debug)]
pub struct Observed {
    /// The program's wait status; none if it did not end by itself.
    pub status: Option<i32>,
    /// The step before `execve` that failed, and its errno.
    pub failed: Option<(Option<Step>, i32)>,
    /// The first limit that it reached.
    pub reached: Option<Reached>,
    /// From before `clone3` to the program's end.
    pub wall_time: Duration,
    /// Bytes written and bytes dropped, of standard output and of standard error.
    pub streams: [(u64, u64); 2],
    /// User and system time of the processes that were waited for, in microseconds.
    pub cpu_time_us: u64,
    /// Largest resident set of one process, in bytes.
    pub max_rss_bytes: u64,
}

/// Limits and input of a stage.
#[derive(Debug)]
pub struct StageSpec<'a> {
    /// `compile` or `run`, for the events.
    pub name: StageName,
    /// Standard input, whole.
    pub stdin: &'a [u8],
    /// Wall-clock limit.
    pub wall_time: Duration,
    /// Limit of CPU time.
    pub cpu: Option<CpuBudget<'a>>,
    /// Bytes to keep of each stream.
    pub output: OutputLimit,
    /// Receives a copy of the output, as far as it can be written without blocking.
    pub console: Option<&'a File>,
    /// `Started` was sent already.
    pub announced: bool,
    /// Keeps standard input open after `stdin`.
    pub port: Option<&'a InputPort>,
}

/// A running process tree: its init, and the agent's ends of its pipes.
#[derive(Debug)]
pub struct Running {
    /// Init's process id.
    pub pid: i32,
    /// Init's descriptor (pidfd_open(2)).
    pub pidfd: OwnedFd,
    /// The agent's ends.
    pub pipes: Pipes,
    /// When the stage's time starts to count.
    pub started: Instant,
    /// The same in nanoseconds of CLOCK_MONOTONIC, which init reports the program's end in.
    pub started_ns: u64,
}

/// Starts `plan`'s process tree, relays its streams, and returns once every process in it is dead. An error
/// is the errno of `clone3`.
pub fn run(
    spec: StageSpec<'_>,
    plan: &Plan,
    pipes: Pipes,
    ends: ProgramEnds,
    sink: &mut dyn Sink,
) -> Result<Observed, i32> {
    let started = Instant::now();
    let started_ns = monotonic_ns();
    let (pid, pidfd) = child::clone_init(plan)?;
    drop(ends);
    // SAFETY: the kernel made this descriptor for us just now.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let running = Running {
        pid,
        pidfd,
        pipes,
        started,
        started_ns,
    };
    Ok(attend(spec, running, sink))
}

/// Relays the streams of a process tree, and returns once every process in it is dead.
pub fn attend(spec: StageSpec<'_>, running: Running, sink: &mut dyn Sink) -> Observed {
    let (pid, started_ns) = (running.pid, running.started_ns);
    let mut stage = Stage::new(spec, running, sink);
    stage.serve();
    let usage = process::reap(pid);
    let wall_ns = stage
        .ended_ns
        .unwrap_or_else(monotonic_ns)
        .saturating_sub(started_ns);
    Observed {
        status: stage.status,
        failed: stage.failed,
        reached: stage.reached,
        wall_time: Duration::from_nanos(wall_ns),
        streams: stage.relay.totals(),
        cpu_time_us: usage.cpu_time_us,
        max_rss_bytes: usage.max_rss_bytes,
    }
}

struct Stage<'a> {
    sink: &'a mut dyn Sink,
    pidfd: OwnedFd,
    input: &'a [u8],
    stdin: Option<File>,
    /// Bytes of `input` that the program's pipe has.
    fed: usize,
    port: Option<&'a InputPort>,
    relay: Relay<'a>,
    report: Option<File>,
    clock: Clock<'a>,
    killed: bool,
    reached: Option<Reached>,
    status: Option<i32>,
    failed: Option<(Option<Step>, i32)>,
    ended_ns: Option<u64>,
}

impl<'a> Stage<'a> {
    fn new(spec: StageSpec<'a>, running: Running, sink: &'a mut dyn Sink) -> Self {
        let Pipes {
            stdin,
            stdout,
            stderr,
            report,
            terminal,
        } = running.pipes;
        if let Some(port) = spec.port {
            port.start(running.pid, terminal);
        }
        let streams = (stdout, stderr);
        Stage {
            sink,
            pidfd: running.pidfd,
            input: spec.stdin,
            stdin,
            fed: 0,
            port: spec.port,
            relay: Relay::new(
                spec.name,
                spec.console,
                spec.announced,
                spec.output,
                streams,
            ),
            report: Some(report),
            clock: Clock::new(running.started, spec.wall_time, spec.cpu),
            killed: false,
            reached: None,
            status: None,
            failed: None,
            ended_ns: None,
        }
    }

    /// Runs until init is gone and both outputs are at their end. They are once no process is left in the
    /// namespace: a program that keeps a stream open does not hold the stage.
    fn serve(&mut self) {
        let mut last_progress = Instant::now();
        while self.report.is_some() || self.relay.is_open() {
            let ready = self.wait(last_progress);
            if !self.sink.wants_write() || ready.client_writable {
                last_progress = Instant::now();
            } else if last_progress.elapsed() >= CLIENT_STALL {
                self.sink.set_gone();
            }
            self.act(&ready);
        }
        if let Some(port) = self.port {
            port.end();
        }
    }

    fn act(&mut self, ready: &Ready) {
        if ready.client_closed {
            self.sink.set_gone();
        }
        if ready.client_writable {
            self.sink.flush_some();
        }
        if ready.report {
            self.read_report();
        }
        for (index, readable) in ready.outputs.into_iter().enumerate() {
            if readable {
                self.relay.read(index, self.sink);
            }
        }
        if self.relay.overflowed() {
            // Also for a program that has exited meanwhile, so that the cause does not depend on which came first.
            self.reached.get_or_insert(Reached::Output);
            self.kill();
        }
        if ready.stdin {
            self.feed();
        }
        if self.sink.is_gone() {
            self.kill();
        }
        if self.is_limited()
            && let Some(reached) = self.clock.reached()
        {
            self.reached = Some(reached);
            self.kill();
        }
    }

    /// True while the clocks count.
    fn is_limited(&self) -> bool {
        self.status.is_none() && self.report.is_some() && !self.killed
    }

    fn wait(&self, last_progress: Instant) -> Ready {
        let has_room = self.sink.has_room();
        let output = |index| self.relay.pipe(index).filter(|_| has_room);
        let client_write = self.sink.wants_write();
        let limit = self.is_limited().then(|| self.clock.sleep()).flatten();
        let stall = client_write.then(|| CLIENT_STALL.saturating_sub(last_progress.elapsed()));
        let interest = Interest {
            report: self.report.as_ref().map(File::as_fd),
            outputs: [output(0), output(1)],
            stdin: self.stdin.as_ref().map(File::as_fd),
            client: self.sink.as_fd().filter(|_| !self.sink.is_gone()),
            client_write,
            timeout: limit.into_iter().chain(stall).min(),
        };
        interest.wait()
    }

    fn kill(&mut self) {
        if !std::mem::replace(&mut self.killed, true) {
            process::kill(&self.pidfd);
        }
    }

    fn read_report(&mut self) {
        let Some(pipe) = &mut self.report else { return };
        let mut bytes = [0; size_of::<Report>()];
        match pipe.read(&mut bytes) {
            Ok(length) if length == bytes.len() => {
                // SAFETY: any bit pattern is a `Report`. It arrives whole: writes below PIPE_BUF are atomic.
                let report: Report = unsafe { std::mem::transmute(bytes) };
                self.take_report(report);
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => {
                self.report = None;
                self.ended_ns.get_or_insert_with(monotonic_ns);
                self.stdin = None;
            }
        }
    }

    fn take_report(&mut self, report: Report) {
        match report.kind {
            report::FAILED => self.failed = Some((Step::from_report(report.step), report.value)),
            report::STARTED if self.failed.is_none() => self.relay.announce(self.sink),
            report::EXITED => {
                self.status = Some(report.value);
                self.ended_ns = Some(report.at_ns);
            }
            _ => {}
        }
    }

    /// Writes as much standard input as the pipe holds. At the end it is closed, or left to the input port.
    fn feed(&mut self) {
        let Some(mut pipe) = self.stdin.as_ref() else {
            return;
        };
        while self.fed < self.input.len() {
            match pipe.write(&self.input[self.fed..]) {
                Ok(written) => self.fed += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // EPIPE: the program closed its end.
                Err(_) => {
                    self.stdin = None;
                    break;
                }
            }
        }
        let stdin = self.stdin.take();
        if let Some(port) = self.port {
            port.open(stdin);
        }
    }
}

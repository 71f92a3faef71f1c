//! One stage: a process tree in namespaces, its streams, its time limit, its end.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use cloude_protocol::Data;
use cloude_protocol::agent::{Event, StageName, Stream};

use super::child;
use super::output::HeadTail;
use super::pipes::{CHUNK_BYTES, Pipes, ProgramEnds, chunk_end, read_into};
use super::plan::Plan;
use super::process::{self, monotonic_ns};
use super::ready::{Interest, Ready};
use super::report::{self, Report, Step};
use super::sink::Sink;

/// The largest wall-clock limit: a year, which no sum of times overflows on.
pub const MAX_WALL_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// A client that reads no byte of pending events for this long counts as gone.
const CLIENT_STALL: Duration = Duration::from_secs(30);

/// Measurements of a stage, complete once every process in it is dead.
#[derive(Debug)]
pub struct Observed {
    /// The program's wait status; none if it did not end by itself.
    pub status: Option<i32>,
    /// The step before `execve` that failed, and its errno.
    pub failed: Option<(Option<Step>, i32)>,
    /// Killed at its wall-clock limit.
    pub timed_out: bool,
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
    /// Wall-clock limit, at most [`MAX_WALL_TIME`].
    pub wall_time: Duration,
    /// Bytes to keep of each stream.
    pub output_bytes: u64,
    /// Bytes to keep of each stream's end at most: they stay in the agent's memory.
    pub tail_max: u64,
    /// Receives a copy of the output, as far as it can be written without blocking.
    pub console: Option<&'a File>,
    /// `Started` was sent already.
    pub announced: bool,
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
    spec: &StageSpec<'_>,
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
pub fn attend(spec: &StageSpec<'_>, running: Running, sink: &mut dyn Sink) -> Observed {
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
        timed_out: stage.timed_out,
        wall_time: Duration::from_nanos(wall_ns),
        streams: stage.streams,
        cpu_time_us: usage.cpu_time_us,
        max_rss_bytes: usage.max_rss_bytes,
    }
}

struct Stage<'a> {
    spec: &'a StageSpec<'a>,
    sink: &'a mut dyn Sink,
    pidfd: OwnedFd,
    stdin: Option<File>,
    /// Bytes of standard input that the program's pipe has.
    fed: usize,
    outputs: [Option<OutputPipe>; 2],
    report: Option<File>,
    deadline: Option<Instant>,
    announced: bool,
    killed: bool,
    timed_out: bool,
    status: Option<i32>,
    failed: Option<(Option<Step>, i32)>,
    ended_ns: Option<u64>,
    buffer: Vec<u8>,
    streams: [(u64, u64); 2],
}

struct OutputPipe {
    pipe: File,
    stream: Stream,
    kept: HeadTail,
}

impl<'a> Stage<'a> {
    fn new(spec: &'a StageSpec<'a>, running: Running, sink: &'a mut dyn Sink) -> Self {
        let Pipes {
            stdin,
            stdout,
            stderr,
            report,
        } = running.pipes;
        let output = |pipe, stream| {
            Some(OutputPipe {
                pipe,
                stream,
                kept: HeadTail::new(spec.output_bytes, spec.tail_max),
            })
        };
        Stage {
            spec,
            sink,
            pidfd: running.pidfd,
            stdin,
            fed: 0,
            outputs: [
                output(stdout, Stream::Stdout),
                output(stderr, Stream::Stderr),
            ],
            report: Some(report),
            deadline: running.started.checked_add(spec.wall_time),
            announced: spec.announced,
            killed: false,
            timed_out: false,
            status: None,
            failed: None,
            ended_ns: None,
            buffer: Vec::with_capacity(CHUNK_BYTES),
            streams: [(0, 0); 2],
        }
    }

    /// Runs until init is gone and both outputs are at their end. They are once no process is left in the
    /// namespace: a program that keeps a stream open does not hold the stage.
    fn serve(&mut self) {
        let mut last_progress = Instant::now();
        while self.report.is_some() || self.outputs.iter().any(Option::is_some) {
            let ready = self.wait(last_progress);
            if !self.sink.wants_write() || ready.client_writable {
                last_progress = Instant::now();
            } else if last_progress.elapsed() >= CLIENT_STALL {
                self.sink.set_gone();
            }
            self.act(&ready);
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
                self.read_output(index);
            }
        }
        if ready.stdin {
            self.feed();
        }
        if self.sink.is_gone() {
            self.kill();
        }
        if self.is_running() && !self.killed && self.time_left().is_some_and(|left| left.is_zero())
        {
            self.timed_out = true;
            self.kill();
        }
    }

    fn is_running(&self) -> bool {
        self.status.is_none() && self.report.is_some()
    }

    fn time_left(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn wait(&self, last_progress: Instant) -> Ready {
        let output = |index: usize| {
            let output = self.outputs[index].as_ref();
            output
                .filter(|_| self.sink.has_room())
                .map(|output| output.pipe.as_fd())
        };
        let client_write = self.sink.wants_write();
        let limit = self
            .time_left()
            .filter(|_| self.is_running() && !self.killed);
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
            report::STARTED if self.failed.is_none() => self.announce(),
            report::EXITED => {
                self.status = Some(report.value);
                self.ended_ns = Some(report.at_ns);
            }
            _ => {}
        }
    }

    /// Sends `Started` once. The program's first output can be read before init's report.
    fn announce(&mut self) {
        if !std::mem::replace(&mut self.announced, true) {
            self.sink.event(Event::Started {
                stage: self.spec.name,
            });
        }
    }

    fn read_output(&mut self, index: usize) {
        let Some(output) = &mut self.outputs[index] else {
            return;
        };
        self.buffer.clear();
        match read_into(&output.pipe, &mut self.buffer) {
            Ok(0) => {
                if let Some(output) = self.outputs[index].take() {
                    self.finish_output(index, output);
                }
            }
            Ok(_) => {
                let stream = output.stream;
                if let Some(mut console) = self.spec.console {
                    // The console is non-blocking: bytes that it has no room for are lost there.
                    let _ = console.write(&self.buffer);
                }
                output.kept.push(&mut self.buffer);
                self.announce();
                self.send(stream);
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.outputs[index] = None,
        }
    }

    fn finish_output(&mut self, index: usize, output: OutputPipe) {
        let stream = output.stream;
        let total = output.kept.total;
        let ending = output.kept.finish();
        self.streams[index] = (total, ending.dropped);
        if ending.dropped > 0 {
            self.sink.event(Event::Dropped {
                stage: self.spec.name,
                stream,
                bytes: ending.dropped,
            });
        }
        // Events of at most a chunk: clients bound the length of a line.
        let mut rest = ending.tail.as_slice();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(chunk_end(rest));
            self.buffer.clear();
            self.buffer.extend_from_slice(piece);
            self.send(stream);
            rest = later;
        }
    }

    /// Sends the buffer as one event.
    fn send(&mut self, stream: Stream) {
        if self.buffer.is_empty() {
            return;
        }
        let data = Data(std::mem::take(&mut self.buffer));
        let event = Event::Output {
            stage: self.spec.name,
            stream,
            data,
        };
        self.buffer = self.sink.event(event).unwrap_or_default();
    }

    /// Writes as much standard input as the pipe holds; closes it at the end.
    fn feed(&mut self) {
        let Some(mut pipe) = self.stdin.as_ref() else {
            return;
        };
        while self.fed < self.spec.stdin.len() {
            match pipe.write(&self.spec.stdin[self.fed..]) {
                Ok(written) => self.fed += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break, // EPIPE: the program closed its end.
            }
        }
        self.stdin = None;
    }
}

//! One stage: a process tree in namespaces of its own, its streams, its clock, its end.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use cloude_protocol::Data;
use cloude_protocol::agent::{Event, StageName, Stream};

use super::child;
use super::output::HeadTail;
use super::pipes::{CHUNK_BYTES, Pipes, ProgramEnds, chunk_end, read_into};
use super::plan::Plan;
use super::report::{self, Report, Step};
use super::sink::Sink;

/// Never more wall clock than this for a stage: a year, which no clock overflows on.
pub const MAX_WALL_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// A client that takes no byte for so long is taken to be gone.
const CLIENT_STALL: Duration = Duration::from_secs(30);

/// What was seen of a stage when everything in it was dead.
#[derive(Debug)]
pub struct Observed {
    /// How the program ended, as `wait` has it; none if it did not end by itself.
    pub status: Option<i32>,
    /// The step before the program that failed, and its errno.
    pub failed: Option<(Option<Step>, i32)>,
    /// It was killed for its wall-clock limit.
    pub timed_out: bool,
    /// From before the process was made to its end.
    pub wall_time: Duration,
    /// Bytes written and dropped, of standard output and standard error.
    pub streams: [(u64, u64); 2],
    /// User and system time of what was waited for, in microseconds.
    pub cpu_time_us: u64,
    /// The largest resident set of one process, in bytes.
    pub max_rss_bytes: u64,
}

/// How a stage is bounded and fed.
#[derive(Debug)]
pub struct StageSpec<'a> {
    /// Which.
    pub name: StageName,
    /// Standard input.
    pub stdin: &'a [u8],
    /// Wall clock.
    pub wall_time: Duration,
    /// Kept of each stream.
    pub output_bytes: u64,
    /// Kept of each stream's end at most.
    pub tail_max: u64,
    /// Takes a copy of the output: the console, not waited for.
    pub console: Option<&'a File>,
    /// The client was told already that it runs.
    pub announced: bool,
}

/// Start `plan`'s process tree, carry its streams, and wait until all of it is gone.
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
    Ok(attend(spec, pid, pidfd, pipes, sink, started, started_ns))
}

/// Carry the streams of a process tree whose init is `pid`, and wait until all of it is gone. Its
/// time counts from `started`, and `started_ns` of CLOCK_MONOTONIC.
pub fn attend(
    spec: &StageSpec<'_>,
    pid: i32,
    pidfd: OwnedFd,
    pipes: Pipes,
    sink: &mut dyn Sink,
    started: Instant,
    started_ns: u64,
) -> Observed {
    let mut stage = Stage {
        spec,
        sink,
        pidfd,
        stdin: pipes.stdin,
        fed: 0,
        outputs: [
            (pipes.stdout, Stream::Stdout),
            (pipes.stderr, Stream::Stderr),
        ]
        .map(|(pipe, stream)| Some(OutputPipe::new(pipe, stream, spec))),
        report: Some(pipes.report),
        deadline: started.checked_add(spec.wall_time),
        announced: spec.announced,
        killed: false,
        timed_out: false,
        status: None,
        failed: None,
        ended_ns: None,
        buffer: Vec::with_capacity(CHUNK_BYTES),
        streams: [(0, 0); 2],
    };
    stage.serve();
    let (cpu_time_us, max_rss_bytes) = wait_for(pid);
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
        cpu_time_us,
        max_rss_bytes,
    }
}

struct Stage<'a> {
    spec: &'a StageSpec<'a>,
    sink: &'a mut dyn Sink,
    pidfd: OwnedFd,
    stdin: Option<File>,
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

impl OutputPipe {
    fn new(pipe: File, stream: Stream, spec: &StageSpec<'_>) -> Self {
        OutputPipe {
            pipe,
            stream,
            kept: HeadTail::new(spec.output_bytes, spec.tail_max),
        }
    }
}

/// What can be done, as far as `poll` says.
#[derive(Default)]
struct Ready {
    report: bool,
    outputs: [bool; 2],
    stdin: bool,
    client_writable: bool,
    client_closed: bool,
}

impl Stage<'_> {
    /// Until init is gone and both outputs are at their end, which they are once nothing that could
    /// write lives in the namespace.
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
        if self.is_running() && !self.killed && self.left().is_some_and(|left| left.is_zero()) {
            self.timed_out = true;
            self.kill();
        }
    }

    fn is_running(&self) -> bool {
        self.status.is_none() && self.report.is_some()
    }

    fn left(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn wait(&self, last_progress: Instant) -> Ready {
        const NOTHING: libc::pollfd = libc::pollfd {
            fd: -1,
            events: 0,
            revents: 0,
        };
        let entry = |fd: Option<BorrowedFd<'_>>, events| match fd {
            Some(fd) => libc::pollfd {
                fd: fd.as_raw_fd(),
                events,
                revents: 0,
            },
            None => NOTHING,
        };
        let output = |index: usize| {
            let pipe = self.outputs[index]
                .as_ref()
                .filter(|_| self.sink.has_room());
            entry(pipe.map(|output| output.pipe.as_fd()), libc::POLLIN)
        };
        let client_events = if self.sink.wants_write() {
            libc::POLLOUT
        } else {
            0
        };
        let mut fds = [
            entry(self.report.as_ref().map(|file| file.as_fd()), libc::POLLIN),
            output(0),
            output(1),
            entry(self.stdin.as_ref().map(|file| file.as_fd()), libc::POLLOUT),
            entry(
                self.sink.as_fd().filter(|_| !self.sink.is_gone()),
                client_events | libc::POLLRDHUP,
            ),
        ];
        // SAFETY: the array outlives the call, which is told its length.
        let count = unsafe {
            libc::poll(
                fds.as_mut_ptr(),
                fds.len() as _,
                self.patience(last_progress),
            )
        };
        if count < 0 {
            return Ready::default(); // Interrupted: look again.
        }
        let [report, stdout, stderr, stdin, client] = fds.map(|fd| fd.revents);
        Ready {
            report: report != 0,
            outputs: [stdout != 0, stderr != 0],
            stdin: stdin != 0,
            client_writable: client & libc::POLLOUT != 0,
            client_closed: client & !libc::POLLOUT != 0,
        }
    }

    /// How long `poll` may wait, in milliseconds; -1 is for ever. Rounded up, so that the time has
    /// really passed when nothing else happens.
    fn patience(&self, last_progress: Instant) -> i32 {
        let clock = if self.is_running() && !self.killed {
            self.left()
        } else {
            None
        };
        let client = self
            .sink
            .wants_write()
            .then(|| CLIENT_STALL.saturating_sub(last_progress.elapsed()));
        match clock.into_iter().chain(client).min() {
            None => -1,
            Some(left) => left.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32,
        }
    }

    /// Killing init kills everything in its namespace (pid_namespaces(7)).
    fn kill(&mut self) {
        if !std::mem::replace(&mut self.killed, true) {
            // SAFETY: a plain system call on our own descriptor, without siginfo.
            unsafe {
                let no_info = std::ptr::null::<libc::siginfo_t>();
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    self.pidfd.as_raw_fd(),
                    libc::SIGKILL,
                    no_info,
                    0,
                );
            }
        }
    }

    fn read_report(&mut self) {
        let Some(pipe) = &mut self.report else { return };
        let mut bytes = [0; size_of::<Report>()];
        match pipe.read(&mut bytes) {
            Ok(length) if length == bytes.len() => {
                // SAFETY: any bit pattern is a `Report`; one write of it is below PIPE_BUF, whole.
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

    /// Say once that the program runs. Its first output may be seen before init's report.
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
                    // What the console does not take at once is not waited for.
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
        // In pieces that a reader of lines can hold, each whole characters.
        let mut rest = ending.tail.as_slice();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(chunk_end(rest));
            self.buffer.clear();
            self.buffer.extend_from_slice(piece);
            self.send(stream);
            rest = later;
        }
    }

    /// Send what is in the buffer.
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

    /// Write as much of standard input as the program takes; at its end, close it.
    fn feed(&mut self) {
        let Some(mut pipe) = self.stdin.as_ref() else {
            return;
        };
        while self.fed < self.spec.stdin.len() {
            match pipe.write(&self.spec.stdin[self.fed..]) {
                Ok(written) => self.fed += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break, // Nobody reads it any more.
            }
        }
        self.stdin = None;
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Reap init; gives CPU time in microseconds and the largest resident set in bytes, of it and of
/// all that was reaped below it.
fn wait_for(pid: i32) -> (u64, u64) {
    // SAFETY: all-zero is a valid rusage, and both outlive the calls.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        while libc::wait4(pid, std::ptr::null_mut(), 0, &mut usage) < 0
            && nix::errno::Errno::last() == nix::errno::Errno::EINTR
        {}
        usage
    };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    (
        micros(usage.ru_utime) + micros(usage.ru_stime),
        usage.ru_maxrss as u64 * 1024,
    )
}

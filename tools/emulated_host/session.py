"""One command on an emulated host: its streams, signals, terminal and exit code."""

import argparse
import fcntl
import os
import queue
import resource
import signal
import socket
import struct
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable

from emulated_host import forward
from emulated_host.machine import HostError, Machine, prepare

# Maximum data of a stream's frame (CHUNK of common.h).
CHUNK = 32 * 1024
# Exit code of failures of with-kvm itself, as for env, nice and nohup.
FAILED = 125
FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# Ctrl-C on a terminal goes to the command as a byte. This many within PANIC_SECONDS end with-kvm.
PANIC_PRESSES, PANIC_SECONDS = 5, 2.0
# A host without console output and messages for this long is stuck. A boot prints a line every fraction of a second,
# or every few seconds on a busy machine.
START_PATIENCE_SECONDS = float(os.environ.get("CLOUDE_EMULATED_HOST_START_PATIENCE") or 30)
STARTS = 3
# The slowdown of an emulated host, relative to hardware KVM. clouded multiplies its time limits by it.
TIME_FACTOR = b"20"
# Each CPU sends a heartbeat every second. After this many seconds without one it has stopped for good: on a busy
# machine heartbeats are late by seconds, never by minutes.
PATIENCE_SECONDS = float(os.environ.get("CLOUDE_EMULATED_HOST_PATIENCE") or 180)


def read_exactly(source: socket.socket, size: int) -> bytes | None:
    """Reads SIZE bytes; returns None at end of file."""
    data = b""
    while len(data) < size:
        try:
            some = source.recv(size - len(data))
        except ConnectionError:
            return None
        if not some:
            return None
        data += some
    return data


def write_everything(fd: int, data: bytes) -> None:
    """Writes all data. The descriptor may be non-blocking, if a parent process has set O_NONBLOCK."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            time.sleep(0.005)


class StuckError(HostError):
    """An emulated host made no progress; another one may."""


class Session:
    """The other end of init.c's protocol."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.events: queue.SimpleQueue = queue.SimpleQueue()
        self.machine: Machine | None = None
        self.saved_terminal = None
        self.interrupts = 0
        # The time of each CPU's last heartbeat.
        self.beats: dict[int, float] = {}
        self.file_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.send_lock = threading.Lock()
        # The command gets one terminal. All descriptors that are terminals outside share it.
        self.terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)] if os.isatty(0) else []

    def send(self, kind: bytes, data: bytes) -> None:
        """Sends a control message; ignores a closed connection."""
        with self.send_lock:
            try:
                self.machine.sockets["control"].sendall(kind + struct.pack("<I", len(data)) + data)
            except OSError:
                pass

    def start_message(self, folder: str) -> bytes:
        """Returns the start message, which receive_start of init.c parses."""
        umask = os.umask(0)
        os.umask(umask)
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        rows, columns = self.window()
        soft = min(self.file_limit, 1 << 20) if self.file_limit != resource.RLIM_INFINITY else 1 << 20
        environment = dict(os.environb)
        environment[b"CLOUDE_EMULATED_HOST"] = b"1"
        environment.setdefault(b"CLOUDE_TIME_FACTOR", TIME_FACTOR)
        fields: list[str | bytes] = [str(seconds), str(nanoseconds), str(sum(1 << fd for fd in self.terminals))]
        fields += [str(rows), str(columns), str(soft), str(umask), os.uname().nodename]
        fields += [os.path.join(folder, "modules"), os.getcwd()]
        fields += [str(int(bool(self.options.port))), str(len(self.options.command)), *self.options.command]
        fields += [str(len(environment)), *(name + b"=" + value for name, value in environment.items())]
        return b"".join(os.fsencode(field) + b"\0" for field in fields)

    def window(self) -> tuple[int, int]:
        """Returns rows and columns of the terminal."""
        if not self.terminals:
            return 24, 80
        packed = fcntl.ioctl(self.terminals[0], termios.TIOCGWINSZ, bytes(8))
        rows, columns, _, _ = struct.unpack("HHHH", packed)
        return rows, columns

    def pump_in(self) -> None:
        """Copies our standard input to the command's."""
        port, presses = self.machine.sockets["stdin"], []
        while True:
            try:
                data = os.read(0, CHUNK)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            except OSError:
                data = b""
            if b"\x03" in data and self.saved_terminal:
                now = time.monotonic()
                presses = [at for at in presses if now - at < PANIC_SECONDS] + [now] * data.count(b"\x03")
                if len(presses) >= PANIC_PRESSES:
                    self.events.put(("end", 128 + signal.SIGINT))
            try:
                port.sendall(struct.pack("<I", len(data)) + data)
            except OSError:
                return
            if not data:
                return

    def pump_out(self, fd: int, name: str) -> None:
        """Copies one of the command's output streams to ours."""
        port, broken = self.machine.sockets[name], False
        while header := read_exactly(port, 4):
            (size,) = struct.unpack("<I", header)
            data = read_exactly(port, size) if size else None
            if not data:
                break
            if broken:
                continue
            try:
                write_everything(fd, data)
            except OSError:
                # Continue to read and discard, so that the pump in the host never blocks. Report the stream as
                # closed now: the host kills that pump, perhaps in the middle of a frame, so that no end may arrive.
                broken = True
                self.send(b"P", bytes([fd]))
                self.events.put(("closed", fd))
        self.events.put(("closed", fd))

    def listen(self) -> None:
        """Receives control messages."""
        control = self.machine.sockets["control"]
        while header := read_exactly(control, 5):
            self.machine.last_activity = time.monotonic()
            kind, size = header[:1], struct.unpack("<I", header[1:])[0]
            data = read_exactly(control, size) if size else b""
            if kind == b"H":
                self.events.put(("hello", None))
            elif kind == b"R":
                self.events.put(("running", None))
            elif kind == b"B" and data:
                self.beats[data[0]] = time.monotonic()
            elif kind == b"X" and data:
                self.events.put(("exit", struct.unpack("<I", data)[0]))
        self.events.put(("gone", None))

    def on_signal(self, number: int, _frame) -> None:
        """Signal handler: only queues an event."""
        self.events.put(("signal", number))

    def take_terminal(self) -> None:
        """Puts the terminal into raw mode, so that the command's terminal interprets all keys."""
        if self.terminals:
            self.saved_terminal = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)
            if 1 not in self.terminals:
                mode = termios.tcgetattr(0)
                mode[1] |= termios.OPOST
                termios.tcsetattr(0, termios.TCSADRAIN, mode)

    def give_terminal_back(self) -> None:
        """Restores the terminal's mode."""
        if self.saved_terminal:
            termios.tcsetattr(0, termios.TCSADRAIN, self.saved_terminal)
            self.saved_terminal = None

    def handle_signal(self, number: int, running: bool) -> int | None:
        """Forwards a signal to a running command. Returns an exit code if with-kvm must end instead."""
        if number == signal.SIGWINCH:
            if not running:
                return None
            self.send(b"W", struct.pack("<HH", *self.window()))
            return None
        self.interrupts += number in (signal.SIGINT, signal.SIGTERM)
        if not running or self.interrupts > 1:
            return 128 + number
        self.send(b"K", bytes([number]))
        return None

    def wait_for_start(self, folder: str) -> int | None:
        """Waits until the command has started. Returns an exit code if a signal comes first."""
        while True:
            kind, value = self.next_event(self.stuck_start)
            if kind == "signal":
                end = self.handle_signal(value, False)
                if end is not None:
                    return end
            elif kind == "hello":
                # Sent late, because the message has the time of day.
                self.send(b"S", self.start_message(folder))
            elif kind == "running":
                return None
            elif kind == "gone":
                failure = self.machine.failure()
                if self.machine.powered_off():
                    raise StuckError(f"it ended, and its console had said: {self.machine.last_line()}")
                raise HostError("the emulated host ended unexpectedly:\n" + failure)

    def stuck_start(self) -> str | None:
        """Describes why a starting host is stuck; None if it makes progress."""
        if time.monotonic() - self.machine.last_activity <= START_PATIENCE_SECONDS:
            return None
        last = self.machine.last_line()
        said = f"since its console said: {last}" if last else "and its console was silent from the start"
        return f"no progress for {START_PATIENCE_SECONDS:g} s {said}"

    def start(self, folder: str, initrd: str) -> int | None:
        """Starts a host and the command in it, in up to STARTS attempts. Returns an exit code if a signal comes."""
        for attempt in range(1, STARTS + 1):
            self.beats.clear()
            self.machine = Machine(folder, initrd, self.options.memory, self.options.cpus)
            listener = threading.Thread(target=self.listen, daemon=True)
            listener.start()
            try:
                return self.wait_for_start(folder)
            except StuckError as stuck:
                self.machine.stop()
                # Drop the events of the stopped host: "gone" would look like one of the next host.
                listener.join()
                self.keep_signals()
                if attempt == STARTS:
                    raise HostError(
                        f"the emulated host did not begin the command in {STARTS} starts; the last time: {stuck}"
                    ) from None
                print(
                    f"with-kvm: the emulated host did not begin the command: {stuck}; "
                    f"starting it again ({attempt + 1} of {STARTS})",
                    file=sys.stderr,
                )
        raise AssertionError("a host is started once at least")

    def keep_signals(self) -> None:
        """Drops all queued events except signals."""
        events, self.events = self.events, queue.SimpleQueue()
        while not events.empty():
            kind, value = events.get()
            if kind == "signal":
                self.events.put((kind, value))

    def begin_streams(self) -> None:
        """Connects streams and terminal after the command has started."""
        for target, arguments in (
            (self.pump_in, ()),
            (self.pump_out, (1, "stdout")),
            (self.pump_out, (2, "stderr")),
        ):
            threading.Thread(target=target, args=arguments, daemon=True).start()
        self.take_terminal()
        self.send(b"W", struct.pack("<HH", *self.window()))

    def wait(self) -> int:
        """Waits until the command has ended and its output is written; returns its exit code."""
        code, waiting = None, {1, 2}
        if {1, 2} <= set(self.terminals):
            waiting.discard(2)  # one terminal: the pump of 1 serves both
        while code is None or waiting:
            kind, value = self.next_event(self.stopped_processor)
            if kind == "signal":
                end = self.handle_signal(value, code is None)
                if end is not None:
                    return end
            elif kind == "closed":
                waiting.discard(value)
            elif kind == "exit":
                code = value
            elif kind == "end":
                return value
            elif kind == "gone" and code is None:
                self.give_terminal_back()
                raise HostError("the emulated host ended unexpectedly:\n" + self.machine.failure())
        return code

    def next_event(self, find_problem: Callable[[], str | None]):
        """Returns the next event. Waits in short steps, because Python runs signal handlers only between them."""
        late = False
        while True:
            try:
                return self.events.get(timeout=0.1)
            except queue.Empty:
                # Fail only the second time: after a stop of this process (SIGSTOP) heartbeats are still unread.
                problem = find_problem()
                if problem and late:
                    raise StuckError(problem) from None
                late = bool(problem)

    def stopped_processor(self) -> str | None:
        """Describes a CPU without heartbeats while the command runs; None if there is none."""
        now = time.monotonic()
        silent = [cpu for cpu, at in list(self.beats.items()) if now - at > PATIENCE_SECONDS]
        if not silent:
            return None
        return (
            f"the emulated host's processor {silent[0]} has stopped: no sign of life for {PATIENCE_SECONDS:g} s; "
            "run the command again"
        )

    def run(self) -> int:
        """Runs the command on a new emulated host; returns the exit code."""
        folder, initrd = prepare()
        for number in (signal.SIGINT, signal.SIGWINCH, *FORWARDED_SIGNALS):
            # A signal that the parent process ignores (nohup) stays ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.on_signal)
        reserved = reserve_ports(self.options.port)
        try:
            end = self.start(folder, initrd)
            if end is not None:
                return end
            self.begin_streams()
            forwarder = forward.Forwarder(reserved, self.machine.sockets["forward"]) if reserved else None
            if forwarder:
                forwarder.start()
            code = self.wait()
            if forwarder:
                forwarder.wait_until_drained()
            return code
        finally:
            self.give_terminal_back()
            if self.machine:
                self.machine.stop()


def reserve_ports(ports: list[tuple[int, int]]) -> list[tuple[socket.socket, int]]:
    """Binds each port outside. Returns pairs of a socket and the command's port."""
    reserved = []
    for outside, inside in ports:
        try:
            reserved.append((forward.reserve(outside), inside))
        except OSError as error:
            raise HostError(f"--port {outside}: {error.strerror}") from None
    return reserved


def fill_in(options: argparse.Namespace) -> None:
    """Sets the default number of CPUs and memory size."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    options.memory = options.memory or min(4096, total // 2)
    options.cpus = options.cpus or min(8, len(os.sched_getaffinity(0)))


def run(options: argparse.Namespace) -> int:
    """Returns the command's exit code; 125 if there was no emulated host."""
    try:
        fill_in(options)
        return Session(options).run()
    except HostError as error:
        print(f"with-kvm: {error}", file=sys.stderr)
        return FAILED

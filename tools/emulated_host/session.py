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

from emulated_host.machine import FIRST_FORWARD_PORT, HostError, Machine, prepare

# What a frame of a stream holds at most (init.c's CHUNK).
CHUNK = 32 * 1024
# with-kvm's own failures, as env, nice and nohup have it.
FAILED = 125
FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# A terminal's Ctrl-C goes to the command as a byte; so many of them this quickly end everything.
PANIC_PRESSES, PANIC_SECONDS = 5, 2.0
# Each processor gives a sign of life every second. After so many without one it has stopped for good: on a
# busy machine they come late, and never by minutes.
PATIENCE_SECONDS = float(os.environ.get("CLOUDE_EMULATED_HOST_PATIENCE") or 180)


def read_exactly(source: socket.socket, size: int) -> bytes | None:
    """SIZE bytes, or None at the end."""
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
    """Writes all of it, to a descriptor that may be non-blocking because a parent made it so."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            time.sleep(0.005)


class Session:
    """The host's side of init.c."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.events: queue.SimpleQueue = queue.SimpleQueue()
        self.saved_terminal = None
        self.interrupts = 0
        # When each processor was last heard of.
        self.beats: dict[int, float] = {}
        self.tell_lock = threading.Lock()
        # The terminal that the command gets is one; the descriptors outside that are terminals share it.
        self.terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)] if os.isatty(0) else []

    def tell(self, kind: bytes, data: bytes) -> None:
        """A message to the other side; nobody there is no error here."""
        with self.tell_lock:
            try:
                self.machine.sockets["control"].sendall(kind + struct.pack("<I", len(data)) + data)
            except OSError:
                pass

    def start_message(self, folder: str) -> bytes:
        """What receive_start of init.c reads."""
        umask = os.umask(0)
        os.umask(umask)
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        rows, columns = self.window()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        soft = min(soft, 1 << 20) if soft != resource.RLIM_INFINITY else 1 << 20
        environment = dict(os.environb)
        environment[b"CLOUDE_EMULATED_HOST"] = b"1"
        ports = [str(guest) for _, guest in self.options.port]
        fields: list[str | bytes] = [str(seconds), str(nanoseconds), str(sum(1 << fd for fd in self.terminals))]
        fields += [str(rows), str(columns), str(soft), str(umask), os.uname().nodename]
        fields += [os.path.join(folder, "modules"), os.getcwd()]
        fields += [str(len(ports)), *ports, str(len(self.options.command)), *self.options.command]
        fields += [str(len(environment)), *(name + b"=" + value for name, value in environment.items())]
        return b"".join(os.fsencode(field) + b"\0" for field in fields)

    def window(self) -> tuple[int, int]:
        """Rows and columns of the terminal."""
        if not self.terminals:
            return 24, 80
        packed = fcntl.ioctl(self.terminals[0], termios.TIOCGWINSZ, bytes(8))
        rows, columns, _, _ = struct.unpack("HHHH", packed)
        return rows, columns

    def pump_in(self) -> None:
        """Our standard input to the command's."""
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
        """One of the command's outputs to ours."""
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
                # What came from there is still read, so that the other side never waits for us.
                # Neither is its end: the other side's pump may be gone in the middle of a frame.
                broken = True
                self.tell(b"P", bytes([fd]))
                self.events.put(("closed", fd))
        self.events.put(("closed", fd))

    def listen(self) -> None:
        """Messages of the other side."""
        control = self.machine.sockets["control"]
        while header := read_exactly(control, 5):
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
        """In the main thread, between two instructions: only queues."""
        self.events.put(("signal", number))

    def take_terminal(self) -> None:
        """From now on every key goes to the command's own terminal."""
        if self.terminals:
            self.saved_terminal = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)
            if 1 not in self.terminals:
                mode = termios.tcgetattr(0)
                mode[1] |= termios.OPOST
                termios.tcsetattr(0, termios.TCSADRAIN, mode)

    def give_terminal_back(self) -> None:
        """As it was."""
        if self.saved_terminal:
            termios.tcsetattr(0, termios.TCSADRAIN, self.saved_terminal)
            self.saved_terminal = None

    def handle_signal(self, number: int, running: bool) -> int | None:
        """Passes it on to a running command; an exit code if that is the end of everything."""
        if number == signal.SIGWINCH:
            self.tell(b"W", struct.pack("<HH", *self.window()))
            return None
        self.interrupts += number in (signal.SIGINT, signal.SIGTERM)
        if not running or self.interrupts > 1:
            return 128 + number
        self.tell(b"K", bytes([number]))
        return None

    def wait(self, folder: str) -> int:
        """Until the command has ended and its output is written; its exit code."""
        running, code, waiting = False, None, {1, 2}
        if {1, 2} <= set(self.terminals):
            waiting.discard(2)  # comes with 1
        while code is None or waiting:
            kind, value = self.next_event()
            if kind == "signal":
                end = self.handle_signal(value, running and code is None)
                if end is not None:
                    return end
            elif kind == "hello":
                # Not before: it tells the time.
                self.tell(b"S", self.start_message(folder))
            elif kind == "running":
                running = True
                self.take_terminal()
                self.tell(b"W", struct.pack("<HH", *self.window()))
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

    def next_event(self):
        """Signals are handled only between waits of the main thread: no wait is for ever."""
        late = False
        while True:
            try:
                return self.events.get(timeout=0.1)
            except queue.Empty:
                # Twice: this process may have been stopped itself, with what came meanwhile still unread.
                silent = self.silent_processors()
                if silent and late:
                    self.give_terminal_back()
                    raise HostError(
                        f"the emulated host's processor {silent[0]} has stopped: no sign of life for "
                        f"{PATIENCE_SECONDS:g} s; run the command again"
                    )
                late = bool(silent)

    def silent_processors(self) -> list[int]:
        """Those that were not heard of for too long."""
        now = time.monotonic()
        return [cpu for cpu, at in list(self.beats.items()) if now - at > PATIENCE_SECONDS]

    def run(self) -> int:
        """The whole life of the emulated host."""
        folder, initrd = prepare()
        for number in (signal.SIGINT, signal.SIGWINCH, *FORWARDED_SIGNALS):
            # Ignored by our parent, as nohup does, stays ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.on_signal)
        self.machine = Machine(folder, initrd, self.options.memory, self.options.cpus, self.options.port)
        try:
            for target, arguments in (
                (self.listen, ()),
                (self.pump_in, ()),
                (self.pump_out, (1, "stdout")),
                (self.pump_out, (2, "stderr")),
            ):
                threading.Thread(target=target, args=arguments, daemon=True).start()
            return self.wait(folder)
        finally:
            self.give_terminal_back()
            self.machine.stop()


def fill_in(options: argparse.Namespace) -> None:
    """The machine's size where none was given, and checks."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    options.memory = options.memory or min(4096, total // 2)
    options.cpus = options.cpus or min(8, len(os.sched_getaffinity(0)))
    if len(options.port) > 65536 - FIRST_FORWARD_PORT:
        raise HostError("too many ports")


def run(options: argparse.Namespace) -> int:
    """The command's exit code; 125 if there was no emulated host for it."""
    try:
        fill_in(options)
        return Session(options).run()
    except HostError as error:
        print(f"with-kvm: {error}", file=sys.stderr)
        return FAILED

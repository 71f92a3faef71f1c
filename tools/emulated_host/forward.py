"""Connections of --port: accepted here, and made to the command's port by forward.c.

All travel over one virtio-serial port, in frames of a kind, a connection's number, a value and, for DATA, so many
bytes. Each direction of a connection may have WINDOW bytes under way, so that one that nobody reads holds up no other.
"""

import asyncio
import resource
import socket
import struct
import threading

HEADER = struct.Struct("<cII")
# forward.c has both numbers, too.
WINDOW = 256 * 1024
CHUNK = 32 * 1024 - HEADER.size
OPEN, DATA, END, CREDIT, RESET, DRAINED = b"O", b"D", b"E", b"C", b"R", b"X"
# The kernel takes fewer where net.core.somaxconn says so.
BACKLOG = 4096
MOST_FILES = 65536
# How long clients may take to read what the command had written before it ended.
LAST_READ_SECONDS = 2.0


def reserve(port: int) -> socket.socket:
    """The loopback port, taken from now on; nobody connects to it before `Forwarder` listens."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def allow_many_files() -> None:
    """A descriptor for each connection: the limit that programs start with is often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Connection:
    """One client."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.number = number
        self.reader = reader
        self.writer = writer
        # What is to be written to the client; b"" is the end.
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.window = WINDOW
        self.has_window = asyncio.Event()
        self.task: asyncio.Task | None = None
        # So that drain() waits for everything: what is not written yet earns no credit.
        writer.transport.set_write_buffer_limits(high=0)

    def reset(self) -> None:
        """As a client sees it where a server's socket failed."""
        if not self.writer.transport.is_closing():
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class Forwarder:
    """Forwards the connections to some reserved ports, in a thread of its own."""

    def __init__(self, ports: list[tuple[socket.socket, int]], channel: socket.socket):
        self.ports = ports
        self.channel = channel
        self.connections: dict[int, Connection] = {}
        self.last_number = 0
        self.drained = threading.Event()

    def start(self) -> None:
        """Listens."""
        allow_many_files()
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()

    def wait_until_drained(self) -> None:
        """After the command's end: until clients have what it had written."""
        self.drained.wait(LAST_READ_SECONDS)

    async def _run(self) -> None:
        frames, self.sender = await asyncio.open_unix_connection(sock=self.channel)
        self.sending = asyncio.Lock()
        for reserved, guest in self.ports:
            await asyncio.start_server(
                lambda reader, writer, guest=guest: self._serve(guest, reader, writer), sock=reserved, backlog=BACKLOG
            )
        try:
            while True:
                await self._take_frame(frames)
        except (asyncio.IncompleteReadError, ConnectionError):
            # The emulated host is gone, and whoever waits for it learns it elsewhere.
            self.drained.set()

    async def _send(self, kind: bytes, number: int, value: int = 0, data: bytes = b"") -> None:
        async with self.sending:
            self.sender.write(HEADER.pack(kind, number, value) + data)
            await self.sender.drain()

    async def _take_frame(self, frames: asyncio.StreamReader) -> None:
        kind, number, value = HEADER.unpack(await frames.readexactly(HEADER.size))
        data = await frames.readexactly(value) if kind == DATA else b""
        if kind == DRAINED:
            await self._finish()
            return
        connection = self.connections.get(number)
        if not connection:
            return  # reset by the client a moment ago
        if kind in (DATA, END):
            connection.incoming.put_nowait(data)
        elif kind == CREDIT:
            connection.window += value
            connection.has_window.set()
        elif kind == RESET:
            del self.connections[number]
            connection.reset()
            assert connection.task
            connection.task.cancel()

    async def _finish(self) -> None:
        """The command has ended: so does each connection, once the client has read its answer."""
        for connection in self.connections.values():
            connection.incoming.put_nowait(b"")
        writing = [task for task in asyncio.all_tasks() if task.get_name() == "to client"]
        if writing:
            await asyncio.wait(writing)
        self.drained.set()

    async def _serve(self, guest: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.last_number += 1
        connection = Connection(self.last_number, reader, writer)
        connection.task = asyncio.current_task()
        self.connections[connection.number] = connection
        to_client = asyncio.create_task(self._to_client(connection), name="to client")
        try:
            await self._send(OPEN, connection.number, guest)
            await asyncio.gather(self._from_client(connection), to_client)
            writer.close()
        except OSError:
            connection.reset()
            if self.connections.get(connection.number):
                await self._send(RESET, connection.number)
        except asyncio.CancelledError:
            pass  # by RESET, which has done the rest
        finally:
            to_client.cancel()
            self.connections.pop(connection.number, None)

    async def _from_client(self, connection: Connection) -> None:
        while True:
            while not connection.window:
                connection.has_window.clear()
                await connection.has_window.wait()
            data = await connection.reader.read(min(connection.window, CHUNK))
            if not data:
                await self._send(END, connection.number)
                return
            connection.window -= len(data)
            await self._send(DATA, connection.number, len(data), data)

    async def _to_client(self, connection: Connection) -> None:
        delivered = 0
        while data := await connection.incoming.get():
            connection.writer.write(data)
            await connection.writer.drain()
            delivered += len(data)
            if delivered >= WINDOW // 4:
                await self._send(CREDIT, connection.number, delivered)
                delivered = 0
        connection.writer.write_eof()

"""Connections of --port: accepted here, and connected to the command's port by forward.c.

All connections share one virtio-serial port. A frame has a kind, a connection number, a value and, for DATA, `value`
bytes. At most WINDOW bytes are in flight in each direction of a connection, so that an unread one blocks no other.
"""

import asyncio
import resource
import socket
import struct
import threading

HEADER = struct.Struct("<cII")
# Keep equal to WINDOW and HEADER of forward.c.
WINDOW = 256 * 1024
CHUNK = 32 * 1024 - HEADER.size
OPEN, DATA, END, CREDIT, RESET, DRAINED = b"O", b"D", b"E", b"C", b"R", b"X"
# net.core.somaxconn may lower this limit.
BACKLOG = 4096
MOST_FILES = 65536
# Time for clients to read the remaining output after the command has ended.
LAST_READ_SECONDS = 2.0


def reserve(port: int) -> socket.socket:
    """Binds a loopback port. Connections are refused until `Forwarder` listens on it."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def allow_many_files() -> None:
    """Raises RLIMIT_NOFILE, often 1024, because each connection needs a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Connection:
    """A client's connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.number = number
        self.reader = reader
        self.writer = writer
        # Data for the client; b"" is end of file.
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.window = WINDOW
        self.has_window = asyncio.Event()
        self.task: asyncio.Task | None = None
        # With high=0 drain() waits until all data is written: credit is only for written data.
        writer.transport.set_write_buffer_limits(high=0)

    def reset(self) -> None:
        """Resets the client's connection (TCP RST), as if the server's socket had failed."""
        if not self.writer.transport.is_closing():
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class Forwarder:
    """Forwards connections to the reserved ports, in a separate thread."""

    def __init__(self, ports: list[tuple[socket.socket, int]], channel: socket.socket):
        self.ports = ports
        self.channel = channel
        self.connections: dict[int, Connection] = {}
        self.last_number = 0
        self.drained = threading.Event()

    def start(self) -> None:
        """Starts the thread that listens on all ports."""
        allow_many_files()
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()

    def wait_until_drained(self) -> None:
        """After the command's end: waits until clients have received its remaining output, or LAST_READ_SECONDS."""
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
            # The emulated host is gone; Session handles that.
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
            return  # the client has reset it, and forward.c does not know yet
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
        """The command has ended: closes each connection once its client has read the remaining data."""
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
            pass  # cancelled by RESET, whose handler has removed the connection
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

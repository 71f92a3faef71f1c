#!/usr/bin/python3
"""Tests connections through `with-kvm --port`. Usage: ports.py SCENARIO [COUNT]; exits with 0 on success.

The server runs on the emulated host, the clients outside. Time limits only end a test that hangs.
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time

WITH_KVM = os.environ.get("WITH_KVM") or os.path.join(os.path.dirname(os.path.realpath(__file__)), "../with-kvm")
LIMIT_SECONDS = 300
LARGE = 20_000_000
# More bytes than fit into all buffers on the way to a client that does not read.
ENDLESS = 200_000_000


class Server:
    """A TCP server whose response depends on the first line of the connection."""

    def __init__(self, port: int):
        self.port = port
        self.together: list[tuple[asyncio.StreamWriter, bytes]] = []

    async def run(self) -> None:
        """Serves until it is killed."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, backlog=4096)
        print("ready", flush=True)
        await server.serve_forever()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = (await reader.readline()).split()
        if words[0] == b"together":
            # Respond only after all clients have connected.
            self.together.append((writer, await reader.read()))
            if len(self.together) == int(words[1]):
                for other, said in self.together:
                    other.write(b"you said " + said)
                    other.close()
        elif words[0] == b"echo":
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
        elif words[0] == b"first-to-end":
            writer.write(b"mine")
            writer.write_eof()
            said = await reader.read()
            print("after the end:", said.decode(), flush=True)
            writer.close()
        elif words[0] == b"endless":
            writer.write(bytes(ENDLESS))
        elif words[0] == b"last":
            writer.write(b"x" * 100_000)
            await writer.drain()
            os._exit(5)


def free_port() -> int:
    """Returns a TCP port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Host:
    """An emulated host that runs the server."""

    def __enter__(self):
        self.port, self.unserved = free_port(), free_port()
        command = [WITH_KVM, "--emulate", "--port", f"{self.port}:8123", "--port", f"{self.unserved}:8124"]
        command += ["/usr/bin/python3", os.path.realpath(__file__), "serve", "8123"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self.process.stdout and self.process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def connect(self, line: str) -> socket.socket:
        """Connects and sends the first line."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_SECONDS)
        client.sendall(line.encode() + b"\n")
        return client


def read_to_end(client: socket.socket) -> bytes:
    """Reads until end of file."""
    data = bytearray()
    while piece := client.recv(65536):
        data += piece
    return bytes(data)


def many(host: Host, count: int) -> None:
    """COUNT connections are open at once, and each gets its own answer."""
    start = time.monotonic()
    clients = [host.connect(f"together {count}") for _ in range(count)]
    for number, client in enumerate(clients):
        client.sendall(str(number).encode())
        client.shutdown(socket.SHUT_WR)
    answered, failed = 0, []
    for number, client in enumerate(clients):
        try:
            answer = read_to_end(client)
        except OSError as error:
            answer = str(error).encode()
        if answer == b"you said " + str(number).encode():
            answered += 1
        else:
            failed.append((number, answer))
    print(f"{count} connections at once: {answered} answered in {time.monotonic() - start:.1f} s, failed: {failed}")
    assert answered == count


def half_close(host: Host, _count: int) -> None:
    """Either side may shut down its direction first and still receive."""
    client = host.connect("echo")
    client.sendall(b"all of it")
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(client) == b"all of it"
    client = host.connect("first-to-end")
    assert read_to_end(client) == b"mine"
    client.sendall(b"still heard")
    client.close()
    assert host.process.stdout.readline() == b"after the end: still heard\n"


def unread(host: Host, _count: int) -> None:
    """A connection whose client does not read delays no other one, which echoes 20 MB unchanged."""
    stuck = host.connect("endless")
    assert stuck.recv(1) == b"\0"
    client = host.connect("echo")
    sent = os.urandom(LARGE)
    sender = threading.Thread(target=client.sendall, args=(sent,))
    sender.start()
    received = bytearray()
    while len(received) < LARGE:
        received += client.recv(1 << 20)
    sender.join()
    assert received == sent
    stuck.close()


def last(host: Host, _count: int) -> None:
    """An answer arrives although the command ends right after it."""
    client = host.connect("last")
    assert read_to_end(client) == b"x" * 100_000
    assert host.process.wait(LIMIT_SECONDS) == 5


def nobody(host: Host, _count: int) -> None:
    """A connection to a port without a server is reset."""
    with socket.create_connection(("127.0.0.1", host.unserved), timeout=LIMIT_SECONDS) as client:
        try:
            client.recv(1)
        except ConnectionResetError:
            return
    raise AssertionError("not reset")


SCENARIOS = {"many": many, "half-close": half_close, "unread": unread, "last": last, "nobody": nobody}


def main() -> None:
    """Runs the server, or a scenario."""
    if sys.argv[1] == "serve":
        asyncio.run(Server(int(sys.argv[2])).run())
    elif sys.argv[1] in SCENARIOS:
        with Host() as host:
            SCENARIOS[sys.argv[1]](host, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    else:
        sys.exit(f"scenarios: {' '.join(SCENARIOS)}")


main()

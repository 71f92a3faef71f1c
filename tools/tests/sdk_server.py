#!/usr/bin/env python3
"""sdk_server.py BIN COMMAND [ARGUMENT…]: runs COMMAND while a `clouded` of the folder BIN serves it.

COMMAND has its URL in CLOUDE_TEST_BACKEND. SIGUSR1 to the process in CLOUDE_TEST_SERVER_PID kills the server (SIGKILL)
and starts it again on its port and state. Run it where KVM boots kernels, as root; images must have been built.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

REPOSITORY = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
PATIENCE_S = 60 * float(os.environ.get("CLOUDE_TIME_FACTOR", "1"))


class Server:
    """One `clouded`, with its state and its log in a folder."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{self.address}"
        with open(f"{folder}/clouded.toml", "w", encoding="utf-8") as file:
            file.write(f'listen = "{self.address}"\nstate_dir = "{folder}/state"\n')
            file.write(f'languages = "{REPOSITORY}/languages"\n')
            file.write("[network]\nenabled = false\n[images]\nauto_build = false\n")
        self.start()

    def start(self):
        """Starts it, and waits until it answers."""
        with open(f"{self.folder}/log", "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "--config", f"{self.folder}/clouded.toml"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self.answers():
            if self.process.poll() is not None:
                sys.exit(f"sdk_server.py: clouded ended with {self.process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                sys.exit(f"sdk_server.py: clouded does not answer:\n{self.log()}")
            time.sleep(0.05)

    def answers(self):
        """True once GET /health is answered 200."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.url}/health", timeout=PATIENCE_S) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def crash(self, *_):
        """Kills it, so that it cannot clean up, and starts it again."""
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self):
        """Stops it as a service manager does, and returns its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def log(self):
        """The end of its log."""
        with open(f"{self.folder}/log", encoding="utf-8", errors="replace") as file:
            return file.read()[-20_000:]


def main():
    binaries, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="cloude-sdk-") as folder:
        os.chmod(folder, 0o755)  # for a server that gives up root's rights
        server = Server(f"{binaries}/clouded", folder)
        signal.signal(signal.SIGUSR1, server.crash)
        environment = {
            **os.environ,
            "CLOUDE_TEST_BACKEND": server.url,
            "CLOUDE_TEST_SERVER_PID": str(os.getpid()),
        }
        failed = subprocess.run(command, env=environment, check=False).returncode
        ended = server.stop()
        if ended != 0:
            print(f"sdk_server.py: clouded ended with {ended}", file=sys.stderr)
        if failed or ended:
            print(server.log(), file=sys.stderr)
        sys.exit(failed or ended)


if __name__ == "__main__":
    main()

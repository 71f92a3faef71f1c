"""The processes of an emulated host: QEMU, and virtiofsd, which serves the host's root."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

TOOLS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
PR_SET_PDEATHSIG = 1
# The virtio-serial ports, in the order of their numbers in common.h.
PORTS = ("control", "stdin", "stdout", "stderr", "forward")
# Bytes of console output that are shown if the emulated host crashes.
CONSOLE_TAIL = 16 * 1024
# Time for QEMU to exit after it has closed its sockets.
EXIT_SECONDS = 5
# A Zen CPU with nested virtualization. Features that TCG does not implement are disabled, because QEMU would warn.
CPU = "EPYC,+svm,+npt,-fxsr-opt,-misalignsse,-osvw,-topoext,-nrip-save,-xsavec"
# CPUs in addition to the command's. VMs must not run on the first CPU: when another CPU restores its FPU state, QEMU
# clears a flag in hflags2 of the first one without a lock (cpu_clear_ignne in
# target/i386/tcg/system/fpu_helper.c), which can undo a concurrent write of the first CPU. That word also has the
# flags for nested paging and for the interrupt flag: guests hung or triple-faulted, and the host lost its timer or
# crashed on a stack's guard page (docs/with-kvm.md).
KERNEL_CPUS = 1
# Self-tests, certificates and the like: they take a second under emulation, and no command here uses them.
SKIPPED_INITCALLS = (
    "jent_mod_init",
    "bpf_tcp_ca_kfunc_init",
    "bpf_dummy_struct_ops_init",
    "load_system_certificate_list",
    "init_ima",
    "init_evm",
    "init_encrypted",
    "crypto_kdf108_init",
    "i8042_init",
)
# loglevel=7: console output shows the progress of the boot; init.c lowers the level when the command starts.
# init_on_alloc=1 is required: virtiofsd writes guest pages without TCG noticing, which then executes stale translated
# code, unless a guest CPU has written to the page in between.
KERNEL_OPTIONS = (
    "console=ttyS0 loglevel=7 panic=-1 init_on_alloc=1 mitigations=off nokaslr no_timer_check "
    "tsc=reliable random.trust_cpu=on audit=0 cgroup_no_v1=all 8250.nr_uarts=1 cryptomgr.notests "
    f"initcall_blacklist={','.join(SKIPPED_INITCALLS)} rdinit=/init"
)


class HostError(Exception):
    """There is no emulated host; the message names the reason and the way out."""


def cache_dir() -> str:
    """Returns the cache folder (docs/architecture.md)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("CLOUDE_CACHE_DIR") or os.path.join(base, "cloude")


def find_file_server() -> str | None:
    """Returns the path of virtiofsd; prefers the Rust version to the C version of QEMU 7.2."""
    candidates = (
        os.path.join(cache_dir(), "emulated-host/bin/virtiofsd"),
        shutil.which("virtiofsd"),
        "/usr/libexec/virtiofsd",
        "/usr/lib/qemu/virtiofsd",
    )
    return next((path for path in candidates if path and os.access(path, os.X_OK)), None)


def prepare() -> tuple[str, str]:
    """Returns the folder of the kernel and its modules, and the initramfs. Installs or builds whatever is missing."""
    if not shutil.which("qemu-system-x86_64") or not find_file_server():
        setup = [os.path.join(TOOLS, "setup"), "--for", "emulated-host"]
        if subprocess.run(setup, stdin=subprocess.DEVNULL, stdout=2).returncode != 0:
            raise HostError("QEMU and virtiofsd are needed: run tools/setup --for emulated-host")
    made = subprocess.run(
        [os.path.join(TOOLS, "emulated_host/prepare")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    if made.returncode != 0:
        raise HostError("the emulated host's kernel could not be made")
    folder, initrd = made.stdout.decode().split("\n")[:2]
    return folder, initrd


def die_with_parent(parent: int) -> None:
    """In a new child: PR_SET_PDEATHSIG ends it with with-kvm, and a separate process group keeps Ctrl-C from it."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def spawn(command: list[str], fds: list[int], **streams) -> subprocess.Popen:
    """Starts a helper that ends with this process.

    Call it from the main thread only: the kernel sends PR_SET_PDEATHSIG when the thread ends that started the child.
    """
    parent = os.getpid()
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, pass_fds=fds, preexec_fn=lambda: die_with_parent(parent), **streams
    )


def file_server_command(path: str, listening: int) -> list[str]:
    """Returns the command of virtiofsd that serves / on a listening socket."""
    root = os.geteuid() == 0
    if "/qemu/" in path:  # QEMU 7.2's, in C
        sandbox = "chroot" if root else "namespace"
        options = ["source=/", "cache=auto", f"sandbox={sandbox}", "log_level=err"]
        return [path, f"--fd={listening}", *(word for option in options for word in ("-o", option))]
    command = [path, f"--fd={listening}", "--shared-dir=/", "--cache=auto", "--log-level=error"]
    # File systems below / get distinct device numbers, because inode numbers are unique only within one.
    command += ["--announce-submounts", "--inode-file-handles=never"]
    return command + [f"--sandbox={'chroot' if root else 'none'}"]


class Machine:
    """A running emulated host. Creates no files: QEMU and virtiofsd inherit all sockets as descriptors."""

    def __init__(self, folder: str, initrd: str, memory: int, cpus: int):
        self.sockets: dict[str, socket.socket] = {}
        self.console = b""
        # The time of the last console output or message of init.c.
        self.last_activity = time.monotonic()
        inner: dict[str, socket.socket] = {}
        for name in (*PORTS, "console"):
            self.sockets[name], inner[name] = socket.socketpair()
        files = self._start_file_server()
        inner["files"] = files
        command = qemu_command(memory, cpus, {name: end.fileno() for name, end in inner.items()})
        command += ["-kernel", f"{folder}/vmlinux", "-initrd", initrd, "-append", KERNEL_OPTIONS]
        self.qemu = spawn(
            command, [end.fileno() for end in inner.values()], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for end in inner.values():
            end.close()
        self.console_reader = threading.Thread(target=self._read_console, daemon=True)
        self.console_reader.start()

    def _start_file_server(self) -> socket.socket:
        """Starts virtiofsd and returns the connection to it."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("")  # an abstract name that the kernel chooses: no file (unix(7), autobind)
        listening.listen(1)
        connection = socket.socket(socket.AF_UNIX)
        # virtiofsd accepts one connection: this one.
        connection.connect(listening.getsockname())
        path = find_file_server()
        if path is None:
            raise HostError("virtiofsd is needed: run tools/setup --for emulated-host")
        self.file_server = spawn(
            file_server_command(path, listening.fileno()), [listening.fileno()], stdout=subprocess.DEVNULL
        )
        listening.close()
        return connection

    def _read_console(self) -> None:
        while data := self.sockets["console"].recv(4096):
            self.console = (self.console + data)[-CONSOLE_TAIL:]
            self.last_activity = time.monotonic()

    def last_line(self) -> str:
        """Returns the last line of the console; "" if there is none."""
        lines = self.console.decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def failure(self) -> str:
        """Stops the machine and returns QEMU's errors and the last console output."""
        try:
            self.qemu.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        self.stop()
        assert self.qemu.stderr
        said = self.qemu.stderr.read().decode(errors="replace").strip()
        console = self.console.decode(errors="replace").strip()
        return "\n".join(part for part in (said, console) if part) or "it ended without a word"

    def powered_off(self) -> bool:
        """True if QEMU exited with 0: the machine in it stopped, by a kernel panic for example, and not QEMU itself."""
        return self.qemu.returncode == 0

    def stop(self) -> None:
        """Kills QEMU and virtiofsd with their child processes."""
        for process in (self.qemu, self.file_server):
            if process.poll() is None:
                kill_group(process)
        for process in (self.qemu, self.file_server):
            process.wait()
        self.console_reader.join()


def kill_group(process: subprocess.Popen) -> None:
    """Kills the process group; only the process if it has not created its group yet."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def qemu_command(memory: int, cpus: int, fds: dict[str, int]) -> list[str]:
    """Returns QEMU's command line without kernel, initramfs and kernel options."""
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    command += ["-machine", "q35,memory-backend=ram", "-accel", "tcg,thread=multi", "-cpu", CPU]
    command += ["-smp", str(KERNEL_CPUS + cpus), "-m", f"{memory}M", "-rtc", "base=utc"]
    command += ["-object", f"memory-backend-memfd,id=ram,size={memory}M,share=on"]
    command += ["-chardev", f"socket,id=files,fd={fds['files']}"]
    command += ["-device", "vhost-user-fs-pci,chardev=files,tag=root,queue-size=1024"]
    command += ["-chardev", f"socket,id=console,fd={fds['console']}", "-serial", "chardev:console"]
    command += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
    command += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci,max_ports=8"]
    for number, name in enumerate(PORTS, start=1):
        command += ["-chardev", f"socket,id={name},fd={fds[name]}"]
        command += ["-device", f"virtserialport,chardev={name},name=cloude.{name},nr={number}"]
    return command

"""The processes of an emulated host: QEMU and the file server for the machine's root."""

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
# Ports of common.h, which lists their numbers too.
PORTS = ("control", "stdin", "stdout", "stderr", "forward")
# Of the kernel's console, shown if the machine dies.
CONSOLE_TAIL = 16 * 1024
# How long QEMU may take to end once it has closed its sockets.
LAST_WORDS_SECONDS = 5
# Everything that the emulator does for a Zen processor, nested virtualization included; what it does
# not do is named, so that it does not warn.
CPU = "EPYC,+svm,+npt,-fxsr-opt,-misalignsse,-osvw,-topoext,-nrip-save,-xsavec"
# Processors beside those that the command gets. VMs must not run on the first: whenever another processor
# restores its floating-point state, QEMU clears a flag in a word of the first one's (cpu_clear_ignne in
# target/i386/tcg/system/fpu_helper.c, which takes no lock), and so undoes what the first one is just writing there.
# The same word says whether memory is nested, and whether interrupts are let in: guests hung or died of triple faults,
# and the host lost its timer, or crashed on a stack's guard page (docs/with-kvm.md).
KERNEL_CPUS = 1
# Self-tests, certificates and the like: a second under emulation, for nothing that a command here uses.
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
# The console shows that the boot goes on; init.c makes it quiet when the command starts.
# init_on_alloc must stay: the file server writes pages behind the emulator's back, which goes on executing
# what it had translated from such a page before, unless the processor itself has written to it since.
KERNEL_OPTIONS = (
    "console=ttyS0 loglevel=7 panic=-1 init_on_alloc=1 mitigations=off nokaslr no_timer_check "
    "tsc=reliable random.trust_cpu=on audit=0 cgroup_no_v1=all 8250.nr_uarts=1 cryptomgr.notests "
    f"initcall_blacklist={','.join(SKIPPED_INITCALLS)} rdinit=/init"
)


class HostError(Exception):
    """The emulated host cannot be had; the message says why and what to do."""


def cache_dir() -> str:
    """Where everything that can be made again lies (docs/architecture.md)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("CLOUDE_CACHE_DIR") or os.path.join(base, "cloude")


def find_file_server() -> str | None:
    """virtiofsd; the newer Rust one before QEMU 7.2's."""
    candidates = (
        os.path.join(cache_dir(), "emulated-host/bin/virtiofsd"),
        shutil.which("virtiofsd"),
        "/usr/libexec/virtiofsd",
        "/usr/lib/qemu/virtiofsd",
    )
    return next((path for path in candidates if path and os.access(path, os.X_OK)), None)


def prepare() -> tuple[str, str]:
    """The folder of the kernel and its modules, and the initramfs; installs and makes what is missing."""
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
    """In a new child: nothing outlives with-kvm, however that ends; Ctrl-C is for with-kvm alone."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def spawn(command: list[str], fds: list[int], **streams) -> subprocess.Popen:
    """Starts a helper that dies with this process. To be called by the main thread alone."""
    parent = os.getpid()
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, pass_fds=fds, preexec_fn=lambda: die_with_parent(parent), **streams
    )


def file_server_command(path: str, listening: int) -> list[str]:
    """Serves / on a listening socket."""
    root = os.geteuid() == 0
    if "/qemu/" in path:  # QEMU 7.2's, in C
        sandbox = "chroot" if root else "namespace"
        options = ["source=/", "cache=auto", f"sandbox={sandbox}", "log_level=err"]
        return [path, f"--fd={listening}", *(word for option in options for word in ("-o", option))]
    command = [path, f"--fd={listening}", "--shared-dir=/", "--cache=auto", "--log-level=error"]
    # Other file systems below / keep their own device numbers, so that inode numbers stay unique.
    command += ["--announce-submounts", "--inode-file-handles=never"]
    return command + [f"--sandbox={'chroot' if root else 'none'}"]


class Machine:
    """One running emulated host. Leaves no file anywhere: every socket is an inherited descriptor."""

    def __init__(self, folder: str, initrd: str, memory: int, cpus: int):
        self.sockets: dict[str, socket.socket] = {}
        self.console = b""
        # When the console or init.c last said anything.
        self.last_word = time.monotonic()
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
        """Returns the connection to it."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("")  # an abstract name of the kernel's choice: no file
        listening.listen(1)
        connection = socket.socket(socket.AF_UNIX)
        # Ours is the first and only one it accepts.
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
            self.last_word = time.monotonic()

    def last_line(self) -> str:
        """What the console last said; nothing if it has not begun to."""
        lines = self.console.decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def failure(self) -> str:
        """Why it ended before the command did, as far as is known."""
        try:
            self.qemu.wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        self.stop()
        assert self.qemu.stderr
        said = self.qemu.stderr.read().decode(errors="replace").strip()
        console = self.console.decode(errors="replace").strip()
        return "\n".join(part for part in (said, console) if part) or "it ended without a word"

    def powered_off(self) -> bool:
        """Whether QEMU ended because the machine in it did, by a crash for instance; it found no fault of its own."""
        return self.qemu.returncode == 0

    def stop(self) -> None:
        """Takes it away, at once, with every process that it has started."""
        for process in (self.qemu, self.file_server):
            if process.poll() is None:
                kill_group(process)
        for process in (self.qemu, self.file_server):
            process.wait()
        self.console_reader.join()


def kill_group(process: subprocess.Popen) -> None:
    """The process, and its own helpers; the process alone if it has not made its group yet."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def qemu_command(memory: int, cpus: int, fds: dict[str, int]) -> list[str]:
    """The command line of the emulated host, but for what it boots."""
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

//! Hand-made guests, small enough for any KVM, and a worker to run them in.
#![allow(dead_code)] // Each test binary uses a part of this.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use cloude_vmm::control::{
    self, BootSpec, Channel, CpuBaseline, Event, ExitReport, Origin, Request, SpawnOptions,
    WorkerProcess,
};
use cloude_vmm::jail::{Wall, Walls};

pub mod linux;
pub mod prover;

/// The load address and entry point of a guest's code.
pub const ENTRY: u32 = 0x10_0000;

/// A small assembler whose instructions have the same encoding in 32-bit and 64-bit mode.
#[derive(Default)]
pub struct Code(pub Vec<u8>);

impl Code {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `mov dx, port; mov al, value; out dx, al`.
    pub fn out(self, port: u16, value: u8) -> Self {
        let [low, high] = port.to_le_bytes();
        self.bytes(&[0x66, 0xba, low, high, 0xb0, value, 0xee])
    }

    /// `mov dx, port; in al, dx`.
    pub fn input(self, port: u16) -> Self {
        let [low, high] = port.to_le_bytes();
        self.bytes(&[0x66, 0xba, low, high, 0xec])
    }

    /// Prints a text on the serial port.
    pub fn print(self, text: &str) -> Self {
        text.bytes().fold(self, |code, byte| code.out(0x3f8, byte))
    }

    /// Prints `al`.
    pub fn print_al(self) -> Self {
        self.bytes(&[0x66, 0xba, 0xf8, 0x03, 0xee])
    }

    /// Prints `count` bytes from `esi`: `lodsb; out dx, al`.
    pub fn print_from_esi(self, count: usize) -> Self {
        (0..count).fold(self, |code, _| code.bytes(&[0xac]).print_al())
    }

    /// `mov eax, [address]`.
    pub fn load_eax(self, address: u32) -> Self {
        self.bytes(&[0xa1]).bytes(&address.to_le_bytes())
    }

    /// `mov dword [address], value`.
    pub fn store(self, address: u32, value: u32) -> Self {
        self.bytes(&[0xc7, 0x05])
            .bytes(&address.to_le_bytes())
            .bytes(&value.to_le_bytes())
    }

    /// Powers off through ACPI's sleep control register.
    pub fn power_off(self) -> Self {
        self.out(0x600, 5 << 2 | 1 << 5).halt()
    }

    /// `cli; hlt; jmp` back.
    pub fn halt(self) -> Self {
        self.bytes(&[0xfa, 0xf4, 0xeb, 0xfd])
    }

    /// An ELF file with a PVH note that enters the code.
    pub fn pvh(&self) -> File {
        memfd(&elf(&self.0, Some(ENTRY)))
    }
}

pub fn memfd(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(fd);
    file.write_all(bytes).unwrap();
    file
}

/// An ELF file with one segment at [`ENTRY`], and a PVH note if `pvh_entry`.
pub fn elf(code: &[u8], pvh_entry: Option<u32>) -> Vec<u8> {
    const HEADER: u64 = 64;
    const PROGRAM_HEADER: u64 = 56;
    let note = pvh_entry.map(|entry| {
        // namesz, descsz, type XEN_ELFNOTE_PHYS32_ENTRY, name, entry.
        let words = [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), entry];
        words
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect::<Vec<_>>()
    });
    let note = note.unwrap_or_default();
    let note_at = HEADER + 2 * PROGRAM_HEADER;
    let code_at = note_at + note.len() as u64;

    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // e_type EXEC, e_machine x86-64, e_version.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend(u64::from(ENTRY).to_le_bytes());
    file.extend(HEADER.to_le_bytes());
    file.extend([0; 12]);
    // e_ehsize, e_phentsize, e_phnum.
    file.extend([64, 0, 56, 0, 2, 0]);
    file.extend([0; 6]);
    let program_header = |kind: u32, at: u64, address: u64, size: u64| {
        let mut bytes = [kind, 7].map(u32::to_le_bytes).concat();
        bytes.extend(
            [at, address, address, size, size, 4]
                .map(u64::to_le_bytes)
                .concat(),
        );
        bytes
    };
    file.extend(program_header(1, code_at, ENTRY.into(), code.len() as u64));
    file.extend(program_header(4, note_at, 0, note.len() as u64));
    file.extend(note);
    file.extend(code);
    file
}

pub fn spec() -> BootSpec {
    BootSpec {
        vcpus: 1,
        memory_mib: 32,
        cmdline: "test".to_owned(),
        initramfs_segments: 0,
        tap: None,
        console: true,
        vsock: None,
        cpu_baseline: CpuBaseline::Host,
    }
}

pub fn kvm() -> File {
    let mut options = File::options();
    options.read(true).write(true).open("/dev/kvm").unwrap()
}

/// The walls of the workers that tests start: those that the kernels of development hosts have.
pub fn walls() -> Walls {
    [Wall::Namespaces, Wall::Root, Wall::Landlock, Wall::Seccomp]
        .into_iter()
        .collect()
}

/// A worker process and the host's end of its socket.
pub struct Worker {
    pub child: WorkerProcess,
    pub channel: Channel,
}

impl Worker {
    pub fn start() -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_cloude-vmm"));
        let options = SpawnOptions {
            walls: walls(),
            ..SpawnOptions::default()
        };
        let (child, channel) = control::spawn(binary, &options).unwrap();
        Self { child, channel }
    }

    /// Sends the boot request with the descriptors /dev/kvm, `files` and `console`.
    pub fn boot(&self, spec: &BootSpec, files: &[&File], console: Option<OwnedFd>) {
        let kvm = kvm();
        let mut descriptors = vec![kvm.as_fd()];
        descriptors.extend(files.iter().map(|file| file.as_fd()));
        descriptors.extend(console.as_ref().map(|fd| fd.as_fd()));
        self.channel
            .send(&Request::Boot(spec.clone()), &descriptors)
            .unwrap();
    }

    pub fn event(&self) -> Event {
        self.channel.recv().unwrap().0
    }

    /// Asserts that the next event is this one.
    pub fn expect(&self, event: &Event) {
        assert_eq!(&self.event(), event);
    }

    /// Saves the VM and returns its memory file and state file.
    pub fn save(&self, origin: Origin) -> (File, File) {
        self.channel.send(&Request::Save { origin }, &[]).unwrap();
        let (event, descriptors) = self.channel.recv::<Event>().unwrap();
        assert_eq!(event, Event::Saved);
        let mut files = descriptors.into_iter().map(File::from);
        (files.next().unwrap(), files.next().unwrap())
    }

    /// Closes the host's end of the socket.
    pub fn hang_up(&mut self) {
        let (replacement, _other) = Channel::pair().unwrap();
        drop(std::mem::replace(&mut self.channel, replacement));
    }

    /// The exit report, after the worker process has ended.
    pub fn exit_report(mut self) -> ExitReport {
        let report = loop {
            match self.event() {
                Event::Exited(report) => break report,
                Event::Failed { message } => panic!("failed: {message}"),
                _ => {}
            }
        };
        self.child.wait().unwrap();
        report
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe, and a thread that reads its other end to the end.
pub fn collect() -> (OwnedFd, JoinHandle<Vec<u8>>) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let thread = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        File::from(read).read_to_end(&mut bytes).unwrap();
        bytes
    });
    (write, thread)
}

/// Runs a guest until it ends. Returns the exit report and the output.
pub fn run(code: Code) -> (ExitReport, String) {
    run_with(&spec(), &[&code.pvh()])
}

pub fn run_with(spec: &BootSpec, files: &[&File]) -> (ExitReport, String) {
    let worker = Worker::start();
    let (console, output) = collect();
    worker.boot(spec, files, Some(console));
    let report = worker.exit_report();
    (report, String::from_utf8(output.join().unwrap()).unwrap())
}

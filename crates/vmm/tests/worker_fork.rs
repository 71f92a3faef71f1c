//! The worker's side of the control socket: saving, and restoring into blank VMs.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use cloude_vmm::control::{
    BlankVmSpec, BootSpec, CpuBaseline, Event, ExitReason, Origin, Request, RestoreCosts, VsockSpec,
};
use cloude_vmm::snapshot::{FORMAT_VERSION, VmState};
use common::{Code, Worker, collect, kvm, memfd, spec};

/// Waits for input, then prints the input and the register that it set before, and powers off.
fn remembering() -> Code {
    Code::new()
        .bytes(&[0xbe]) // mov esi, …
        .bytes(&0x5a5a_5a41_u32.to_le_bytes())
        .out(0x3f9, 1)
        .print("r")
        .bytes(&[
            0x66, 0xba, 0xfd, 0x03, 0xec, // mov dx, 0x3fd; in al, dx
            0xa8, 0x01, 0x74, 0xfb, // test al, 1; jz to the in
            0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, // mov dx, 0x3f8; in al, dx; out dx, al
            0x89, 0xf0, // mov eax, esi
        ])
        .print_al()
        .power_off()
}

fn origin() -> Origin {
    Origin {
        kernel: "hand-made".to_owned(),
        ..Origin::default()
    }
}

const VSOCK: VsockSpec = VsockSpec {
    guest_cid: 3,
    ready_port: 1025,
};

/// A worker whose guest waits for input.
fn ready() -> Worker {
    ready_of(remembering())
}

fn ready_of(guest: Code) -> Worker {
    let worker = Worker::start();
    let (mut output, console) = std::io::pipe().unwrap();
    let spec = BootSpec {
        vsock: Some(VSOCK),
        ..spec()
    };
    worker.boot(&spec, &[&guest.pvh()], Some(console.into()));
    worker.expect(&Event::Started);
    output.read_exact(&mut [0]).unwrap();
    worker
}

fn saved() -> (File, File) {
    ready().save(origin())
}

fn blank_spec() -> BlankVmSpec {
    BlankVmSpec {
        vcpus: 1,
        memory_mib: 32,
        tap: None,
        console: true,
        vsock: Some(VSOCK),
        cpu_baseline: CpuBaseline::Host,
    }
}

fn blank() -> (Worker, JoinHandle<Vec<u8>>) {
    let worker = Worker::start();
    let (console, output) = collect();
    request_blank(&worker, &blank_spec(), console);
    worker.expect(&Event::BlankReady);
    (worker, output)
}

fn request_blank(worker: &Worker, spec: &BlankVmSpec, console: OwnedFd) {
    let kvm = kvm();
    let descriptors = [kvm.as_fd(), console.as_fd()];
    let request = Request::Blank(spec.clone());
    worker.channel.send(&request, &descriptors).unwrap();
}

fn request_restore(worker: &Worker, origin: Origin, descriptors: &[BorrowedFd]) {
    let request = Request::Restore {
        origin,
        working_set: false,
    };
    worker.channel.send(&request, descriptors).unwrap();
}

fn restore(worker: &Worker, memory: &File, vm_state: &File) -> RestoreCosts {
    request_restore(worker, origin(), &[memory.as_fd(), vm_state.as_fd()]);
    match worker.event() {
        Event::Restored { costs } => costs,
        event => panic!("{event:?}"),
    }
}

fn type_key(worker: &Worker) {
    let bytes = b"k".to_vec();
    let request = Request::ConsoleInput { bytes };
    worker.channel.send(&request, &[]).unwrap();
}

#[test]
fn forks_continue_with_the_saved_state() {
    let (memory, vm_state) = saved();
    for _ in 0..3 {
        let (worker, output) = blank();
        let costs = restore(&worker, &memory, &vm_state);
        assert!(costs.ioctls > 0 && costs.syscalls > 0, "{costs:?}");
        worker.channel.send(&Request::Resume, &[]).unwrap();
        worker.expect(&Event::Started);
        type_key(&worker);
        assert_eq!(worker.exit_report().reason, ExitReason::PowerOff);
        assert_eq!(output.join().unwrap(), b"kA");
    }
}

#[test]
fn a_saved_vm_stays_paused_until_resume() {
    let worker = ready();
    let (memory, vm_state) = worker.save(origin());
    assert!(VmState::decode(&std::fs::read(proc_path(&vm_state)).unwrap()).is_ok());
    assert!(File::set_len(&memory, 0).is_err());
    worker.channel.send(&Request::Resume, &[]).unwrap();
    worker.expect(&Event::Started);
    type_key(&worker);
    assert_eq!(worker.exit_report().reason, ExitReason::PowerOff);
}

fn proc_path(file: &File) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The message of a worker that fails.
fn failure(mut worker: Worker) -> String {
    let Event::Failed { message } = worker.event() else {
        panic!("it did not fail");
    };
    assert_ne!(worker.child.wait().unwrap(), Some(0));
    message
}

#[test]
fn a_bad_snapshot_is_refused_with_the_reason() {
    let (memory, vm_state) = saved();
    let bytes = std::fs::read(proc_path(&vm_state)).unwrap();
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 4;
    let mut newer = bytes.clone();
    newer[8] += 1;
    let other_format = format!("has format version {}", FORMAT_VERSION + 1);
    let cases: [(&str, &File, &File); 6] = [
        ("SHA-256 does not match", &memory, &memfd(&damaged)),
        (
            "state file ends after",
            &memory,
            &memfd(&bytes[..bytes.len() - 1]),
        ),
        ("state file ends after 0", &memory, &memfd(b"")),
        (&other_format, &memory, &memfd(&newer)),
        ("not a VM state file", &memory, &memfd(b"hello, world")),
        (
            "the memory file has 12 bytes",
            &memfd(b"hello, world"),
            &vm_state,
        ),
    ];
    for (expected, memory, vm_state) in cases {
        let (worker, _output) = blank();
        request_restore(&worker, origin(), &[memory.as_fd(), vm_state.as_fd()]);
        let message = failure(worker);
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
    let (worker, _output) = blank();
    let other = Origin::default();
    request_restore(&worker, other, &[memory.as_fd(), vm_state.as_fd()]);
    assert!(failure(worker).contains("kernel saved hand-made"));
}

#[test]
fn a_wrong_number_of_descriptors_is_refused() {
    let (memory, vm_state) = saved();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let kvm = kvm();
    let all = [
        memory.as_fd(),
        vm_state.as_fd(),
        theirs.as_fd(),
        kvm.as_fd(),
    ];
    for (expected, descriptors) in [
        ("needs 2 descriptors and came with 0", &all[..0]),
        ("needs 2 descriptors and came with 1", &all[..1]),
        (
            "0 open connections, and the request has one stream",
            &all[..3],
        ),
        ("needs 3 descriptors and came with 4", &all[..4]),
    ] {
        let (worker, _output) = blank();
        request_restore(&worker, origin(), descriptors);
        let message = failure(worker);
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
    let worker = Worker::start();
    let request = Request::Blank(blank_spec());
    worker.channel.send(&request, &[kvm.as_fd()]).unwrap();
    assert!(failure(worker).contains("needs 2 descriptors and came with 1"));
}

/// Writes to a page for its first input, and powers off for its second.
fn writing() -> Code {
    const WAIT: [u8; 14] = [
        0x66, 0xba, 0xfd, 0x03, 0xec, // mov dx, 0x3fd; in al, dx
        0xa8, 0x01, 0x74, 0xfb, // test al, 1; jz to the in
        0x66, 0xba, 0xf8, 0x03, 0xec, // mov dx, 0x3f8; in al, dx
    ];
    Code::new()
        .out(0x3f9, 1)
        .print("r")
        .bytes(&WAIT)
        .store(0x20_0000, 7)
        .print("w")
        .bytes(&WAIT)
        .power_off()
}

/// A paused fork with its console.
fn fork(memory: &File, vm_state: &File, working_set: Option<&File>) -> (Worker, PipeReader) {
    let worker = Worker::start();
    let (output, console) = std::io::pipe().unwrap();
    request_blank(&worker, &blank_spec(), console.into());
    worker.expect(&Event::BlankReady);
    let mut descriptors = vec![memory.as_fd(), vm_state.as_fd()];
    descriptors.extend(working_set.map(File::as_fd));
    let request = Request::Restore {
        origin: origin(),
        working_set: working_set.is_some(),
    };
    worker.channel.send(&request, &descriptors).unwrap();
    match worker.event() {
        Event::Restored { .. } => (worker, output),
        event => panic!("{event:?}"),
    }
}

/// Requests the working set of a fork: the number of written pages, and the list.
fn request_working_set(fork: &Worker) -> (u64, File) {
    let channel = &fork.channel;
    channel.send(&Request::WorkingSet, &[]).unwrap();
    let (event, list) = channel.recv::<Event>().unwrap();
    let Event::WorkingSet { written_pages, .. } = event else {
        panic!("{event:?}");
    };
    (written_pages, list.into_iter().next().unwrap().into())
}

/// Lets a fork run until it has written to its page.
fn let_write(worker: &Worker, output: &mut PipeReader) {
    worker.channel.send(&Request::Resume, &[]).unwrap();
    worker.expect(&Event::Started);
    type_key(worker);
    let mut letter = [0];
    output.read_exact(&mut letter).unwrap();
    assert_eq!(&letter, b"w");
}

/// Number of copied pages of a fork.
fn copied_pages(fork: &Worker) -> u64 {
    let path = format!("/proc/{}/smaps", fork.child.id());
    let smaps = std::fs::read_to_string(path).unwrap();
    let (_, memory) = smaps.split_once("memfd:").unwrap();
    let value = memory
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = value.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.trim().parse::<u64>().unwrap() / 4
}

#[test]
fn a_working_set_is_copied_at_resume() {
    let (memory, vm_state) = ready_of(writing()).save(origin());
    let (first, mut output) = fork(&memory, &vm_state, None);
    let_write(&first, &mut output);
    let (written_pages, list) = request_working_set(&first);
    // The page that the guest wrote and the page of the generation ID.
    assert!((2..100).contains(&written_pages), "{written_pages}");

    let (next, mut output) = fork(&memory, &vm_state, Some(&list));
    // Only the page of the generation ID: a waiting fork has no other copies.
    assert_eq!(copied_pages(&next), 1);
    next.channel.send(&Request::Resume, &[]).unwrap();
    next.expect(&Event::Started);
    assert_eq!(copied_pages(&next), written_pages);

    type_key(&next);
    output.read_exact(&mut [0]).unwrap();
    type_key(&next);
    assert_eq!(next.exit_report().reason, ExitReason::PowerOff);
}

#[test]
fn a_working_set_that_does_not_parse_is_refused() {
    let (memory, vm_state) = saved();
    let (worker, _output) = blank();
    let request = Request::Restore {
        origin: origin(),
        working_set: true,
    };
    let nonsense = memfd(&[0xff; 3]);
    let descriptors = [memory.as_fd(), vm_state.as_fd(), nonsense.as_fd()];
    worker.channel.send(&request, &descriptors).unwrap();
    assert!(failure(worker).contains("does not parse"));
}

#[test]
fn a_blank_vm_with_other_devices_is_refused() {
    let (memory, vm_state) = saved();
    let worker = Worker::start();
    let spec = BlankVmSpec {
        vsock: None,
        ..blank_spec()
    };
    request_blank(&worker, &spec, collect().0);
    worker.expect(&Event::BlankReady);
    request_restore(&worker, origin(), &[memory.as_fd(), vm_state.as_fd()]);
    assert!(failure(worker).contains("vsock"));
}

#[test]
fn requests_out_of_order_are_refused() {
    let save = || Request::Save { origin: origin() };
    let first = Worker::start();
    first.channel.send(&Request::Resume, &[]).unwrap();
    assert!(failure(first).contains("resume is not allowed as the first message"));
    let (early, _output) = blank();
    early.channel.send(&Request::Resume, &[]).unwrap();
    assert!(failure(early).contains("resume is not allowed for a blank VM"));
    let running = ready();
    running.channel.send(&Request::Resume, &[]).unwrap();
    assert!(failure(running).contains("while the VM runs"));
    let twice = ready();
    twice.save(origin());
    twice.channel.send(&save(), &[]).unwrap();
    assert!(failure(twice).contains("after a save"));
}

#[test]
fn a_pending_connect_prevents_a_save() {
    let worker = ready();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let connect = Request::Connect { id: 1, port: 5 };
    worker.channel.send(&connect, &[theirs.as_fd()]).unwrap();
    let save = Request::Save { origin: origin() };
    worker.channel.send(&save, &[]).unwrap();
    assert!(failure(worker).contains("a connect is pending"));
}

/// Closes the worker's control socket and waits for its end.
fn hang_up(mut worker: Worker) {
    worker.hang_up();
    assert_eq!(worker.child.wait().unwrap(), Some(0));
}

#[test]
fn a_worker_ends_in_any_state_when_its_socket_closes() {
    hang_up(blank().0);
    let (memory, vm_state) = saved();
    let (paused, _output) = blank();
    restore(&paused, &memory, &vm_state);
    hang_up(paused);
    let (running, _output) = blank();
    restore(&running, &memory, &vm_state);
    running.channel.send(&Request::Resume, &[]).unwrap();
    running.expect(&Event::Started);
    hang_up(running);
    let template = ready();
    template.save(origin());
    hang_up(template);
}

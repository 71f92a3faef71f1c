//! The worker's side of the control socket.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use cloude_vmm::control::{
    BootSpec, Channel, ChannelError, DeniedReport, EgressSpec, Event, ExitReason,
    MAX_CONSOLE_INPUT, NetLimits, Request, TapSpec,
};
use cloude_vmm::panics;
use common::{Code, Worker, collect, elf, memfd, run, run_with, spec};

use virtio_bindings::virtio_mmio::*;
use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_WRITE};

/// `jmp` onto itself.
const FOREVER: [u8; 2] = [0xeb, 0xfe];

#[test]
fn a_worker_reports_start_and_exit() {
    let worker = Worker::start();
    let (console, _output) = collect();
    worker.boot(&spec(), &[&Code::new().power_off().pvh()], Some(console));
    assert_eq!(worker.event(), Event::Started);
    let Event::Exited(report) = worker.event() else {
        panic!("no report");
    };
    assert_eq!(report.reason, ExitReason::PowerOff);
}

#[test]
fn a_worker_ends_when_its_socket_closes() {
    let mut worker = Worker::start();
    let (console, output) = collect();
    worker.boot(
        &spec(),
        &[&Code::new().bytes(&FOREVER).pvh()],
        Some(console),
    );
    assert_eq!(worker.event(), Event::Started);
    worker.hang_up();
    assert_eq!(worker.child.wait().unwrap(), Some(0));
    assert!(output.join().unwrap().is_empty());
}

#[test]
fn a_worker_ends_when_its_socket_closes_at_once() {
    let mut worker = Worker::start();
    worker.hang_up();
    assert_eq!(worker.child.wait().unwrap(), Some(0));
}

#[test]
fn early_console_input_waits_for_the_guest() {
    // Listens: enables the receive interrupt. Then echoes until 'q'.
    let code = Code::new()
        .out(0x3f9, 1)
        .bytes(&[
            0x66, 0xba, 0xfd, 0x03, 0xec, // mov dx, 0x3fd; in al, dx
            0xa8, 0x01, 0x74, 0xfb, // test al, 1; jz to the in
            0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, // mov dx, 0x3f8; in al, dx; out dx, al
            0x3c, b'q', 0x75, 0xed, // cmp al, 'q'; jne to the start
        ])
        .power_off();
    let worker = Worker::start();
    let (console, output) = collect();
    worker.boot(&spec(), &[&code.pvh()], Some(console));
    let typed = [vec![b'.'; 3000], b"q".to_vec()].concat();
    let request = Request::ConsoleInput {
        bytes: typed.clone(),
    };
    worker.channel.send(&request, &[]).unwrap();
    assert_eq!(worker.exit_report().reason, ExitReason::PowerOff);
    assert_eq!(output.join().unwrap(), typed);
}

#[test]
fn an_unread_console_blocks_no_guest_and_counts_bytes() {
    // mov ecx, 20000; mov dx, 0x3f8; mov al, 'x'; out dx, al; loop
    let code = Code::new()
        .bytes(&[
            0xb9, 0x20, 0x4e, 0, 0, 0x66, 0xba, 0xf8, 3, 0xb0, b'x', 0xee, 0xe2, 0xfd,
        ])
        .power_off();
    let worker = Worker::start();
    let (mut read, write) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&write, 4096).unwrap();
    worker.boot(&spec(), &[&code.pvh()], Some(write.into()));
    let report = worker.exit_report();
    assert_eq!(report.reason, ExitReason::PowerOff);
    let mut output = Vec::new();
    read.read_to_end(&mut output).unwrap();
    assert!(report.console_dropped_bytes > 0);
    assert_eq!(output.len() as u64 + report.console_dropped_bytes, 20_000);
}

/// A worker whose guest spins.
fn spinning() -> Worker {
    let worker = Worker::start();
    worker.boot(
        &spec(),
        &[&Code::new().bytes(&FOREVER).pvh()],
        Some(collect().0),
    );
    worker.expect(&Event::Started);
    worker
}

#[test]
fn too_much_console_input_ends_the_worker() {
    let worker = spinning();
    let bytes = vec![b'x'; MAX_CONSOLE_INPUT + 1];
    worker
        .channel
        .send(&Request::ConsoleInput { bytes }, &[])
        .unwrap();
    let Event::Failed { message } = worker.event() else {
        panic!("it did not fail");
    };
    assert!(message.contains("4097 bytes of console input"), "{message}");
}

#[test]
fn a_vm_without_a_network_reports_nothing_denied() {
    let worker = spinning();
    worker.channel.send(&Request::Denied, &[]).unwrap();
    worker.expect(&Event::Denied(DeniedReport::default()));
}

/// Requests entropy from the virtio-rng device in a loop, and prints a dot for each buffer.
fn requesting_entropy() -> Code {
    const DEVICE: u32 = 0xd000_0000;
    const DESCRIPTORS: u32 = 0x2_0000;
    const AVAILABLE: u32 = 0x2_1000;
    const USED: u32 = 0x2_2000;
    const BUFFER: u32 = 0x2_3000;
    let registers = [
        (VIRTIO_MMIO_STATUS, 3),
        // VIRTIO_F_VERSION_1 alone.
        (VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
        (VIRTIO_MMIO_DRIVER_FEATURES, 1),
        (VIRTIO_MMIO_STATUS, 0xb),
        (VIRTIO_MMIO_QUEUE_NUM, 8),
        (VIRTIO_MMIO_QUEUE_DESC_LOW, DESCRIPTORS),
        (VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAILABLE),
        (VIRTIO_MMIO_QUEUE_USED_LOW, USED),
        (VIRTIO_MMIO_QUEUE_READY, 1),
        (VIRTIO_MMIO_STATUS, 0xf),
    ];
    let set_up = Code::new()
        .store(DESCRIPTORS, BUFFER)
        .store(DESCRIPTORS + 8, 8)
        .store(DESCRIPTORS + 12, VRING_DESC_F_WRITE)
        .store(AVAILABLE, VRING_AVAIL_F_NO_INTERRUPT);
    let set_up = registers
        .into_iter()
        .fold(set_up, |code, (register, value)| {
            code.store(DEVICE + register, value)
        });
    let index = |ring: u32| (ring + 2).to_le_bytes();
    set_up
        // inc word [the available ring's index]
        .bytes(&[0x66, 0xff, 0x05])
        .bytes(&index(AVAILABLE))
        .store(DEVICE + VIRTIO_MMIO_QUEUE_NOTIFY, 0)
        // mov ax, [the used ring's index]; cmp ax, [the available ring's]; jne to the mov
        .bytes(&[0x66, 0xa1])
        .bytes(&index(USED))
        .bytes(&[0x66, 0x3b, 0x05])
        .bytes(&index(AVAILABLE))
        .bytes(&[0x75, 0xf1])
        .print(".")
        // jmp to the inc
        .bytes(&[0xeb, 0xd7])
}

#[test]
fn a_host_that_reads_no_events_blocks_no_device() {
    const PIPE: usize = 4096;
    let worker = Worker::start();
    let (mut dots, console) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&console, PIPE).unwrap();
    worker.boot(
        &spec(),
        &[&requesting_entropy().pvh()],
        Some(console.into()),
    );
    // More bytes than the pipe holds, so the device has worked since the call.
    let mut wait_for_device = || dots.read_exact(&mut [0; PIPE + 100]).unwrap();

    // There is no vsock device, so each connect is answered by an event. In the end no request is read.
    let mut sent = 0;
    let mut refused = 0;
    while refused < 2 {
        let connect = Request::Connect { id: sent, port: 1 };
        match worker.channel.try_send(&connect, &[]) {
            Ok(()) => (sent, refused) = (sent + 1, 0),
            Err(ChannelError::Full) => {
                refused += 1;
                wait_for_device();
            }
            Err(error) => panic!("{error}"),
        }
    }

    worker.expect(&Event::Started);
    for expected in 0..sent {
        let Event::ConnectFailed { id, .. } = worker.event() else {
            panic!("another event");
        };
        assert_eq!(id, expected);
    }
}

#[test]
fn a_worker_leaves_no_core_file() {
    let worker = spinning();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.child.id())).unwrap();
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let values: Vec<_> = core.unwrap().split_whitespace().take(2).collect();
    assert_eq!(values, ["0", "0"]);
}

#[test]
fn a_panic_is_a_workers_last_event_and_ends_it() {
    // The standard library panics when it prints to a pipe without a reader.
    let (read, broken) = std::io::pipe().unwrap();
    drop(read);
    let (host, theirs) = Channel::pair().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$0\" worker 3<&0 </dev/null"])
        .arg(env!("CARGO_BIN_EXE_cloude-vmm"))
        .stdin(OwnedFd::from(theirs))
        .stderr(broken)
        .spawn()
        .unwrap();

    // Not allowed as the first message: the worker prints the error.
    host.send(&Request::Resume, &[]).unwrap();

    assert!(matches!(host.recv().unwrap().0, Event::Failed { .. }));
    let Event::Exited(report) = host.recv().unwrap().0 else {
        panic!("no report");
    };
    let ExitReason::WorkerPanic { message } = report.reason else {
        panic!("{:?}", report.reason);
    };
    assert!(message.contains("failed printing to stderr"), "{message}");
    assert_eq!(
        child.wait().unwrap().code(),
        Some(i32::from(panics::EXIT_CODE))
    );
}

#[test]
fn many_workers_load_one_open_kernel_at_once() {
    let kernel = Code::new().print("ok").power_off().pvh();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| run_with(&spec(), &[&kernel]).1))
            .collect();
        for run in runs {
            assert_eq!(run.join().unwrap(), "ok");
        }
    });
}

#[test]
fn a_connect_without_a_vsock_device_is_refused() {
    let worker = Worker::start();
    let (console, _output) = collect();
    worker.boot(
        &spec(),
        &[&Code::new().bytes(&FOREVER).pvh()],
        Some(console),
    );
    assert_eq!(worker.event(), Event::Started);
    let request = Request::Connect { id: 5, port: 1 };
    worker.channel.send(&request, &[]).unwrap();
    assert!(matches!(worker.event(), Event::ConnectFailed { id: 5, .. }));
}

/// The message of a boot that fails.
fn failure(spec: &BootSpec, kernel: &[u8]) -> String {
    let mut worker = Worker::start();
    let (console, _output) = collect();
    worker.boot(spec, &[&memfd(kernel)], Some(console));
    let Event::Failed { message } = worker.event() else {
        panic!("it did not fail");
    };
    assert_ne!(worker.child.wait().unwrap(), Some(0));
    message
}

#[test]
fn a_failed_boot_names_the_reason() {
    let good = elf(&[0xf4], Some(common::ENTRY));
    let too_big = elf(&vec![0; 33 << 20], Some(common::ENTRY));
    let many_segments = BootSpec {
        initramfs_segments: 3,
        ..spec()
    };
    let no_tap = BootSpec {
        tap: Some(TapSpec {
            mac: [2; 6],
            mtu: 1500,
            egress: EgressSpec::default(),
            limits: NetLimits::default(),
        }),
        ..spec()
    };
    let cases: [(&str, BootSpec, &[u8]); 11] = [
        (
            "neither an ELF vmlinux nor a bzImage",
            spec(),
            b"#!/bin/sh\n",
        ),
        ("neither an ELF vmlinux nor a bzImage", spec(), b""),
        ("without a PVH entry", spec(), &elf(&[0xf4], None)),
        ("truncated", spec(), &good[..good.len() - 1]),
        ("up to 34 MiB and the guest has 32 MiB", spec(), &too_big),
        (
            "0 vCPUs are not possible",
            BootSpec { vcpus: 0, ..spec() },
            &good,
        ),
        (
            "9 vCPUs are not possible",
            BootSpec { vcpus: 9, ..spec() },
            &good,
        ),
        (
            "31 MiB of guest memory are too few",
            BootSpec {
                memory_mib: 31,
                ..spec()
            },
            &good,
        ),
        (
            "2048 bytes; the limit is 2047",
            BootSpec {
                cmdline: "x".repeat(2048),
                ..spec()
            },
            &good,
        ),
        ("needs 6 descriptors and came with 3", many_segments, &good),
        ("needs 4 descriptors and came with 3", no_tap, &good),
    ];
    for (expected, spec, kernel) in cases {
        let message = failure(&spec, kernel);
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
}

#[test]
fn console_input_as_the_first_request_is_refused() {
    let worker = Worker::start();
    let request = Request::ConsoleInput { bytes: vec![1] };
    worker.channel.send(&request, &[]).unwrap();
    assert!(matches!(worker.event(), Event::Failed { .. }));
}

#[test]
fn a_worker_without_a_socket_prints_its_usage() {
    let output = Command::new(Path::new(env!("CARGO_BIN_EXE_cloude-vmm")))
        .arg("worker")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("cloude-vmm run"), "{message}");
}

#[test]
fn a_guest_sees_no_memory_of_an_earlier_one() {
    // Prints the byte at 0x200000, then writes there.
    let code = || {
        Code::new()
            .load_eax(0x20_0000)
            .bytes(&[0x04, b'0'])
            .print_al()
            .store(0x20_0000, 7)
            .power_off()
    };
    assert_eq!(run(code()).1, "0");
    assert_eq!(run(code()).1, "0");
}

//! Guests that power off, reset, panic and fault, and the exit reason of each.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use std::io::Read as _;

use cloude_vmm::control::{BootSpec, ExitReason};
use common::{Code, memfd, run, run_with, spec};

#[test]
fn a_guest_prints_and_powers_off() {
    let (report, output) = run(Code::new().print("hello\n").power_off());
    assert_eq!(report.reason, ExitReason::PowerOff);
    assert_eq!(report.console_dropped_bytes, 0);
    assert_eq!(output, "hello\n");
}

#[test]
fn each_way_to_reset_resets() {
    for (port, value) in [(0x64, 0xfe), (0xcf9, 6), (0x602, 1)] {
        let (report, _) = run(Code::new().out(port, value).halt());
        assert_eq!(report.reason, ExitReason::Reset, "port {port:#x}");
    }
}

#[test]
fn a_pvpanic_write_is_a_panic() {
    let (report, _) = run(Code::new().out(0x505, 1).halt());
    assert_eq!(report.reason, ExitReason::Panic);
}

#[test]
fn a_printed_linux_panic_makes_a_reset_a_panic() {
    let code = Code::new()
        .print("Kernel panic - not syncing: x\n")
        .out(0x64, 0xfe)
        .halt();
    let (report, _) = run(code);
    assert_eq!(report.reason, ExitReason::Panic);
}

#[test]
fn an_unhandled_exception_is_a_triple_fault() {
    const UD2: [u8; 2] = [0x0f, 0x0b];
    let (report, output) = run(Code::new().print("x").bytes(&UD2));
    assert_eq!(report.reason, ExitReason::TripleFault);
    assert_eq!(output, "x");
}

#[test]
fn a_halted_guest_ends_when_its_socket_closes() {
    let mut worker = common::Worker::start();
    let (mut output, console) = std::io::pipe().unwrap();
    let guest = Code::new().print("x").halt();
    worker.boot(&spec(), &[&guest.pvh()], Some(console.into()));
    output.read_exact(&mut [0]).unwrap();

    worker.hang_up();

    assert_eq!(worker.child.wait().unwrap(), Some(0));
}

#[test]
fn an_address_without_device_reads_all_ones() {
    // Each compares with all ones and dies if it differs: cmp; je over; ud2.
    let code = Code::new()
        .input(0x70)
        .bytes(&[0x3c, 0xff, 0x74, 2, 0x0f, 0x0b])
        .load_eax(0xd800_0000)
        .bytes(&[0x83, 0xf8, 0xff, 0x74, 2, 0x0f, 0x0b])
        .print_al();
    let mut code = code.power_off();
    code = code.halt();
    let (report, output) = run_bytes(code);
    assert_eq!(report, ExitReason::PowerOff);
    assert_eq!(output, [0xff]);
}

fn run_bytes(code: Code) -> (ExitReason, Vec<u8>) {
    let worker = common::Worker::start();
    let (console, output) = common::collect();
    worker.boot(&spec(), &[&code.pvh()], Some(console));
    (worker.exit_report().reason, output.join().unwrap())
}

#[test]
fn a_virtio_device_answers_in_its_window() {
    // The magic number of virtio-mmio, four letters, byte by byte: shr eax, 8.
    let code = (0..4).fold(Code::new().load_eax(0xd000_0000), |code, _| {
        code.print_al().bytes(&[0xc1, 0xe8, 8])
    });
    let (report, output) = run(code.power_off());
    assert_eq!(report.reason, ExitReason::PowerOff);
    assert_eq!(output, "virt");
}

#[test]
fn a_pvh_guest_finds_its_command_line() {
    // mov esi, [ebx + 24]: cmdline_paddr of hvm_start_info.
    let code = Code::new()
        .bytes(&[0x8b, 0x73, 24])
        .print_from_esi(4)
        .power_off();
    let (_, output) = run(code);
    assert_eq!(output, "test");
}

#[test]
fn a_pvh_guest_finds_its_initramfs_segments_in_order() {
    // mov esi, [ebx + 16]: modlist_paddr; mov esi, [esi]: the module's paddr.
    let code = Code::new()
        .bytes(&[0x8b, 0x73, 16, 0x8b, 0x36])
        .print_from_esi(9)
        .power_off();
    let spec = BootSpec {
        initramfs_segments: 2,
        ..spec()
    };
    let files = [&code.pvh(), &memfd(b"first"), &memfd(b"2")];
    let (_, output) = run_with(&spec, &files);
    assert_eq!(output, "first\0\0\x002");
}

#[test]
fn a_bzimage_is_entered_in_long_mode_with_its_zero_page() {
    // mov esi, [rsi + 0x228]: cmd_line_ptr of the zero page.
    let code = Code::new()
        .bytes(&[0x8b, 0xb6, 0x28, 2, 0, 0])
        .print_from_esi(4)
        .power_off();
    let (report, output) = run_with(&spec(), &[&memfd(&bzimage(&code.0))]);
    assert_eq!(report.reason, ExitReason::PowerOff);
    assert_eq!(output, "test");
}

/// A bzImage of one setup sector whose kernel is `code`, entered at 0x200 of it.
fn bzimage(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024];
    let mut set = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    set(0x1f1, &[1]);
    set(0x202, b"HdrS");
    set(0x206, &0x20f_u16.to_le_bytes());
    set(0x211, &[1]);
    set(0x214, &0x10_0000_u32.to_le_bytes());
    set(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    set(0x236, &1_u16.to_le_bytes());
    set(0x258, &0x100_0000_u64.to_le_bytes());
    set(0x260, &0x1_0000_u32.to_le_bytes());
    file.resize(1024 + 0x200, 0x90);
    file.extend(code);
    file
}

#[test]
fn a_second_vcpu_starts_when_the_first_one_asks_for_it() {
    // The second one wakes in real mode at 0x8000: prints 2, then marks 0x9000.
    let second = [
        0xba, 0xf8, 0x03, 0xb0, b'2', 0xee, // mov dx, 0x3f8; mov al, '2'; out dx, al
        0xb8, 0x00, 0x09, 0x8e, 0xd8, // mov ax, 0x900; mov ds, ax
        0xc6, 0x06, 0x00, 0x00, 0x01, // mov byte [0], 1
        0xfa, 0xf4, 0xeb, 0xfd, 0x90, 0x90, // cli; hlt; jmp; nop; nop
    ];
    let words = second.chunks(4).zip((0x8000..).step_by(4));
    let mut code = Code::new();
    for (word, address) in words {
        let mut bytes = [0x90; 4];
        bytes[..word.len()].copy_from_slice(word);
        code = code.store(address, u32::from_le_bytes(bytes));
    }
    // The local APIC's interrupt command: INIT, then STARTUP at page 8, to APIC 1.
    const COMMAND: u32 = 0xfee0_0300;
    const TARGET: u32 = 0xfee0_0310;
    let code = code
        .store(TARGET, 1 << 24)
        .store(COMMAND, 0x4500)
        .store(TARGET, 1 << 24)
        .store(COMMAND, 0x4608)
        // cmp byte [0x9000], 1; jne back
        .bytes(&[0x80, 0x3d, 0x00, 0x90, 0, 0, 1, 0x75, 0xf7])
        .print("1")
        .power_off();
    let spec = BootSpec { vcpus: 2, ..spec() };
    let (report, output) = run_with(&spec, &[&code.pvh()]);
    assert_eq!(report.reason, ExitReason::PowerOff);
    assert_eq!(output, "21");
}

//! The code of the guest, and the addresses that it shares with the test.

use std::arch::global_asm;

use super::super::ENTRY;

/// The results of the vCPUs: 0x100 bytes each.
pub const BLOCKS: u64 = 0x9000;
/// Not zero: the guest continues.
pub const GO: u64 = 0x9f00;
/// Not zero: the guest waits in a loop of two instructions, and once released only prints a letter.
pub const TIGHT: u64 = 0x9f20;
/// kvmclock pages, 64 bytes for each vCPU.
pub const CLOCKS: u64 = 0xa000;
/// A word that each released vCPU copies to its block and increments.
pub const SHARED: u64 = 0x9f10;

// Loaded at ENTRY and entered there in flat 32-bit mode. The GDT at 0x500 is the VMM's: code at 0x10, data
// at 0x18. Nothing that an emulator of few instructions does not know.
global_asm!(
    r#"
    .pushsection .rodata.prover, "a"
    .global prover_start
    .global prover_end
    .code32
prover_start:
    cld
    // mov esi, … (this syntax knows no difference of symbols).
    .byte 0xbe
    .long {entry} + (prover_ap16 - prover_start)
    mov edi, 0x8000
    // mov ecx, …
    .byte 0xb9
    .long prover_ap16_end - prover_ap16
    rep movsb
    // INIT, then STARTUP at page 8, to all others.
    mov dword ptr [0xfee00300], 0x000c4500
    mov dword ptr [0xfee00300], 0x000c4608
    jmp 3f

    .code16
prover_ap16:
    cli
    // lgdt cs:[…]
    .byte 0x2e, 0x0f, 0x01, 0x16
    .word prover_gdtr - prover_ap16
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    // jmp 0x10:2f, with 32 bits of offset.
    .byte 0x66, 0xea
    .long {entry} + (2f - prover_start)
    .word 0x10
prover_gdtr:
    .word 39
    .long 0x500
prover_ap16_end:

    .code32
2:
    mov ax, 0x18
    mov ds, ax
    mov es, ax
    mov ss, ax
3:
    mov eax, dword ptr [0xfee00020]
    shr eax, 24
    mov edi, eax
    mov ebp, eax
    shl ebp, 8
    add ebp, {blocks}
    // SSE: OSFXSR.
    mov eax, cr4
    or eax, 0x600
    mov cr4, eax
    mov eax, edi
    add eax, 0xf0000000
    mov dword ptr [ebp + 0x50], eax
    mov dword ptr [ebp + 0x54], 0x55555555
    mov dword ptr [ebp + 0x58], eax
    mov dword ptr [ebp + 0x5c], 0xaaaaaaaa
    movdqu xmm0, xmmword ptr [ebp + 0x50]
    // IA32_SYSENTER_ESP.
    mov ecx, 0x175
    mov edx, 0
    mov eax, edi
    add eax, 0x71000000
    wrmsr
    // MSR_KVM_SYSTEM_TIME_NEW: the clock's page, and the bit that turns it on.
    mov ecx, 0x4b564d01
    mov eax, edi
    shl eax, 6
    add eax, {clocks} + 1
    wrmsr
    mov eax, edi
    add eax, 0xc2000000
    mov cr2, eax
    mov eax, edi
    add eax, 0xd0000000
    mov dr0, eax
    // The timer: on, one shot, vector 0x40, by 1, for so many nanoseconds.
    mov dword ptr [0xfee000f0], 0x1ff
    mov dword ptr [0xfee00320], 0x40
    mov dword ptr [0xfee003e0], 0xb
    mov dword ptr [0xfee00380], {timer_ns}
    mov ebx, edi
    add ebx, 0xb0000000
    mov ecx, edi
    add ecx, 0xc0000000
    mov esi, edi
    add esi, 0x51000000
    mov esp, edi
    add esp, 0x59000000
    add edi, 0xd1000000
    // Ready.
    mov dx, 0x3f8
    mov al, 'r'
    out dx, al
    std
    mov al, 'g'
    cmp dword ptr [{tight}], 0
    jne 7f
4:
    rdtsc
    mov dword ptr [ebp + 0x28], eax
    mov dword ptr [ebp + 0x2c], edx
    mov eax, dword ptr [0xfee00220]
    mov dword ptr [ebp + 0x34], eax
    cmp dword ptr [{go}], 0
    je 4b

    // Going.
    mov dx, 0x3f8
    mov al, 'g'
    out dx, al
    mov dword ptr [ebp + 0x04], ebx
    mov dword ptr [ebp + 0x08], ecx
    mov dword ptr [ebp + 0x0c], esi
    mov dword ptr [ebp + 0x10], edi
    mov dword ptr [ebp + 0x14], esp
    rdtsc
    mov dword ptr [ebp + 0x38], eax
    mov dword ptr [ebp + 0x3c], edx
    mov eax, cr2
    mov dword ptr [ebp + 0x20], eax
    mov eax, dr0
    mov dword ptr [ebp + 0x24], eax
    movdqu xmmword ptr [ebp + 0x40], xmm0
    mov ecx, 0x175
    rdmsr
    mov dword ptr [ebp + 0x18], eax
    // The direction is down.
    lea esi, [ebp + 0x50]
    lodsd
    mov dword ptr [ebp + 0x1c], esi
    mov eax, dword ptr [{shared}]
    mov dword ptr [ebp + 0x60], eax
    lock inc dword ptr [{shared}]
    mov dx, 0x3f8
    mov al, 'w'
    out dx, al
    // The interrupt that the timer asks for, which is never taken.
5:
    mov eax, dword ptr [0xfee00220]
    test eax, 1
    je 5b
    mov dword ptr [ebp], 1
    mov al, 'd'
    out dx, al
6:
    cli
    hlt
    jmp 6b

    // As little as possible from the save to the first exit.
7:
    cmp dword ptr [{go}], 0
    je 7b
    out dx, al
    jmp 6b
prover_end:
    .code64
    .popsection
    "#,
    entry = const ENTRY,
    blocks = const BLOCKS,
    clocks = const CLOCKS,
    go = const GO,
    tight = const TIGHT,
    shared = const SHARED,
    timer_ns = const TIMER_NS,
);

/// The timeout of each vCPU's timer in nanoseconds: longer than the time to the save. Tests wait for it.
const TIMER_NS: u32 = 1_500_000_000;

unsafe extern "C" {
    static prover_start: u8;
    static prover_end: u8;
}

/// The guest's code, to load at [`ENTRY`].
pub fn code() -> &'static [u8] {
    // SAFETY: the two symbols are the bounds of one stretch of read-only data.
    unsafe {
        let len = (&raw const prover_end).offset_from(&raw const prover_start);
        std::slice::from_raw_parts(&raw const prover_start, len as usize)
    }
}

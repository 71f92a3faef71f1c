//! The CPUID features that guests may see: one row for each 32-bit word of feature bits.
//!
//! A bit that no row names is hidden, and so is a whole leaf that is neither here nor made by
//! `model.rs` or `topology.rs`. To offer a feature to guests: check that KVM saves and restores
//! all the state that comes with it (MSRs, XSAVE components, `KVM_GET_ONE_REG` registers), then give it a
//! policy here.
//!
//! Sources: Intel SDM volume 2A "CPUID", AMD APM volume 3 appendix E, Linux
//! `arch/x86/include/asm/cpufeatures.h` for the names and `arch/x86/include/uapi/asm/kvm_para.h` for KVM's
//! own.

use super::leaf::Register::{self, Eax, Ebx, Ecx, Edx};
use Policy::*;

/// Which guests see a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Every guest, whether or not KVM reports it: KVM emulates it on every processor.
    Always,
    /// Every baseline; a processor without it has no named baseline at all.
    V2,
    /// `x86-64-v3` and `host`.
    V3,
    /// On Intel as [`Policy::V3`], elsewhere as [`Policy::Host`].
    V3Intel,
    /// The baseline `host` only.
    Host,
    /// The baseline `host` on Intel.
    Intel,
    /// The baseline `host` on AMD.
    Amd,
    /// Set for each vCPU by `topology.rs`, or by KVM while the guest runs.
    Dynamic,
    /// No guest.
    Never,
}

/// A register of a leaf whose bits are features.
pub struct Word {
    /// EAX when CPUID is executed.
    pub function: u32,
    /// ECX when CPUID is executed.
    pub index: u32,
    /// The register with the bits.
    pub register: Register,
    /// Bit, name and policy.
    pub features: &'static [(u8, &'static str, Policy)],
}

const fn word(
    function: u32,
    index: u32,
    register: Register,
    features: &'static [(u8, &'static str, Policy)],
) -> Word {
    Word {
        function,
        index,
        register,
        features,
    }
}

/// All of them.
#[rustfmt::skip]
pub const WORDS: &[Word] = &[
    word(0x1, 0, Ecx, &[
        (0, "sse3", V2), (1, "pclmulqdq", V3), (9, "ssse3", V2), (12, "fma", V3), (13, "cx16", V2),
        (17, "pcid", V3Intel), (19, "sse4_1", V2), (20, "sse4_2", V2), (21, "x2apic", V2),
        (22, "movbe", V3), (23, "popcnt", V2), (24, "tsc_deadline", Always), (25, "aes", V3),
        (26, "xsave", V3), (27, "osxsave", Dynamic), (28, "avx", V3), (29, "f16c", V3),
        (30, "rdrand", V3), (31, "hypervisor", Always),
        // Debug store, MWAIT, nested guests, power management, performance counters.
        (2, "dtes64", Never), (3, "monitor", Never), (4, "ds_cpl", Never), (5, "vmx", Never),
        (6, "smx", Never), (7, "est", Never), (8, "tm2", Never), (10, "cnxt_id", Never),
        (11, "sdbg", Never), (14, "xtpr", Never), (15, "pdcm", Never), (18, "dca", Never),
    ]),
    word(0x1, 0, Edx, &[
        (0, "fpu", V2), (1, "vme", Host), (2, "de", V2), (3, "pse", V2), (4, "tsc", V2),
        (5, "msr", V2), (6, "pae", V2), (7, "mce", V2), (8, "cx8", V2), (9, "apic", V2),
        (11, "sep", V2), (12, "mtrr", V2), (13, "pge", V2), (14, "mca", V2), (15, "cmov", V2),
        (16, "pat", V2), (17, "pse36", V2), (19, "clflush", V2), (23, "mmx", V2), (24, "fxsr", V2),
        (25, "sse", V2), (26, "sse2", V2), (27, "ss", Host), (28, "ht", Dynamic),
        (18, "pn", Never), (21, "ds", Never), (22, "acpi", Never), (29, "tm", Never),
        (30, "ia64", Never), (31, "pbe", Never),
    ]),
    // The local APIC's timer runs in every C-state: KVM's does.
    word(0x6, 0, Eax, &[
        (2, "arat", Always),
        // Thermal sensors, turbo and frequency control.
        (0, "dtherm", Never), (1, "ida", Never), (4, "pln", Never), (5, "ecmd", Never),
        (6, "pts", Never), (7, "hwp", Never), (8, "hwp_notify", Never), (9, "hwp_act_window", Never),
        (10, "hwp_epp", Never), (11, "hwp_pkg_req", Never), (13, "hdc", Never), (14, "turbo3", Never),
        (15, "hwp_capabilities", Never), (16, "hwp_peci", Never), (17, "hwp_flexible", Never),
        (18, "hwp_fast", Never), (19, "hfi", Never), (20, "hwp_ignore_idle", Never),
        (22, "hwp_ctl", Never), (23, "thread_director", Never),
    ]),
    word(0x7, 0, Ebx, &[
        (0, "fsgsbase", V3), (1, "tsc_adjust", V2), (3, "bmi1", V3), (5, "avx2", V3),
        (6, "fdp_excptn_only", Host), (7, "smep", V3), (8, "bmi2", V3), (9, "erms", V3Intel),
        (10, "invpcid", V3Intel), (13, "zero_fcs_fds", Host), (16, "avx512f", Host),
        (17, "avx512dq", Host), (18, "rdseed", Host), (19, "adx", Host), (20, "smap", Host),
        (21, "avx512ifma", Host), (23, "clflushopt", Host), (24, "clwb", Host),
        (28, "avx512cd", Host), (29, "sha_ni", Host), (30, "avx512bw", Host), (31, "avx512vl", Host),
        // TSX is a side channel that most processors have turned off; MPX and Knights Landing are gone;
        // SGX, resource control and tracing are the host's.
        (2, "sgx", Never), (4, "hle", Never), (11, "rtm", Never), (12, "cqm", Never),
        (14, "mpx", Never), (15, "rdt_a", Never), (25, "intel_pt", Never), (26, "avx512pf", Never),
        (27, "avx512er", Never),
    ]),
    word(0x7, 0, Ecx, &[
        (1, "avx512vbmi", Host), (2, "umip", Host), (3, "pku", Host), (4, "ospke", Dynamic),
        (6, "avx512_vbmi2", Host), (8, "gfni", Host), (9, "vaes", Host), (10, "vpclmulqdq", Host),
        (11, "avx512_vnni", Host), (12, "avx512_bitalg", Host), (14, "avx512_vpopcntdq", Host),
        (22, "rdpid", Host), (25, "cldemote", Host), (27, "movdiri", Host), (28, "movdir64b", Host),
        // WAITPKG waits in C-states of the host. The shadow stack pointer is in no KVM_GET_* structure.
        // Five levels of page tables make walks longer and address nothing that a guest has.
        (0, "prefetchwt1", Never), (5, "waitpkg", Never), (7, "shstk", Never), (13, "tme", Never),
        (16, "la57", Never), (23, "key_locker", Never), (24, "bus_lock_detect", Never),
        (29, "enqcmd", Never), (30, "sgx_lc", Never), (31, "pks", Never),
    ]),
    word(0x7, 0, Edx, &[
        (4, "fsrm", Host), (8, "avx512_vp2intersect", Host), (10, "md_clear", Host),
        (14, "serialize", Host), (23, "avx512_fp16", Host), (26, "spec_ctrl", Host),
        (27, "intel_stibp", Host), (28, "flush_l1d", Host), (29, "arch_capabilities", Intel),
        (31, "spec_ctrl_ssbd", Host),
        // AMX has XSAVE state that a process must ask the host's kernel for (`arch_prctl`), IBT is CET, and
        // user interrupts and the last-branch records have state that KVM does not save.
        (2, "avx512_4vnniw", Never), (3, "avx512_4fmaps", Never), (5, "uintr", Never),
        (9, "srbds_ctrl", Never), (11, "rtm_always_abort", Never), (13, "tsx_force_abort", Never),
        (15, "hybrid", Never), (16, "tsxldtrk", Never), (18, "pconfig", Never),
        (19, "arch_lbr", Never), (20, "ibt", Never), (22, "amx_bf16", Never), (24, "amx_tile", Never),
        (25, "amx_int8", Never), (30, "core_capabilities", Never),
    ]),
    word(0x7, 1, Eax, &[
        (0, "sha512", Host), (1, "sm3", Host), (2, "sm4", Host), (4, "avx_vnni", Host),
        (5, "avx512_bf16", Host), (7, "cmpccxadd", Host), (10, "fzrm", Host), (11, "fsrs", Host),
        (12, "fsrc", Host), (23, "avx_ifma", Host),
        (3, "rao_int", Never), (6, "lass", Never), (8, "arch_perfmon_ext", Never), (17, "fred", Never),
        (18, "lkgs", Never), (19, "wrmsrns", Never), (21, "amx_fp16", Never), (22, "hreset", Never),
        (26, "lam", Never), (27, "msrlist", Never),
    ]),
    word(0x7, 1, Edx, &[
        (4, "avx_vnni_int8", Host), (5, "avx_ne_convert", Host), (10, "avx_vnni_int16", Host),
        (14, "prefetchiti", Host),
        (8, "amx_complex", Never), (17, "uiret_uif", Never), (18, "cet_sss", Never),
        (19, "avx10", Never), (21, "apx_f", Never),
    ]),
    // Bits of IA32_SPEC_CTRL.
    word(0x7, 2, Edx, &[
        (0, "intel_psfd", Host), (1, "ipred_ctrl", Host), (2, "rrsba_ctrl", Host), (3, "ddpd_u", Host),
        (4, "bhi_ctrl", Host), (5, "mcdt_no", Host),
    ]),
    word(0xd, 1, Eax, &[
        (0, "xsaveopt", V3), (1, "xsavec", Host), (2, "xgetbv1", Host), (3, "xsaves", Host),
        // AMX.
        (4, "xfd", Never),
    ]),
    word(0x4000_0001, 0, Eax, &[
        (0, "kvm_clocksource", V2), (1, "kvm_nop_io_delay", V2), (3, "kvm_clocksource2", V2),
        (5, "kvm_steal_time", V2), (6, "kvm_pv_eoi", V2), (7, "kvm_pv_unhalt", V2),
        (9, "kvm_pv_tlb_flush", V2), (11, "kvm_pv_send_ipi", V2), (12, "kvm_poll_control", V2),
        (13, "kvm_pv_sched_yield", V2), (24, "kvm_clocksource_stable", V2),
        // Asynchronous page faults put a task to sleep until an interrupt says that the host has the page. A
        // restore can lose the interrupt, and the task then sleeps for ever (Firecracker's issue 3020). The
        // faults of a fork are short: its memory is in the host's page cache.
        (2, "kvm_mmu_op", Never), (4, "kvm_async_pf", Never), (10, "kvm_async_pf_vmexit", Never),
        (14, "kvm_async_pf_int", Never), (15, "kvm_msi_ext_dest_id", Never),
        (16, "kvm_hc_map_gpa_range", Never), (17, "kvm_migration_control", Never),
    ]),
    word(0x8000_0001, 0, Ecx, &[
        (0, "lahf_lm", V2), (1, "cmp_legacy", Dynamic), (4, "cr8_legacy", Amd), (5, "abm", V3),
        (6, "sse4a", Amd), (7, "misalignsse", Amd), (8, "3dnowprefetch", Host), (11, "xop", Amd),
        (16, "fma4", Amd), (21, "tbm", Amd), (22, "topoext", Amd),
        // Nested guests, sampling and counters, MWAITX, and MSRs that KVM does not save.
        (2, "svm", Never), (3, "extapic", Never), (9, "osvw", Never), (10, "ibs", Never),
        (12, "skinit", Never), (13, "wdt", Never), (15, "lwp", Never), (17, "tce", Never),
        (19, "nodeid_msr", Never), (23, "perfctr_core", Never), (24, "perfctr_nb", Never),
        (26, "bpext", Never), (27, "ptsc", Never), (28, "perfctr_llc", Never), (29, "mwaitx", Never),
        (30, "addr_mask_ext", Never),
    ]),
    // On AMD the bits below 18, 23 and 24 repeat leaf 1, EDX.
    word(0x8000_0001, 0, Edx, &[
        (11, "syscall", V2), (20, "nx", V2), (26, "pdpe1gb", V3), (27, "rdtscp", V2), (29, "lm", V2),
        (0, "fpu_amd", Amd), (1, "vme_amd", Amd), (2, "de_amd", Amd), (3, "pse_amd", Amd),
        (4, "tsc_amd", Amd), (5, "msr_amd", Amd), (6, "pae_amd", Amd), (7, "mce_amd", Amd),
        (8, "cx8_amd", Amd), (9, "apic_amd", Amd), (12, "mtrr_amd", Amd), (13, "pge_amd", Amd),
        (14, "mca_amd", Amd), (15, "cmov_amd", Amd), (16, "pat_amd", Amd), (17, "pse36_amd", Amd),
        (22, "mmxext", Amd), (23, "mmx_amd", Amd), (24, "fxsr_amd", Amd), (25, "fxsr_opt", Amd),
        (30, "3dnowext", Never), (31, "3dnow", Never),
    ]),
    // A guest that may move to a processor of another frequency must not use the TSC as its clock: kvmclock
    // knows the frequency of the host that it is on.
    word(0x8000_0007, 0, Edx, &[
        (8, "invtsc", Host),
        (0, "ts", Never), (3, "ttp", Never), (4, "tm_amd", Never), (7, "hwpstate", Never),
        (9, "cpb", Never), (10, "aperfmperf", Never), (13, "proc_power", Never), (14, "rapl", Never),
    ]),
    word(0x8000_0008, 0, Ebx, &[
        (0, "clzero", Amd), (2, "xsaveerptr", Amd), (9, "wbnoinvd", Host), (12, "amd_ibpb", Host),
        (14, "amd_ibrs", Host), (15, "amd_stibp", Host), (17, "amd_stibp_always_on", Host),
        (24, "amd_ssbd", Host), (25, "virt_ssbd", Host), (26, "amd_ssb_no", Host),
        (28, "amd_psfd", Host), (29, "btc_no", Host), (30, "amd_ibpb_ret", Host),
        (1, "irperf", Never), (3, "invlpgb", Never), (4, "rdpru", Never), (6, "mba", Never),
        (8, "mcommit", Never), (13, "int_wbinvd", Never), (18, "amd_ibrs_preferred", Never),
        (19, "amd_ibrs_same_mode", Never), (20, "no_efer_lmsle", Never), (21, "invlpgb_nested", Never),
        (23, "amd_ppin", Never), (27, "cppc", Never), (31, "brs", Never),
    ]),
    word(0x8000_0021, 0, Eax, &[
        (0, "no_nested_data_bp", Amd), (2, "lfence_rdtsc", Amd), (5, "verw_clear", Amd),
        (6, "null_sel_clr_base", Amd), (8, "autoibrs", Amd), (10, "amd_fsrs", Amd),
        (11, "amd_fsrc", Amd), (20, "prefetchi", Amd), (27, "sbpb", Amd), (28, "ibpb_brtype", Amd),
        (29, "srso_no", Amd), (30, "srso_user_kernel_no", Amd),
        (1, "fsgs_non_serializing", Never), (3, "smm_page_cfg_lock", Never), (7, "upper_address_ignore", Never),
        (9, "no_smm_ctl_msr", Never), (13, "prefetch_ctl_msr", Never), (17, "cpuid_user_dis", Never),
        (18, "epsf", Never), (22, "wl_feature", Never), (24, "erapts", Never),
    ]),
    word(0x8000_0021, 0, Ecx, &[(1, "tsa_sq_no", Amd), (2, "tsa_l1_no", Amd)]),
];

//! The CPU models of recorded processors: `tests/cpuid/*.txt`. `cargo test --test cpuid_tables -- --nocapture table`
//! prints the output of `cloude-vmm cpuid` for each.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::Path;

use cloude_vmm::arch::x86_64::cpuid::leaf::{Register, find, register};
use cloude_vmm::arch::x86_64::cpuid::{
    CpuBaseline, CpuModel, CpuModelError, Leaf, differences, recorded, report,
};

const INTEL: [&str; 7] = [
    "ivy-bridge",
    "haswell-ep",
    "skylake-sp",
    "sapphire-rapids",
    "granite-rapids",
    "alder-lake-p",
    "alder-lake-e",
];
const AMD: [&str; 5] = ["zen1", "zen2", "zen3", "zen4", "zen5"];

fn all() -> impl Iterator<Item = &'static str> {
    INTEL.into_iter().chain(AMD)
}

/// Name and KVM-supported leaves of a recorded processor.
fn supported(name: &str) -> (String, Vec<Leaf>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cpuid");
    let text = std::fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
    let table = recorded::parse(&text).unwrap();
    (table.name, recorded::with_kvm_features(&table.leaves))
}

fn model(name: &str, baseline: CpuBaseline) -> CpuModel {
    CpuModel::new(&supported(name).1, baseline).unwrap()
}

/// The models of all processors, with each baseline that they support.
fn models() -> impl Iterator<Item = (String, CpuModel)> {
    all().flat_map(|name| {
        let (_, supported) = supported(name);
        CpuBaseline::ALL.into_iter().filter_map(move |baseline| {
            let model = CpuModel::new(&supported, baseline).ok()?;
            Some((format!("{name} {baseline}"), model))
        })
    })
}

/// The leaves that a guest sees on the first of two vCPUs.
fn visible(model: &CpuModel) -> Vec<Leaf> {
    cloude_vmm::arch::x86_64::cpuid::leaf::from_kvm(&model.for_vcpu(0, 2).unwrap())
}

fn has(leaves: &[Leaf], function: u32, index: u32, of: Register, bit: u8) -> bool {
    register(leaves, function, index, of) & 1 << bit != 0
}

/// Asserts that a bit is set on at least one recorded processor and in no model.
fn never_visible(function: u32, index: u32, of: Register, bits: &[u8]) {
    for bit in bits {
        let recorded = all().any(|name| has(&supported(name).1, function, index, of, *bit));
        assert!(recorded, "no processor has bit {bit} of leaf {function:#x}");
        for (name, model) in models() {
            let visible = has(&visible(&model), function, index, of, *bit);
            assert!(!visible, "{name}: bit {bit} of leaf {function:#x}.{index}");
        }
    }
}

fn no_leaf(function: u32) {
    for (name, model) in models() {
        let leaves = visible(&model);
        let answers = leaves.iter().find(|leaf| leaf.function == function);
        assert_eq!(answers, None, "{name}");
        let (limit, range) = match function {
            0x8000_0000.. => (0x8000_0000, "extended"),
            _ => (0, "basic"),
        };
        let last = register(&leaves, limit, 0, Register::Eax);
        assert!(
            function > last || find(&leaves, function, 0).is_none(),
            "{name} {range}"
        );
    }
}

#[test]
fn every_processor_has_a_report() {
    for name in all() {
        let (name, supported) = supported(name);
        let text = report(&name, &supported);
        println!("{text}");
        assert!(text.contains("  host       key "), "{text}");
        assert!(text.contains("  x86-64-v2  key "), "{text}");
    }
}

#[test]
fn p_and_e_cores_of_a_hybrid_processor_are_equal() {
    for baseline in CpuBaseline::ALL {
        let [p, e] = ["alder-lake-p", "alder-lake-e"].map(|name| model(name, baseline));
        assert_eq!(differences(&p.key_leaves(), &e.key_leaves()), None);
        assert_eq!(p.key_digest(), e.key_digest());
        assert_eq!(visible(&p), visible(&e), "{baseline}");
    }
}

#[test]
fn a_named_baseline_is_equal_within_a_vendor() {
    for (baseline, names) in [
        (CpuBaseline::V2, &INTEL[..]),
        (CpuBaseline::V3, &INTEL[1..]),
        (CpuBaseline::V2, &AMD[..]),
        (CpuBaseline::V3, &AMD[..]),
    ] {
        let first = model(names[0], baseline);
        for name in names {
            let other = model(name, baseline);
            assert_eq!(visible(&first), visible(&other), "{name} {baseline}");
            assert_eq!(first.key_digest(), other.key_digest(), "{name} {baseline}");
        }
    }
}

#[test]
fn vendors_differ_in_a_named_baseline() {
    let [intel, amd] = ["skylake-sp", "zen2"].map(|name| model(name, CpuBaseline::V3));
    let (intel, _) = differences(&intel.key_leaves(), &amd.key_leaves()).unwrap();
    assert!(
        intel.starts_with("with pcid erms invpcid, leaf 0x0 EBX 0x756e6547"),
        "{intel}"
    );
}

#[test]
fn the_error_names_the_features_missing_for_a_baseline() {
    let error = CpuModel::new(&supported("ivy-bridge").1, CpuBaseline::V3).unwrap_err();
    let expected = "this host's processor or KVM lacks fma, movbe, bmi1, avx2, bmi2, invpcid, xsaveopt, abm, pdpe1gb of the CPU baseline x86-64-v3; use the baseline `host`, or a lower one";
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, CpuModelError::Missing { .. }));
}

#[test]
fn differences_between_processors_are_feature_names() {
    let [spr, skx] = ["sapphire-rapids", "skylake-sp"].map(|name| model(name, CpuBaseline::Host));
    let (saved, here) = differences(&spr.key_leaves(), &skx.key_leaves()).unwrap();
    assert!(
        saved.starts_with("with avx512ifma sha_ni avx512vbmi "),
        "{saved}"
    );
    assert!(
        here.starts_with("without avx512ifma sha_ni avx512vbmi "),
        "{here}"
    );
    assert!(saved.contains("leaf 0x1 EAX 0x806f8"), "{saved}");
    assert!(here.contains("leaf 0x1 EAX 0x50654"), "{here}");
}

#[test]
fn amx_is_never_visible() {
    never_visible(7, 0, Register::Edx, &[22, 24, 25]);
    never_visible(7, 1, Register::Eax, &[21]);
    never_visible(0xd, 0, Register::Eax, &[17, 18]);
    never_visible(0xd, 1, Register::Eax, &[4]);
    no_leaf(0x1d);
    no_leaf(0x1e);
    for (name, model) in models() {
        let tiles = [17, 18].map(|component| find(model.leaves(), 0xd, component));
        assert_eq!(tiles, [None, None], "{name}");
    }
}

#[test]
fn cet_is_never_visible() {
    never_visible(7, 0, Register::Ecx, &[7]);
    never_visible(7, 0, Register::Edx, &[20]);
    for (name, model) in models() {
        assert_eq!(
            register(model.leaves(), 0xd, 1, Register::Ecx),
            0,
            "{name}: IA32_XSS"
        );
    }
}

#[test]
fn performance_counters_are_never_visible() {
    never_visible(1, 0, Register::Ecx, &[15]);
    never_visible(0x8000_0001, 0, Register::Ecx, &[10, 23, 24, 28]);
    for leaf in [0xa, 0x14, 0x1c, 0x23, 0x8000_001b, 0x8000_0022] {
        no_leaf(leaf);
    }
}

#[test]
fn nested_virtualization_and_mwait_are_never_visible() {
    // VMX and MWAIT, SVM and MWAITX, WAITPKG.
    never_visible(1, 0, Register::Ecx, &[3, 5]);
    never_visible(0x8000_0001, 0, Register::Ecx, &[2, 29]);
    never_visible(7, 0, Register::Ecx, &[5]);
    no_leaf(5);
    no_leaf(0x8000_000a);
}

#[test]
fn host_topology_and_frequency_are_never_visible() {
    for leaf in [
        0xf,
        0x10,
        0x12,
        0x15,
        0x16,
        0x18,
        0x1a,
        0x1f,
        0x8000_0019,
        0x8000_001f,
        0x8000_0026,
    ] {
        no_leaf(leaf);
    }
}

#[test]
fn asynchronous_page_faults_are_never_visible() {
    never_visible(0x4000_0001, 0, Register::Eax, &[4, 10, 14]);
}

#[test]
fn xsave_components_match_the_visible_features() {
    for (name, model) in models() {
        let leaves = visible(&model);
        if !has(&leaves, 1, 0, Register::Ecx, 26) {
            assert_eq!(find(&leaves, 0xd, 0), None, "{name}");
            assert_eq!(register(&leaves, 0, 0, Register::Eax), 0xb, "{name}");
            continue;
        }
        let [mask, current, size, high] = find(&leaves, 0xd, 0).unwrap().registers;
        let bit = |function, of, bit| u32::from(has(&leaves, function, 0, of, bit));
        let expected = 0b11
            | (bit(1, Register::Ecx, 28) << 2)
            | (bit(7, Register::Ebx, 16) * 0b1110_0000)
            | (bit(7, Register::Ecx, 3) << 9);
        assert_eq!((mask, high), (expected, 0), "{name}");
        let mut end = 576;
        for component in (2..32).filter(|component| mask & 1 << component != 0) {
            let [bytes, offset, ..] = find(&leaves, 0xd, component).unwrap().registers;
            assert!(bytes > 0 && offset >= 576, "{name}: component {component}");
            end = end.max(offset + bytes);
        }
        assert_eq!((current, size), (576, end), "{name}");
        let subleaves = leaves.iter().filter(|leaf| leaf.function == 0xd).count();
        // Subleaf 0, subleaf 1 if the processor has one, and the components beyond x87 and SSE.
        let with_features = usize::from(find(&leaves, 0xd, 1).is_some());
        assert_eq!(
            subleaves,
            1 + with_features + (mask >> 2).count_ones() as usize,
            "{name}"
        );
    }
}

#[test]
fn a_named_baseline_reveals_nothing_of_the_processor() {
    for name in INTEL.into_iter().skip(1).chain(AMD) {
        let model = model(name, CpuBaseline::V3);
        let leaves = visible(&model);
        assert_eq!(
            recorded::brand(&leaves),
            "Cloude x86-64-v3 processor",
            "{name}"
        );
        let sizes = register(&leaves, 0x8000_0008, 0, Register::Eax);
        assert_eq!(sizes, 48 << 8 | 39, "{name}");
        assert!(!model.has_invariant_tsc(), "{name}");
        assert!(!model.has_arch_capabilities(), "{name}");
    }
}

#[test]
fn the_baseline_host_keeps_usable_features() {
    let leaves = visible(&model("sapphire-rapids", CpuBaseline::Host));
    // AVX-512F, AVX512-FP16, VAES and SMAP.
    assert!(has(&leaves, 7, 0, Register::Ebx, 16));
    assert!(has(&leaves, 7, 0, Register::Edx, 23));
    assert!(has(&leaves, 7, 0, Register::Ecx, 9));
    assert!(has(&leaves, 7, 0, Register::Ebx, 20));
    assert_eq!(recorded::brand(&leaves), "Intel(R) Xeon(R) w9-3475X");
    assert_eq!(register(&leaves, 1, 0, Register::Eax), 0x806f8);
}

#[test]
fn only_intel_guests_read_arch_capabilities() {
    let host = |name| model(name, CpuBaseline::Host).has_arch_capabilities();
    assert!(host("sapphire-rapids"));
    assert!(!AMD.into_iter().any(host));
}

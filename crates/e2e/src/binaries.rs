//! Paths of the binaries, kernels, images and language folders under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cloude_protocol::language::Language;
use cloude_protocol::languages;

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// A binary of this workspace: in `CLOUDE_BIN_DIR`, else in the target folder of the running test.
pub fn binary(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(
        path.exists(),
        "{} does not exist: run `make build`, or set CLOUDE_BIN_DIR to the folder of the binaries",
        path.display()
    );
    path
}

/// The static agent binary: `CLOUDE_AGENT_BINARY`, else the output of cargo's profile `agent`, else beside the
/// other binaries.
pub fn agent() -> PathBuf {
    if let Some(path) = std::env::var_os("CLOUDE_AGENT_BINARY") {
        return path.into();
    }
    let target = folder().parent().unwrap().to_owned();
    let candidates = [
        target.join("x86_64-unknown-linux-gnu/agent/cloude-agent"),
        folder().join("cloude-agent"),
    ];
    let found = candidates.iter().find(|path| path.exists());
    found
        .unwrap_or_else(|| {
            panic!("none of {candidates:?} exists: run `make build`, or set CLOUDE_AGENT_BINARY")
        })
        .clone()
}

fn folder() -> PathBuf {
    if let Some(path) = std::env::var_os("CLOUDE_BIN_DIR") {
        return path.into();
    }
    // The running program is target/PROFILE/deps/TEST or target/PROFILE/BINARY.
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().unwrap();
    if folder.ends_with("deps") {
        folder.parent().unwrap().to_owned()
    } else {
        folder.to_owned()
    }
}

/// The cache folder, by the same rules as the programs (docs/architecture.md).
pub fn cache() -> PathBuf {
    if let Some(path) = std::env::var_os("CLOUDE_CACHE_DIR") {
        return path.into();
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    base.unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache")
    })
    .join("cloude")
}

/// The kernel to test with: `CLOUDE_KERNEL`, else the tuned kernel if it exists, else the stock kernel.
pub fn kernel() -> PathBuf {
    if let Some(path) = std::env::var_os("CLOUDE_KERNEL") {
        return path.into();
    }
    match named_kernel("tuned") {
        Some(path) => path,
        None => named_kernel("stock").unwrap_or_else(|| {
            panic!(
                "no kernel in {}: run kernel/fetch",
                cache().join("kernels").display()
            )
        }),
    }
}

/// The folder of the kernel `tuned` or `stock`; `None` if it was not built or fetched.
pub fn named_kernel(name: &str) -> Option<PathBuf> {
    let path = cache().join("kernels").join(name);
    path.join("vmlinux").exists().then_some(path)
}

/// The folder of the images: `VM_INITRAMFS_DIR`, else `images` in the cache.
pub fn images() -> PathBuf {
    std::env::var_os("VM_INITRAMFS_DIR").map_or_else(|| cache().join("images"), PathBuf::from)
}

/// The image of a language, `NAME.cpio`.
pub fn image(language: &str) -> PathBuf {
    let path = images().join(format!("{language}.cpio"));
    assert!(
        path.exists(),
        "{} does not exist: run `cloude-initramfs build --language {language}`",
        path.display()
    );
    path
}

/// The folder `languages` of the repository.
pub fn languages() -> PathBuf {
    repository().join("languages")
}

/// The names of all languages.
pub fn language_names() -> Vec<String> {
    languages::names(&languages()).unwrap_or_else(|error| panic!("{error}"))
}

/// Loads `languages/NAME`.
pub fn language(name: &str) -> Language {
    languages::load(&languages(), name).unwrap_or_else(|error| panic!("{error}"))
}

/// True if VMs of the language have more than 1 GiB. Tests run one of them at a time, for small hosts.
pub fn is_large(language: &Language) -> bool {
    language.machine.memory_mib.is_some_and(|mib| mib > 1024)
}

/// Guest memory in MiB up to which `make test` tests a language that has no programs in the corpus.
const SMALL_MIB: u64 = 256;

/// False for languages that only `make test-full` tests: those without a folder in the corpus, unless their VM is
/// small. `is_tested` of kernel/lib.sh has the same rule.
fn is_tested(language: &Language) -> bool {
    let corpus = repository().join("crates/e2e/corpus").join(&language.name);
    let small = |mib| mib <= SMALL_MIB;
    corpus.is_dir() || language.machine.memory_mib.is_some_and(small)
}

/// The prefix of a language's test names, `[large::][more::](compiled|interpreted)::NAME`. tools/test and
/// .config/nextest.toml select tests by it.
pub fn trial(language: &Language) -> String {
    let large = if is_large(language) { "large::" } else { "" };
    let more = if is_tested(language) { "" } else { "more::" };
    let kind = if language.compile.is_some() {
        "compiled"
    } else {
        "interpreted"
    };
    format!("{large}{more}{kind}::{}", language.name)
}

/// Panics if KVM cannot boot an ordinary kernel. A skipped test would look like a passed one.
pub fn require_kvm() {
    static KIND: OnceLock<String> = OnceLock::new();
    let kind = KIND.get_or_init(|| {
        let probe = repository().join("tools/kvm-probe");
        let output = Command::new(&probe)
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", probe.display()));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
    assert!(
        kind == "hardware",
        "this test boots a VM, and this machine's KVM is `{kind}`: run it with `make test`, or inside tools/with-kvm"
    );
}

//! Where the things under test lie.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cloude_protocol::language::Language;
use cloude_protocol::languages;

/// The checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// A binary of ours: in `CLOUDE_BIN_DIR`, else in the folder that cargo built this test into.
pub fn binary(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(
        path.exists(),
        "{} is not there: run `make build`, or name another folder with CLOUDE_BIN_DIR",
        path.display()
    );
    path
}

/// The agent, a static binary: `CLOUDE_AGENT_BINARY`, else beside the other binaries, else where
/// the profile `agent` puts it.
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
    found.unwrap_or_else(|| panic!("none of {candidates:?} is there: run `make build`, or name it with CLOUDE_AGENT_BINARY")).clone()
}

fn folder() -> PathBuf {
    if let Some(path) = std::env::var_os("CLOUDE_BIN_DIR") {
        return path.into();
    }
    // target/PROFILE/deps/TEST or target/PROFILE/BINARY.
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().unwrap();
    if folder.ends_with("deps") {
        folder.parent().unwrap().to_owned()
    } else {
        folder.to_owned()
    }
}

/// The cache of docs/architecture.md.
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

/// The kernel to test with: `CLOUDE_KERNEL`, else the tuned one if it is there, else the stock one.
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

/// `tuned` or `stock`, if it is there.
pub fn named_kernel(name: &str) -> Option<PathBuf> {
    let path = cache().join("kernels").join(name);
    path.join("vmlinux").exists().then_some(path)
}

/// Where images are: `VM_INITRAMFS_DIR`, else the cache's.
pub fn images() -> PathBuf {
    std::env::var_os("VM_INITRAMFS_DIR").map_or_else(|| cache().join("images"), PathBuf::from)
}

/// A language's image.
pub fn image(language: &str) -> PathBuf {
    let path = images().join(format!("{language}.cpio"));
    assert!(
        path.exists(),
        "{} is not there: run `cloude-initramfs build --language {language}`",
        path.display()
    );
    path
}

/// The folder of languages.
pub fn languages() -> PathBuf {
    repository().join("languages")
}

/// The names of all languages.
pub fn language_names() -> Vec<String> {
    languages::names(&languages()).unwrap_or_else(|error| panic!("{error}"))
}

/// A language by its name.
pub fn language(name: &str) -> Language {
    languages::load(&languages(), name).unwrap_or_else(|error| panic!("{error}"))
}

/// Has the language's VM so much memory that a small host runs one at a time?
pub fn is_large(language: &Language) -> bool {
    language.machine.memory_mib.is_some_and(|mib| mib > 1024)
}

/// The first part of the name of a test of a language, by which tools/test and .config/nextest.toml choose:
/// `[large::](compiled|interpreted)::NAME`.
pub fn trial(language: &Language) -> String {
    let large = if is_large(language) { "large::" } else { "" };
    let kind = if language.compile.is_some() {
        "compiled"
    } else {
        "interpreted"
    };
    format!("{large}{kind}::{}", language.name)
}

/// Fails where KVM boots no kernel, rather than to skip what it should show.
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

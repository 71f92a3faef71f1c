//! Default paths, the same for `clouded`, `cloude` and `cloude-initramfs`. docs/architecture.md has them in a table.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::api::InstalledKernel;

/// The value of an environment variable; none if it is empty.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A path in a variable; relative ones are ignored, as the XDG specification demands.
fn absolute(name: &str) -> Option<PathBuf> {
    variable(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

/// Directory of kernels, blobs, images and templates: `CLOUDE_CACHE_DIR`, else `$XDG_CACHE_HOME/cloude`, else
/// `~/.cache/cloude`, else `/var/cache/cloude`.
pub fn cache_dir() -> PathBuf {
    variable("CLOUDE_CACHE_DIR").map_or_else(
        || {
            absolute("XDG_CACHE_HOME")
                .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
                .unwrap_or_else(|| "/var/cache".into())
                .join("cloude")
        },
        PathBuf::from,
    )
}

/// Directory of the job store and its lock: `/var/lib/cloude` for root, else `$XDG_STATE_HOME/cloude`, else
/// `~/.local/state/cloude`.
pub fn state_dir(root: bool) -> PathBuf {
    let home = || absolute("HOME").map(|home| home.join(".local/state"));
    let user = || absolute("XDG_STATE_HOME").or_else(home);
    let parent = if root { None } else { user() };
    parent.unwrap_or_else(|| "/var/lib".into()).join("cloude")
}

/// Directory of initramfs images: `images` in the cache.
pub fn images() -> PathBuf {
    cache_dir().join("images")
}

/// The tuned kernel if it is built, else the stock kernel.
pub fn kernel() -> PathBuf {
    let kernels = cache_dir().join("kernels");
    let tuned = kernels.join("tuned");
    if tuned.join("vmlinux").exists() {
        tuned
    } else {
        kernels.join("stock")
    }
}

/// The guest kernel at `path`: a directory with `vmlinux`, or a kernel file.
pub fn installed_kernel(path: &Path) -> InstalledKernel {
    let release = std::fs::read_to_string(path.join("release"));
    InstalledKernel {
        path: path.display().to_string(),
        present: path.is_file() || path.join("vmlinux").is_file(),
        modules: path.is_dir(),
        release: release.ok().map(|text| text.trim().to_owned()),
    }
}

fn program_dir() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|program| program.parent().map(Path::to_owned))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// A file in the directory of the running program. A program in the `target` directory of a checkout, such as an
/// example, also finds the files of `target/cloude/bin`, where `make build` puts them.
pub fn sibling(name: &str) -> PathBuf {
    sibling_of(&program_dir(), name)
}

fn sibling_of(dir: &Path, name: &str) -> PathBuf {
    let first = dir.join(name);
    if first.exists() {
        return first;
    }
    let target = dir.ancestors().find(|dir| dir.ends_with("target"));
    let built = target.map(|target| target.join("cloude/bin").join(name));
    built.filter(|built| built.exists()).unwrap_or(first)
}

/// Directory of the languages: `languages` next to the program's directory (`PREFIX/languages` for `PREFIX/bin`) or in
/// the checkout that the program was built in; else, but not for root, in the working directory or above it. If none
/// exists, the first of these.
pub fn languages(root: bool) -> PathBuf {
    let here = std::env::current_dir().ok().filter(|_| !root);
    languages_from(&program_dir(), here.as_deref())
}

fn languages_from(program: &Path, here: Option<&Path>) -> PathBuf {
    // target/debug/deps is three levels below the checkout.
    let beside = program.ancestors().skip(1).take(3);
    let above = here.into_iter().flat_map(Path::ancestors);
    let mut candidates = beside.chain(above).map(|dir| dir.join("languages"));
    let first = candidates.next().unwrap_or_else(|| "languages".into());
    if holds_languages(&first) {
        return first;
    }
    candidates.find(|dir| holds_languages(dir)).unwrap_or(first)
}

fn holds_languages(dir: &Path) -> bool {
    dir.read_dir().is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.path().join(crate::languages::FILE_NAME).is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(dir: &Path) -> PathBuf {
        let languages = dir.join("languages");
        let language = languages.join("python");
        std::fs::create_dir_all(&language).unwrap();
        std::fs::write(language.join("language.toml"), "").unwrap();
        languages
    }

    #[test]
    fn languages_of_the_program_precede_the_working_directorys() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("here");
        let installed = put(&dir.path().join("prefix"));
        put(&here);
        let program = dir.path().join("prefix/bin");
        assert_eq!(languages_from(&program, Some(&here)), installed);
    }

    #[test]
    fn root_searches_the_programs_directories_only() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("here");
        let found = put(&here);
        let program = dir.path().join("a/b/c/d/bin");
        assert_eq!(languages_from(&program, Some(&here.join("below"))), found);
        let first = dir.path().join("a/b/c/d/languages");
        assert_eq!(languages_from(&program, None), first);
    }

    #[test]
    fn an_example_finds_the_programs_of_its_checkout() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, examples) = (
            dir.path().join("target/cloude/bin"),
            dir.path().join("target/debug/examples"),
        );
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(&examples).unwrap();
        std::fs::write(bin.join("cloude-vmm"), "").unwrap();
        assert_eq!(sibling_of(&examples, "cloude-vmm"), bin.join("cloude-vmm"));
        assert_eq!(sibling_of(&examples, "other"), examples.join("other"));
        std::fs::write(examples.join("cloude-vmm"), "").unwrap();
        assert_eq!(
            sibling_of(&examples, "cloude-vmm"),
            examples.join("cloude-vmm")
        );
    }
}

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

/// The tuned kernel in the cache if it is built, else that of the package `cloude-kernel`, else the stock kernel.
pub fn kernel() -> PathBuf {
    kernel_from(&cache_dir().join("kernels"), &program_dir())
}

fn kernel_from(kernels: &Path, program: &Path) -> PathBuf {
    let installed = program
        .parent()
        .map(|prefix| prefix.join("lib/cloude/kernels/tuned"));
    std::iter::once(kernels.join("tuned"))
        .chain(installed)
        .find(|kernel| kernel.join("vmlinux").exists())
        .unwrap_or_else(|| kernels.join("stock"))
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

/// A file in the directory of the running program, else in `PREFIX/libexec/cloude` for a program in `PREFIX/bin` or
/// `PREFIX/sbin`. A program in the `target` directory of a checkout, such as an example, also finds the files of
/// `target/cloude/bin`, where `make build` puts them.
pub fn sibling(name: &str) -> PathBuf {
    sibling_of(&program_dir(), name)
}

fn sibling_of(dir: &Path, name: &str) -> PathBuf {
    let first = dir.join(name);
    if first.exists() {
        return first;
    }
    let installed = dir.parent().map(|prefix| prefix.join("libexec/cloude"));
    let target = dir.ancestors().find(|dir| dir.ends_with("target"));
    let built = target.map(|target| target.join("cloude/bin"));
    let mut others = installed.into_iter().chain(built);
    others
        .find_map(|dir| Some(dir.join(name)).filter(|path| path.exists()))
        .unwrap_or(first)
}

/// Directory of the languages: `PREFIX/share/cloude/languages` or `PREFIX/languages` for a program in `PREFIX/bin` or
/// `PREFIX/sbin`; else `languages` in the checkout that the program was built in; else, but not for root, in the working
/// directory or above it. If none exists, the first of these.
pub fn languages(root: bool) -> PathBuf {
    let here = std::env::current_dir().ok().filter(|_| !root);
    languages_from(&program_dir(), here.as_deref())
}

fn languages_from(program: &Path, here: Option<&Path>) -> PathBuf {
    let installed = program.parent().map(|prefix| prefix.join("share/cloude"));
    // target/debug/deps is three levels below the checkout.
    let beside = program.ancestors().skip(1).take(3).map(Path::to_owned);
    let above = here.into_iter().flat_map(Path::ancestors);
    let above = above.map(Path::to_owned);
    let mut candidates = installed
        .into_iter()
        .chain(beside)
        .chain(above)
        .map(|dir| dir.join("languages"));
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
        let first = dir.path().join("a/b/c/d/share/cloude/languages");
        assert_eq!(languages_from(&program, None), first);
    }

    #[test]
    fn an_installed_program_finds_its_files_below_the_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("usr");
        let libexec = prefix.join("libexec/cloude");
        std::fs::create_dir_all(&libexec).unwrap();
        std::fs::write(libexec.join("cloude-vmm"), "").unwrap();
        let languages = put(&prefix.join("share/cloude"));
        // A folder of this name beside `usr` is not Cloude's.
        put(dir.path());
        for bin in ["bin", "sbin"] {
            let program = prefix.join(bin);
            assert_eq!(
                sibling_of(&program, "cloude-vmm"),
                libexec.join("cloude-vmm")
            );
            assert_eq!(
                sibling_of(&program, "cloude-agent"),
                program.join("cloude-agent")
            );
            assert_eq!(languages_from(&program, None), languages);
        }
    }

    #[test]
    fn a_built_kernel_precedes_the_packages_and_that_the_stock() {
        let dir = tempfile::tempdir().unwrap();
        let (kernels, program) = (dir.path().join("kernels"), dir.path().join("usr/sbin"));
        let packaged = dir.path().join("usr/lib/cloude/kernels/tuned");
        let find = || kernel_from(&kernels, &program);
        assert_eq!(find(), kernels.join("stock"));
        for kernel in [packaged, kernels.join("tuned")] {
            std::fs::create_dir_all(&kernel).unwrap();
            std::fs::write(kernel.join("vmlinux"), "").unwrap();
            assert_eq!(find(), kernel);
        }
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

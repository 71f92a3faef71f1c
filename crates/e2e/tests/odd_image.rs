//! Images whose /tmp and /run are dangling links, or contain files.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use cloude_e2e::guest::{self, Role};
use cloude_e2e::oci::{Layer, write_layout};
use cloude_e2e::{binaries, cloude, host};
use cloude_protocol::boot;

/// The image's `/bin/sh`: prints whether each path is a directory, and the content of a file `own` in it.
const SHELL: &str = r#"
#include <stdio.h>
#include <sys/stat.h>

int main(void)
{
    const char *paths[] = {"/tmp", "/run", "/var/run"};
    for (int i = 0; i < 3; i++) {
        char name[64], text[64] = "nothing";
        struct stat st;
        snprintf(name, sizeof name, "%s/own", paths[i]);
        FILE *file = fopen(name, "r");
        if (file)
            fgets(text, sizeof text, file);
        printf("%s: %s, %s\n", paths[i], stat(paths[i], &st) ? "missing" : S_ISDIR(st.st_mode) ? "directory" : "other", text);
    }
}
"#;

const ROOT: (u64, u64) = (0, 0);

/// Boots an image that consists of this layer, and returns the output of [`SHELL`].
fn booted(layer: impl FnOnce(Layer) -> Layer) -> String {
    binaries::require_kvm();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("shell.c"), SHELL).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (source, program) = (text(&path("shell.c")), text(&path("shell")));
    host::run("gcc", &["-static", "-O2", "-o", &program, &source]);
    let program = std::fs::read(program).unwrap();
    let base = Layer::default()
        .directory("bin", 0o755, ROOT)
        .file("bin/sh", 0o755, ROOT, &program)
        .directory("var", 0o755, ROOT);
    write_layout(&path("layout"), "odd", vec![layer(base)]);
    let (reference, image) = (
        format!("oci:{}:odd", text(&path("layout"))),
        path("image.cpio"),
    );
    host::run(
        binaries::binary("cloude-initramfs").to_str().unwrap(),
        &["build", &reference, "--quiet", "--output", &text(&image)],
    );
    let kernel = binaries::kernel();
    let segment = guest::boot_segment(folder.path(), &kernel, Role::Shell);
    let output = guest::vmm(&kernel, &[&image, &segment])
        .args(["--memory", "256", "--console", "--init", boot::AGENT])
        .output()
        .unwrap();
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(
        console.contains("/var/run: "),
        "{}",
        cloude::describe(&output)
    );
    console
}

#[test]
fn dangling_tmp_and_run_links_become_directories() {
    let console = booted(|image| {
        image
            .symlink("tmp", "nowhere/at/all")
            .symlink("run", "var/run")
            .symlink("var/run", "../run")
    });

    for line in [
        "/tmp: directory, nothing",
        "/run: directory, nothing",
        "/var/run: directory, nothing",
    ] {
        assert!(console.contains(line), "{line:?} is not in {console}");
    }
}

#[test]
fn image_files_in_tmp_and_run_are_visible() {
    let console = booted(|image| {
        image
            .directory("tmp", 0o1777, ROOT)
            .file("tmp/own", 0o644, ROOT, b"of /tmp")
            .directory("run", 0o755, ROOT)
            .file("run/own", 0o644, ROOT, b"of /run")
            .symlink("var/run", "../run")
    });

    for line in [
        "/tmp: directory, of /tmp",
        "/run: directory, of /run",
        "/var/run: directory, of /run",
    ] {
        assert!(console.contains(line), "{line:?} is not in {console}");
    }
}

//! Images that attack the machine that builds them.

use std::path::Path;
use std::process::{Command, Output};

use cloude_e2e::oci::{Layer, write_layout};
use cloude_e2e::{binaries, cloude};
use tempfile::TempDir;

use crate::case::{Case, case};

const ROOT: (u64, u64) = (0, 0);

/// The build either refuses the image, or every file stays in it.
#[derive(Clone, Copy)]
enum Expected {
    Refused,
    Contained,
}

use Expected::{Contained, Refused};

/// A folder with `outside/secret`, which no image may read or change, beside the layout and the output.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("outside")).unwrap();
        std::fs::write(folder.path().join("outside/secret"), "of the host").unwrap();
        Host(folder)
    }

    fn outside(&self) -> String {
        self.0.path().join("outside").to_str().unwrap().to_owned()
    }

    fn build(&self, layers: Vec<Layer>) -> Output {
        write_layout(&self.0.path().join("layout"), "hostile", layers);
        self.build_layout()
    }

    fn build_layout(&self) -> Output {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let reference = format!("oci:{}:hostile", text(&self.0.path().join("layout")));
        Command::new(binaries::binary("cloude-initramfs"))
            .args(["build", &reference, "--quiet", "--output"])
            .arg(self.0.path().join("image.cpio"))
            .env("CLOUDE_CACHE_DIR", self.0.path().join("cache"))
            .output()
            .unwrap()
    }

    fn check(&self, output: &Output, expected: Expected) {
        assert!(
            matches!(output.status.code(), Some(0..=99)),
            "the builder died: {}",
            cloude::describe(output)
        );
        let refused = !output.status.success();
        match expected {
            Refused => assert!(refused, "it was built: {}", cloude::describe(output)),
            Contained => assert!(!refused, "it was refused: {}", cloude::describe(output)),
        }
        let outside: Vec<_> = std::fs::read_dir(self.outside()).unwrap().collect();
        assert_eq!(outside.len(), 1, "files were made outside: {outside:?}");
        let secret = std::fs::read_to_string(self.0.path().join("outside/secret")).unwrap();
        assert_eq!(secret, "of the host", "a file outside was changed");
        let image = std::fs::read(self.0.path().join("image.cpio")).unwrap_or_default();
        assert!(
            !image.windows(11).any(|bytes| bytes == b"of the host"),
            "the image holds a file of the host"
        );
        if refused {
            assert!(image.is_empty(), "a refused image was written");
        }
    }
}

/// A case whose layers may name the folder outside of the image, as an absolute path.
fn image(
    name: &str,
    naive: &str,
    expected: Expected,
    layers: impl Fn(&str) -> Vec<Layer> + Send + Sync + 'static,
) -> Case {
    case(&format!("image::{name}"), naive, move || {
        let host = Host::new();
        let output = host.build(layers(&host.outside()));
        host.check(&output, expected);
    })
}

/// Changes the layout of a plain image before it is built.
fn layout(
    name: &str,
    naive: &str,
    expected: Expected,
    change: impl Fn(&Path) + Send + Sync + 'static,
) -> Case {
    case(&format!("image::{name}"), naive, move || {
        let host = Host::new();
        let layout = host.0.path().join("layout");
        let plain = Layer::default().file("plain", 0o644, ROOT, b"plain");
        write_layout(&layout, "hostile", vec![plain]);
        change(&layout);
        let output = host.build_layout();
        host.check(&output, expected);
    })
}

pub fn cases() -> Vec<Case> {
    vec![
        // CVE-2026-46703 of another system: a layer makes a symbolic link, a later one writes through it.
        image(
            "symlink_then_file_of_a_later_layer",
            "a file of the image is written anywhere on the host",
            Contained,
            |outside| {
                vec![
                    Layer::default().symlink("way", outside),
                    Layer::default().file("way/planted", 0o644, ROOT, b"x"),
                ]
            },
        ),
        image(
            "symlink_replaced_file",
            "a file of the host is overwritten through a link of the image",
            Contained,
            |outside| {
                let secret = format!("{outside}/secret");
                vec![
                    Layer::default().symlink("link", &secret),
                    Layer::default().file("link", 0o644, ROOT, b"x"),
                ]
            },
        ),
        image(
            "dots_in_names",
            "`../` in a name writes above the unpacked image",
            Contained,
            |_| vec![Layer::default().file_with_raw_name("../../outside/planted", b"x")],
        ),
        image(
            "hard_link_to_the_host",
            "a hard link puts a file of the host into the image",
            Refused,
            |outside| vec![Layer::default().hardlink("stolen", &format!("{outside}/secret"))],
        ),
        image(
            "hard_link_through_a_symlink",
            "a hard link through a symbolic link reads the host",
            Refused,
            |outside| {
                vec![
                    Layer::default()
                        .symlink("way", outside)
                        .hardlink("stolen", "way/secret"),
                ]
            },
        ),
        image(
            "whiteout_through_a_symlink",
            "a whiteout deletes a file of the host",
            Contained,
            |outside| {
                vec![
                    Layer::default().symlink("way", outside),
                    Layer::default().whiteout("way", "secret"),
                ]
            },
        ),
        image(
            "opaque_whiteout_through_a_symlink",
            "an opaque whiteout empties a folder of the host",
            Contained,
            |outside| {
                vec![
                    Layer::default().symlink("way", outside),
                    Layer::default().opaque("way"),
                ]
            },
        ),
        image(
            "symlinks_in_a_circle",
            "the builder never ends",
            Refused,
            |_| {
                vec![
                    Layer::default().symlink("a", "b").symlink("b", "a"),
                    Layer::default().file("a/x", 0o644, ROOT, b"x"),
                ]
            },
        ),
        image(
            "cpio_trailer_as_a_name",
            "the kernel unpacks half of the image",
            Refused,
            |_| vec![Layer::default().file("TRAILER!!!", 0o644, ROOT, b"x")],
        ),
        image(
            "boot_configuration_of_its_own",
            "the image chooses the agent's token and network",
            Refused,
            |_| {
                vec![Layer::default().directory(".cloude", 0o755, ROOT).file(
                    ".cloude/boot.json",
                    0o644,
                    ROOT,
                    b"{}",
                )]
            },
        ),
        image(
            "a_hundred_thousand_links_to_one_file",
            "the image multiplies a file until memory is full",
            Contained,
            |_| {
                let mut layer = Layer::default().file("file", 0o644, ROOT, &[7; 65536]);
                for number in 0..100_000 {
                    layer = layer.hardlink(&format!("link-{number}"), "file");
                }
                vec![layer]
            },
        ),
        image(
            "decompression_bomb",
            "a layer of some megabytes fills disk and memory",
            Refused,
            |_| {
                let zeros = vec![0; 256 << 20];
                vec![Layer::default().file("zeros", 0o644, ROOT, &zeros)]
            },
        ),
        layout(
            "layer_with_another_digest",
            "a changed layer is used as if it were the pinned one",
            Refused,
            |layout| {
                let blobs = layout.join("blobs/sha256");
                for entry in std::fs::read_dir(blobs).unwrap().flatten() {
                    let mut bytes = std::fs::read(entry.path()).unwrap();
                    if !bytes.starts_with(b"{") {
                        *bytes.last_mut().unwrap() ^= 1;
                        std::fs::write(entry.path(), bytes).unwrap();
                    }
                }
            },
        ),
        layout(
            "manifest_with_a_path_as_digest",
            "a digest with `../` reads a file of the host as a layer",
            Refused,
            |layout| {
                let index = layout.join("index.json");
                let text = std::fs::read_to_string(&index).unwrap();
                let start = text.find("sha256:").unwrap() + 7;
                let path = "../../../outside/secret/".repeat(3);
                let changed = format!("{}{}{}", &text[..start], &path[..64], &text[start + 64..]);
                std::fs::write(index, changed).unwrap();
            },
        ),
        layout(
            "manifest_nested_ten_thousand_deep",
            "the parser's stack overflows",
            Contained,
            |layout| {
                let text = std::fs::read_to_string(layout.join("index.json")).unwrap();
                let deep = format!("{{\"x\":{}{},", "[".repeat(10_000), "]".repeat(10_000));
                std::fs::write(layout.join("index.json"), text.replacen('{', &deep, 1)).unwrap();
            },
        ),
        layout(
            "index_of_ten_megabytes",
            "a document without end is read into memory",
            Refused,
            |layout| {
                let spaces = " ".repeat(10 << 20);
                let text = std::fs::read_to_string(layout.join("index.json")).unwrap();
                std::fs::write(layout.join("index.json"), format!("{spaces}{text}")).unwrap();
            },
        ),
    ]
}

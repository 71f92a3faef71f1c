//! Builds an initramfs from an image in a registry, with empty caches.

use std::path::Path;
use std::process::Command;

use cloude_e2e::binaries;
use cloude_e2e::oci::{Layer, write_layout};
use cloude_e2e::registry::{PASSWORD, Registry, USER};

use crate::report::{Report, Row, Threshold};
use crate::sample::{Cost, Samples, cost};

/// Number of files in the small and the large image. Each image has three layers.
const SIZES: [(&str, usize); 2] = [("small", 3000), ("large", 15_000)];
/// Average size of a file; the images have about 60 MB and 300 MB.
const FILE_BYTES: u64 = 20_000;
/// Threshold of the peak memory for the large image, relative to the small image, which has a fifth of its size.
const GROWTH: f64 = 1.25;

pub fn measure(report: &mut Report) {
    let registry = Registry::start();
    let mut peaks = Vec::new();
    for (name, files) in SIZES {
        let layout = tempfile::tempdir().unwrap();
        write_elsewhere(layout.path(), name, files);
        let reference = registry.push(layout.path(), name, "bench/image");
        drop(layout);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..report.runs {
            ours.push(cloude(&registry, &reference));
            theirs.push(others(&reference));
        }
        peaks.push(row(report, name, &ours, &theirs));
    }
    let (small, large) = (peaks[0].median(), peaks[1].median());
    let row = Row::new(
        "image → initramfs: peak memory, large / small image",
        format!("{large:.1} MiB"),
        large / small,
    );
    report.push(
        row.against(format!("{small:.1} MiB"))
            .promised(Threshold::AtMost(GROWTH))
            .samples("small", &peaks[0])
            .samples("large", &peaks[1]),
    );
}

/// Writes the OCI layout of an image with `files` files.
pub fn write(folder: &Path, name: &str, files: usize) {
    write_layout(folder, name, layers(files));
}

/// Runs [`write()`] in a child process. A new program inherits the peak memory of the process that started it as its
/// `ru_maxrss` (fs/exec.c, `exec_mmap`), so this process must never hold a whole image.
fn write_elsewhere(folder: &Path, name: &str, files: usize) {
    let status = Command::new(std::env::current_exe().unwrap())
        .arg("layout")
        .arg(folder)
        .args([name, &files.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "`cloude-bench layout` failed: {status}");
}

fn row(report: &mut Report, name: &str, ours: &[Cost], theirs: &[Cost]) -> Samples {
    let seconds =
        |costs: &[Cost]| Samples(costs.iter().map(|cost| cost.time.as_secs_f64()).collect());
    let mebibytes = |costs: &[Cost]| {
        Samples(
            costs
                .iter()
                .map(|cost| cost.peak_bytes as f64 / f64::from(1 << 20))
                .collect(),
        )
    };
    let (time, their_time) = (seconds(ours), seconds(theirs));
    let (peak, their_peak) = (mebibytes(ours), mebibytes(theirs));
    let (a, b) = (time.median(), their_time.median());
    let row = Row::new(
        format!("{name} image → initramfs: times as fast as skopeo + umoci + cpio|zstd"),
        format!("{a:.2} s, {:.0} MiB", peak.largest()),
        b / a,
    );
    let row = row
        .against(format!("{b:.2} s, {:.0} MiB", their_peak.largest()))
        .promised(Threshold::AtLeast(3.0));
    report.push(
        row.samples("cloude", &time)
            .samples("others", &their_time)
            .samples("cloude MiB", &peak)
            .samples("others MiB", &their_peak),
    );
    peak
}

fn cloude(registry: &Registry, reference: &str) -> Cost {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binaries::binary("cloude-initramfs"));
    command
        .args([
            "build", reference, "--quiet", "--format", "zstd", "--output",
        ])
        .arg(folder.path().join("image.cpio.zst"));
    command
        .env("CLOUDE_CACHE_DIR", folder.path().join("cache"))
        .env("DOCKER_CONFIG", registry.docker_config());
    cost(vec![command])
}

/// The pipeline of standard tools that does the same, with the same compression level.
fn others(reference: &str) -> Cost {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut copy = Command::new("skopeo");
    copy.args([
        "copy",
        "--quiet",
        "--insecure-policy",
        "--src-tls-verify=false",
        "--src-creds",
        &format!("{USER}:{PASSWORD}"),
    ]);
    copy.args([
        &format!("docker://{reference}"),
        &format!("oci:{}:image", path("layout")),
    ]);
    let mut unpack = Command::new("umoci");
    unpack.args([
        "unpack",
        "--image",
        &format!("{}:image", path("layout")),
        &path("bundle"),
    ]);
    let mut pack = Command::new("sh");
    pack.args([
        "-c",
        "cd \"$1\" && find . | cpio --quiet -o -H newc | zstd -q -3 -o \"$2\"",
        "sh",
    ]);
    pack.args([
        Path::new(&path("bundle")).join("rootfs").to_str().unwrap(),
        &path("image.cpio.zst"),
    ]);
    cost(vec![copy, unpack, pack])
}

/// Layers with pseudo-random text files, identical on every machine.
fn layers(files: usize) -> Vec<Layer> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    (0..3)
        .map(|layer| {
            let mut tar = Layer::default();
            for number in (layer..files).step_by(3) {
                if number / 100 != number.saturating_sub(3) / 100 || number < 3 {
                    tar = tar.directory(&format!("usr-{layer}-{}", number / 100), 0o755, (0, 0));
                }
                let length = FILE_BYTES / 2 + random.next() % FILE_BYTES;
                tar = tar.file(
                    &format!("usr-{layer}-{}/file-{number}", number / 100),
                    0o644,
                    (0, 0),
                    &random.words(length as usize),
                );
            }
            tar
        })
        .collect()
}

/// xorshift64 (Marsaglia 2003): small, and good enough to make distinct files.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Text that compresses to about a third, like programs.
    fn words(&mut self, length: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(length + 24);
        while text.len() < length {
            let word = self.next() % 4096;
            text.extend_from_slice(
                format!("{word:x}{} ", word.wrapping_mul(2_654_435_761) % 100_000).as_bytes(),
            );
        }
        text.truncate(length);
        text
    }
}

//! The version of an image: found in it, compared with the language's, kept up to date.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod registry_support;

use registry_support::{Layout, Packing, Tool};
use serde_json::Value;

const STATUS: &str = "Package: dash\nStatus: install ok installed\nVersion: 0.5\n\n\
                      Package: bash\nStatus: install ok installed\nVersion: 5.2.37-2+b10\n";

/// An image with a Debian package bash, and a file that tells it from others.
fn layout(motd: &str) -> Layout {
    Layout::of(&[(
        Packing::Plain,
        &[
            ("var/lib/dpkg/status", STATUS.as_bytes()),
            ("etc/motd", motd.as_bytes()),
        ],
    )])
}

/// A folder of languages with `mine`, whose image is at `image` beside it.
fn languages(tool: &Tool, version: &str) -> String {
    let dir = tool.dir.path().join("languages");
    std::fs::create_dir_all(dir.join("mine")).unwrap();
    let file = format!(
        "title = \"Bash\"\nversion = \"{version}\"\nfile = \"main.sh\"\n[image]\nreference = \"oci:image\"\n\
         [image.debian]\nsuite = \"trixie\"\npackages = [\"bash\"]\n\
         [run]\ncommand = [\"sh\", \"main.sh\"]\n\
         [self_test]\ncode = \"\"\nargs = []\nstdin = \"\"\nstdout = \"\"\nexit_code = 1\n"
    );
    std::fs::write(dir.join("mine/language.toml"), file).unwrap();
    dir.to_str().unwrap().to_owned()
}

/// Makes `layout` the image of the language.
fn publish(tool: &Tool, layout: &Layout) {
    let image = tool.dir.path().join("languages/mine/image");
    let _ = std::fs::remove_dir_all(&image);
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([layout.path(), &image])
        .status()
        .unwrap();
    assert!(copied.success());
}

/// Runs the tool with the languages, and gives what it printed.
fn run(tool: &Tool, arguments: &[&str]) -> (bool, String) {
    let output = tool.run(arguments);
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}

fn record(tool: &Tool) -> Value {
    let json = std::fs::read(tool.cache().join("images/mine.json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// An image of `mine` that was last compared with its source long ago.
fn old_image(tool: &Tool, dir: &str) -> Value {
    let (built, printed) = run(tool, &["build", "-l", "mine", "--languages-dir", dir]);
    assert!(built, "{printed}");
    let mut old = record(tool);
    old["checked_at"] = 1.into();
    std::fs::write(tool.cache().join("images/mine.json"), old.to_string()).unwrap();
    old
}

#[test]
fn a_record_has_the_version_of_the_images_package() {
    let tool = Tool::new();
    let dir = languages(&tool, "5.2");
    publish(&tool, &layout("a"));

    old_image(&tool, &dir);

    let record = record(&tool);
    assert_eq!(record["program_version"], "5.2.37");
    let digest =
        registry_support::digest(&std::fs::read(tool.cache().join("images/mine.cpio")).unwrap());
    assert_eq!(record["archive_digest"], digest.as_str());
}

#[test]
fn an_image_of_another_version_is_refused() {
    let tool = Tool::new();
    let dir = languages(&tool, "5.3");
    publish(&tool, &layout("a"));

    let (built, printed) = run(&tool, &["build", "-l", "mine", "--languages-dir", &dir]);

    assert!(!built);
    assert!(
        printed.contains("has Bash 5.2.37, and Bash 5.3 is wanted"),
        "{printed}"
    );
    assert!(
        printed.contains("set `version = \"5.2\"` in language.toml"),
        "{printed}"
    );
    assert!(!tool.cache().join("images/mine.json").exists());
}

#[test]
fn a_stored_image_of_another_version_does_not_serve() {
    let tool = Tool::new();
    publish_old_and_ask_for(&tool, "5.3");
    let (built, printed) = run(
        &tool,
        &[
            "build",
            "-l",
            "mine",
            "--languages-dir",
            &languages(&tool, "5.3"),
        ],
    );
    assert!(
        !built && printed.contains("Bash 5.3 is wanted"),
        "{printed}"
    );
}

fn publish_old_and_ask_for(tool: &Tool, version: &str) {
    let dir = languages(tool, "5.2");
    publish(tool, &layout("a"));
    old_image(tool, &dir);
    languages(tool, version);
}

#[test]
fn an_update_of_an_unchanged_source_confirms_the_image() {
    let tool = Tool::new();
    let dir = languages(&tool, "5.2");
    publish(&tool, &layout("a"));
    let old = old_image(&tool, &dir);

    let (updated, printed) = run(&tool, &["update", "mine", "--languages-dir", &dir]);

    assert!(updated && printed.contains("up to date"), "{printed}");
    let new = record(&tool);
    assert!(new["checked_at"].as_u64().unwrap() > 1);
    assert_eq!(new["archive_digest"], old["archive_digest"]);
}

#[test]
fn an_update_builds_what_the_source_has_now() {
    let tool = Tool::new();
    let dir = languages(&tool, "5.2");
    publish(&tool, &layout("a"));
    let old = old_image(&tool, &dir);
    publish(&tool, &layout("b"));

    let (updated, printed) = run(&tool, &["update", "--languages-dir", &dir]);

    assert!(updated && printed.contains("built in"), "{printed}");
    assert_ne!(record(&tool)["archive_digest"], old["archive_digest"]);
}

#[test]
fn an_update_that_fails_keeps_the_image_and_names_it() {
    let tool = Tool::new();
    let dir = languages(&tool, "5.2");
    publish(&tool, &layout("a"));
    old_image(&tool, &dir);
    std::fs::remove_dir_all(tool.dir.path().join("languages/mine/image")).unwrap();

    let (updated, printed) = run(&tool, &["update", "--languages-dir", &dir]);

    assert!(
        !updated && printed.contains("not updated: mine"),
        "{printed}"
    );
    assert!(tool.cache().join("images/mine.cpio").exists());
}

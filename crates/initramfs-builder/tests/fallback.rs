//! The fallback from an unreachable registry to another source.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod registry_support;

use std::path::Path;
use std::sync::Mutex;

use cloude_initramfs_builder::pipeline::{BuildRequest, Event, NoProgress, Progress, build};
use registry_support::{Layout, Packing, Tool};

/// Port 1 of loopback, where nothing listens.
const UNREACHABLE: &str = "127.0.0.1:1/python:3";

fn layout() -> Layout {
    Layout::of(&[(Packing::Gzip, &[("etc/motd", b"hello")])])
}

fn request(layout: &Layout, cache: &Path) -> BuildRequest {
    let mut request = BuildRequest::new(UNREACHABLE.parse().unwrap(), "python", cache);
    request.fallback = Some(format!("oci:{}", layout.path().display()).parse().unwrap());
    request
}

#[derive(Default)]
struct Notices(Mutex<Vec<String>>);

impl Progress for Notices {
    fn event(&self, event: &Event) {
        if let Event::Notice { message } = event {
            self.0.lock().unwrap().push(message.clone());
        }
    }
}

#[test]
fn an_unreachable_registry_gives_the_recorded_fallback() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let notices = Notices::default();

    let built = build(&request(&layout, cache.path()), &notices).unwrap();

    assert_eq!(built.metadata.instead_of.as_deref(), Some(UNREACHABLE));
    assert!(built.metadata.source.starts_with("oci:"));
    let notices = notices.0.into_inner().unwrap();
    assert!(notices[0].contains(UNREACHABLE), "{notices:?}");
    assert!(notices[0].contains("instead"), "{notices:?}");
}

#[test]
fn a_stored_fallback_needs_an_allowed_fallback() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let request = request(&layout, cache.path());
    build(&request, &NoProgress).unwrap();

    assert!(build(&request, &NoProgress).unwrap().up_to_date);
    let strict = BuildRequest {
        fallback: None,
        ..request
    };
    let error = build(&strict, &NoProgress).unwrap_err();
    assert!(error.registry_unreachable(), "{error}");
}

fn language_file(tool: &Tool, reference: &str) -> String {
    let dir = tool.dir.path().join("languages");
    std::fs::create_dir_all(dir.join("mine")).unwrap();
    let file = format!(
        "file = \"main.sh\"\n[image]\nreference = \"{reference}\"\n\
         [image.debian]\nsuite = \"bookworm\"\npackages = [\"bash\"]\n\
         [run]\ncommand = [\"sh\", \"main.sh\"]\n\
         [self_test]\ncode = \"\"\nargs = []\nstdin = \"\"\nstdout = \"\"\nexit_code = 1\n"
    );
    std::fs::write(dir.join("mine/language.toml"), file).unwrap();
    dir.to_str().unwrap().to_owned()
}

#[test]
fn a_language_can_name_a_local_image() {
    let (tool, layout) = (Tool::new(), layout());
    let dir = language_file(&tool, &format!("oci:{}", layout.path().display()));

    let archive = tool.build(&["--language", "mine", "--languages-dir", &dir]);

    assert!(registry_support::contains(&archive, "hello"));
}

#[test]
fn packages_never_replace_a_local_image() {
    let tool = Tool::new();
    let dir = language_file(&tool, "oci:missing");

    let stderr = tool.fail(&["--language", "mine", "--languages-dir", &dir]);

    assert!(stderr.contains(&format!("{dir}/mine/missing")), "{stderr}");
}

//! Checks every `languages/NAME/language.toml`, and runs each language's self-test with `cloude run`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;

use cloude_e2e::backend::Backend;
use cloude_e2e::{binaries, cloude};
use libtest_mimic::{Arguments, Trial};

/// Names, extensions and exit codes of the self-tests are distinct, and images have fixed tags.
fn the_languages_are_well_formed_and_do_not_collide() {
    let (mut known_as, mut extensions, mut exit_codes) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for name in binaries::language_names() {
        let language = binaries::language(&name);
        for alias in std::iter::once(&language.name).chain(&language.aliases) {
            assert_eq!(alias, &alias.to_lowercase(), "{name}: names are lower case");
            assert!(
                known_as.insert(alias.clone()),
                "two languages have the name {alias}"
            );
        }
        for extension in &language.extensions {
            assert!(
                extensions.insert(extension.clone()),
                "two languages have the extension {extension}"
            );
        }
        let image = &language.image;
        if let Some(reference) = &image.reference {
            let tag = reference.rsplit_once(':').map(|(_, tag)| tag);
            assert!(
                tag.is_some_and(|tag| tag != "latest" && !tag.contains('/')),
                "{name}: {reference} has no tag"
            );
            assert!(
                reference.starts_with("docker.io/library/"),
                "{name}: {reference} is not an official image of Docker Hub"
            );
        }
        assert!(language.version.is_some(), "{name}: no version");
        assert!(!image.debian.packages.is_empty(), "{name}: no packages");
        for command in language.compile.iter().chain([&language.run]) {
            assert!(!command.command.is_empty(), "{name}: an empty command");
        }
        assert!(
            exit_codes.insert(language.self_test.exit_code),
            "{name}: another self-test has the same exit code"
        );
        assert!(
            (1..124).contains(&language.self_test.exit_code),
            "{name}: the self-test's exit code must be 1 to 123"
        );
    }
}

/// Runs `cloude run FILE -- ARGUMENTS` with the self-test's standard input on a pipe.
fn self_test(name: &str) {
    let language = binaries::language(name);
    let test = &language.self_test;
    let backend = Backend::start("");
    let folder = tempfile::tempdir().unwrap();
    let path = folder
        .path()
        .join("program")
        .with_extension(&language.extensions[0]);
    std::fs::write(&path, &test.code).unwrap();
    let mut arguments = vec!["run", path.to_str().unwrap(), "--"];
    arguments.extend(test.args.iter().map(String::as_str));

    let output = cloude::run_with_input(&backend, &arguments, &test.stdin);

    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        test.stdout,
        "{}",
        cloude::describe(&output)
    );
    assert_eq!(output.status.code(), Some(test.exit_code));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "this line is not part of it\n"
    );
    backend.stop();
}

fn main() {
    let files = Trial::test("the_languages_are_well_formed_and_do_not_collide", || {
        the_languages_are_well_formed_and_do_not_collide();
        Ok(())
    });
    let self_tests = binaries::language_names().into_iter().map(|name| {
        let trial = binaries::trial(&binaries::language(&name));
        Trial::test(format!("{trial}::self_test_passes"), move || {
            self_test(&name);
            Ok(())
        })
    });
    let trials = std::iter::once(files).chain(self_tests).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

//! Languages: their folders, and each language's self-test through `cloude run`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;

use cloude_e2e::backend::Backend;
use cloude_e2e::{binaries, cloude};
use libtest_mimic::{Arguments, Trial};

/// Images, names, extensions and exit codes: what tells one language from another.
fn the_languages_are_well_formed_and_do_not_collide() {
    let (mut known_as, mut extensions, mut exit_codes) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for name in binaries::language_names() {
        let language = binaries::language(&name);
        for alias in std::iter::once(&language.name).chain(&language.aliases) {
            assert_eq!(alias, &alias.to_lowercase(), "{name}: names are lower case");
            assert!(known_as.insert(alias.clone()), "{alias} is two languages");
        }
        for extension in &language.extensions {
            assert!(
                extensions.insert(extension.clone()),
                ".{extension} is two languages"
            );
        }
        let image = &language.image;
        let tag = image.reference.rsplit_once(':').map(|(_, tag)| tag);
        assert!(
            tag.is_some_and(|tag| tag != "latest" && !tag.contains('/')),
            "{name}: {} has no tag",
            image.reference
        );
        assert!(
            image.reference.starts_with("docker.io/library/"),
            "{name}: {} is no official image",
            image.reference
        );
        assert!(!image.debian.packages.is_empty(), "{name}: no packages");
        for command in language.compile.iter().chain([&language.run]) {
            assert!(!command.command.is_empty(), "{name}: an empty command");
        }
        assert!(
            exit_codes.insert(language.self_test.exit_code),
            "{name}: an exit code that another self-test has"
        );
        assert!(
            (1..124).contains(&language.self_test.exit_code),
            "{name}: an exit code that means something else"
        );
    }
}

/// What a person would type: the file, its input on a pipe, its arguments.
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

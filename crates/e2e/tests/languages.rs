//! Languages: the files, and each language's self-test through `cloude run`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;

use cloude_e2e::backend::Backend;
use cloude_e2e::{binaries, cloude};

const LANGUAGES: [&str; 8] = ["bash", "c", "cpp", "go", "java", "node", "python", "rust"];

#[test]
fn the_language_files_are_well_formed_and_do_not_collide() {
    let folder = binaries::repository().join("languages");
    let mut names: Vec<String> = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    names.sort();
    assert_eq!(names, LANGUAGES);

    let (mut known_as, mut extensions, mut exit_codes) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for name in names {
        let language = binaries::language(&name);
        assert_eq!(language.name, name);
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
    for alias in ["py", "js", "javascript", "rs", "golang", "c++"] {
        assert!(known_as.contains(alias), "{alias} is no language");
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

#[test]
fn the_self_test_of_bash_passes() {
    self_test("bash");
}

#[test]
fn the_self_test_of_c_passes() {
    self_test("c");
}

#[test]
fn the_self_test_of_cpp_passes() {
    self_test("cpp");
}

#[test]
fn the_self_test_of_go_passes() {
    self_test("go");
}

#[test]
fn the_self_test_of_java_passes() {
    self_test("java");
}

#[test]
fn the_self_test_of_node_passes() {
    self_test("node");
}

#[test]
fn the_self_test_of_python_passes() {
    self_test("python");
}

#[test]
fn the_self_test_of_rust_passes() {
    self_test("rust");
}

//! The file that a program's code is written to, and the commands that run it.
//!
//! A language file names one file and its commands. The file name changes in two cases: the client's `file_name` has
//! another extension of the language, or the tools require a name that the code defines, as javac does for public
//! classes.

use std::path::Path;

use cloude_protocol::language::{Command, Language, Names};
use regex::Regex;

/// The file of a program's code, and the commands that compile and run it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Path of the code in the work directory.
    pub file: String,
    /// The compile command.
    pub compile: Option<Vec<String>>,
    /// The run command without the arguments of the request.
    pub run: Vec<String>,
}

impl Source {
    /// The source for `code`. `file_name` is the name of the file on the client, whose extension counts.
    ///
    /// Fails if a pattern of the language file is invalid, which the load of the language file checks.
    pub fn of(language: &Language, code: &str, file_name: Option<&str>) -> Result<Source, String> {
        let default = Path::new(&language.file);
        let given = file_name
            .and_then(|name| Path::new(name).extension()?.to_str())
            .filter(|given| language.extensions.iter().any(|known| known == given));
        let mut file = match given {
            Some(extension) => default.with_extension(extension).display().to_string(),
            None => language.file.clone(),
        };
        let mut entry = None;
        if let Some(names) = &language.names {
            let found = Found::in_code(names, code)?;
            if let (Some(name), Some(extension)) = (found.file, default.extension()) {
                file = format!("{name}.{}", extension.display());
            }
            entry = found.entry.map(|name| (names.main.as_str(), name));
        }
        let command = |command: &Command| {
            let other = given.and_then(|extension| command.by_extension.get(extension));
            let words = other.unwrap_or(&command.command).iter();
            words
                .map(|word| match &entry {
                    _ if *word == language.file => file.clone(),
                    Some((main, name)) if word == main => name.clone(),
                    _ => word.clone(),
                })
                .collect()
        };
        Ok(Source {
            compile: language.compile.as_ref().map(command),
            run: command(&language.run),
            file,
        })
    }
}

/// Checks the patterns of a language file. The error names the key.
pub fn check(names: &Names) -> Result<(), String> {
    Found::in_code(names, "").map(|_| ())
}

/// Names that the code defines.
struct Found {
    file: Option<String>,
    entry: Option<String>,
}

impl Found {
    fn in_code(names: &Names, code: &str) -> Result<Found, String> {
        let regex = |field, pattern: &str| {
            Regex::new(pattern).map_err(|error| format!("`names.{field}`: {error}"))
        };
        let declaration = regex("declaration", &names.declaration)?;
        let entry = regex("entry", &names.entry)?;
        let package = regex("package", &names.package)?;
        for group in ["public", "name"] {
            if !declaration.capture_names().flatten().any(|it| it == group) {
                return Err(format!("`names.declaration` has no group `{group}`"));
            }
        }

        let plain = blank(code);
        let top = top_level(&plain);
        let mut types = Vec::new();
        for found in declaration.captures_iter(&top) {
            let (Some(whole), Some(name)) = (found.get(0), found.name("name")) else {
                continue;
            };
            // `top` keeps the outermost braces, so the body is between two of them.
            let body = top[whole.end()..].find('{').and_then(|at| {
                let open = whole.end() + at + 1;
                Some(open..open + top[open..].find('}')?)
            });
            types.push(Type {
                name: name.as_str(),
                public: found.name("public").is_some(),
                entry: body.is_some_and(|body| entry.is_match(&top_level(&plain[body]))),
            });
        }
        let public = types.iter().find(|it| it.public);
        let entries = || types.iter().filter(|it| it.entry);
        let main = entries()
            .find(|it| it.public)
            .or_else(|| entries().next())
            .or(public)
            .or(types.first());
        let package = package.captures(&top).and_then(|found| found.get(1));
        let package = package.map(|it| it.as_str().split_whitespace().collect::<String>() + ".");
        Ok(Found {
            file: public.map(|it| it.name.to_owned()),
            entry: main.map(|it| package.unwrap_or_default() + it.name),
        })
    }
}

struct Type<'a> {
    name: &'a str,
    public: bool,
    entry: bool,
}

/// Replaces comments, literals and text blocks (syntax of C and Java) by spaces of the same length.
fn blank(code: &str) -> String {
    let bytes = code.as_bytes();
    let mut plain = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest {
            [b'/', b'/', ..] => end(rest, 2, b"\n", false),
            [b'/', b'*', ..] => end(rest, 2, b"*/", false),
            [b'"', b'"', b'"', ..] => end(rest, 3, b"\"\"\"", true),
            // An unterminated literal ends with its line.
            [b'"' | b'\'', ..] => end(rest, 1, &rest[..1], true).min(end(rest, 1, b"\n", false)),
            _ => {
                at += 1;
                continue;
            }
        };
        plain[at..at + length].fill(b' ');
        at += length;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// The length of a comment or literal at the start of `text`, which ends with the first `mark` after `from`. With
/// `escapes`, a backslash escapes the next byte.
fn end(text: &[u8], from: usize, mark: &[u8], escapes: bool) -> usize {
    let mut at = from;
    while at < text.len() {
        if text[at..].starts_with(mark) {
            return at + mark.len();
        }
        at += if escapes && text[at] == b'\\' { 2 } else { 1 };
    }
    text.len()
}

/// Replaces everything inside braces by spaces of the same length.
fn top_level(code: &str) -> String {
    let mut depth = 0_usize;
    let outer = code.bytes().map(|byte| {
        if byte == b'}' {
            depth = depth.saturating_sub(1);
        }
        let seen = if depth == 0 { byte } else { b' ' };
        if byte == b'{' {
            depth += 1;
        }
        seen
    });
    String::from_utf8_lossy(&outer.collect::<Vec<_>>()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages")
    }

    fn language(name: &str) -> Language {
        cloude_protocol::languages::load(&folder(), name).unwrap()
    }

    /// The file, and the class that is run.
    fn java(code: &str) -> (String, String) {
        let source = Source::of(&language("java"), code, None).unwrap();
        let compile = source.compile.unwrap();
        assert_eq!(compile.last(), Some(&source.file));
        (source.file, source.run.last().unwrap().clone())
    }

    fn owned(file: &str, class: &str) -> (String, String) {
        (file.to_owned(), class.to_owned())
    }

    #[test]
    fn the_file_is_named_after_the_public_class() {
        let code = "public class HelloWorld { public static void main(String[] args) {} }";
        assert_eq!(java(code), owned("HelloWorld.java", "HelloWorld"));
    }

    #[test]
    fn the_class_with_main_runs_if_another_is_public() {
        let code = "public interface Shape { double area(); }\nclass Square { }\n\
                    class App { public static void main(String... args) { } }";
        assert_eq!(java(code), owned("Shape.java", "App"));
    }

    #[test]
    fn the_public_class_runs_if_two_have_main() {
        let code = "class A { static void main(String[] a) {} }\n\
                    public final class B { public static void main(String[] a) {} }";
        assert_eq!(java(code), owned("B.java", "B"));
    }

    #[test]
    fn a_class_that_is_not_public_stays_in_the_default_file() {
        let code = "import java.util.*;\nclass solution { public static void main(String[] a) {} }";
        assert_eq!(java(code), owned("Main.java", "solution"));
    }

    #[test]
    fn a_package_goes_before_the_class() {
        let code = "package org . example.app;\n\npublic record Point(int x, int y) {\n\
                    public static void main(String[] args) {} }";
        assert_eq!(java(code), owned("Point.java", "org.example.app.Point"));
    }

    #[test]
    fn comments_and_literals_name_no_class() {
        let code = r#"
// public class InLine { C:\
/* public class InBlock { void main( } */
@Deprecated
public class Real {
    static final String TEXT = "} public class InString { \" void main(";
    static final char QUOTE = '"', BRACE = '}';
    static final String BLOCK = """
        } public class "InText" { void main("x\""") """;
    public static void main(String[] args) {}
}
"#;
        assert_eq!(java(code), owned("Real.java", "Real"));
    }

    #[test]
    fn a_nested_class_does_not_name_the_file() {
        let code = "class Outer { public static class Inner { void main() {} }\n\
                    public static void main(String[] args) {} }\nenum Kind { ONE }";
        assert_eq!(java(code), owned("Main.java", "Outer"));
    }

    #[test]
    fn code_without_a_class_is_run_as_the_default() {
        assert_eq!(java("int x = 1;"), owned("Main.java", "Main"));
        assert_eq!(java("class \"{ '"), owned("Main.java", "Main"));
    }

    #[test]
    fn names_may_be_in_any_script() {
        let code = "public class Größe$1 { public static void main(String[] args) {} }";
        assert_eq!(java(code), owned("Größe$1.java", "Größe$1"));
    }

    #[test]
    fn the_given_extension_is_the_files() {
        let node = language("node");
        for (given, file) in [
            (Some("tool.mjs"), "main.mjs"),
            (Some("dir/a.b.cjs"), "main.cjs"),
            (Some("main.js"), "main.js"),
            (Some("notes.txt"), "main.js"),
            (Some("script"), "main.js"),
            (None, "main.js"),
        ] {
            let source = Source::of(&node, "", given).unwrap();
            assert_eq!(source.file, file, "{given:?}");
            assert_eq!(source.run, ["node", file]);
        }
    }

    #[test]
    fn an_extension_may_have_a_separate_command() {
        let mut node = language("node");
        node.extensions.push("ts".into());
        let command = ["node", "--experimental-strip-types", "main.ts"].map(str::to_owned);
        node.run.by_extension.insert("ts".into(), command.to_vec());
        let source = Source::of(&node, "", Some("x.ts")).unwrap();
        assert_eq!(source.file, "main.ts");
        assert_eq!(
            source.run,
            ["node", "--experimental-strip-types", "main.ts"]
        );
    }

    #[test]
    fn the_self_test_runs_with_the_default_commands() {
        for name in cloude_protocol::languages::names(&folder()).unwrap() {
            let language = language(&name);
            let source = Source::of(&language, &language.self_test.code, None).unwrap();
            assert_eq!(source.file, language.file);
            assert_eq!(source.run, language.run.command);
            assert_eq!(source.compile, language.compile.map(|it| it.command));
        }
    }

    #[test]
    fn an_invalid_pattern_names_its_key() {
        let mut names = language("java").names.unwrap();
        names.entry = "(".into();
        assert!(check(&names).unwrap_err().contains("`names.entry`"));
        names.entry = "x".into();
        names.declaration = "class".into();
        assert!(check(&names).unwrap_err().contains("group `public`"));
    }
}

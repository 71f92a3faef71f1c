//! Names and versions of languages as Piston has them.

use cloude_protocol::api::LanguageInfo;
use cloude_protocol::language::Language;
use semver::{Comparator, Version, VersionReq};
use serde::Serialize;

/// A language that Piston has under another name than ours.
struct Known {
    /// Our name.
    own: &'static str,
    name: &'static str,
    aliases: &'static [&'static str],
    runtime: Option<&'static str>,
}

const KNOWN: &[Known] = &[
    Known {
        own: "node",
        name: "javascript",
        aliases: &["node-javascript", "node-js", "js"],
        runtime: Some("node"),
    },
    Known {
        own: "c",
        name: "c",
        aliases: &["gcc"],
        runtime: Some("gcc"),
    },
    Known {
        own: "cpp",
        name: "c++",
        aliases: &["cpp", "g++"],
        runtime: Some("gcc"),
    },
    Known {
        own: "python",
        name: "python",
        aliases: &["py", "py3", "python3"],
        runtime: None,
    },
    Known {
        own: "r",
        name: "rscript",
        aliases: &["r"],
        runtime: None,
    },
    Known {
        own: "sqlite",
        name: "sqlite3",
        aliases: &["sqlite", "sql"],
        runtime: None,
    },
    Known {
        own: "commonlisp",
        name: "lisp",
        aliases: &["commonlisp"],
        runtime: None,
    },
];

/// An item of `GET /runtimes`.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Runtime {
    pub language: String,
    pub version: String,
    pub aliases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<&'static str>,
}

/// An item of `GET /packages`.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Package {
    pub language: String,
    pub language_version: String,
    pub installed: bool,
}

/// Our name of a language of Piston. Other names are returned as they are.
pub fn own_name(name: &str) -> &str {
    let is = |known: &&str| known.eq_ignore_ascii_case(name.trim());
    let known = KNOWN
        .iter()
        .find(|known| is(&known.name) || known.aliases.iter().any(is));
    known.map_or(name, |known| known.own)
}

/// Piston's name of one of our languages.
pub fn piston_name(own: &str) -> &str {
    known(own).map_or(own, |known| known.name)
}

fn known(own: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.own == own)
}

impl Runtime {
    /// A language whose image is there, or may be built.
    pub fn of(info: &LanguageInfo, version: &Version) -> Self {
        let known = known(&info.name);
        let language = piston_name(&info.name).to_owned();
        let mut aliases: Vec<String> = known
            .map_or(&[][..], |known| known.aliases)
            .iter()
            .map(ToString::to_string)
            .collect();
        for name in std::iter::once(&info.name).chain(&info.aliases) {
            if *name != language && !aliases.contains(name) {
                aliases.push(name.clone());
            }
        }
        Runtime {
            language,
            version: version.to_string(),
            aliases,
            runtime: known.and_then(|known| known.runtime),
        }
    }
}

/// The version of a language with three numbers: of its image (`Python 3.13.5`), or else of its file (`3.13`).
pub fn version(language: &Language, image: Option<&str>) -> Version {
    let image = image.and_then(|text| text.split_whitespace().next_back());
    let text = image.or(language.version.as_deref()).unwrap_or_default();
    let mut numbers = text.trim_start_matches('v').split('.').map_while(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit());
        part[..digits.unwrap_or(part.len())].parse().ok()
    });
    let mut next = || numbers.next().unwrap_or(0);
    Version::new(next(), next(), next())
}

/// A range of versions as npm writes them: alternatives, each of which is a list of comparators that must all match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range(Vec<VersionReq>);

impl Range {
    /// Reads `*`, `3.13.5`, `3.x`, `>=3.1 <4`, `^3 || ~2.7`, `1.2 - 2.3`. None if it is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        let alternatives = text
            .split("||")
            .map(|part| comparators(part.trim()).map(|comparators| VersionReq { comparators }));
        alternatives.collect::<Option<_>>().map(Range)
    }

    /// True if the version is in the range.
    pub fn has(&self, version: &Version) -> bool {
        self.0.iter().any(|all| all.matches(version))
    }
}

fn comparators(part: &str) -> Option<Vec<Comparator>> {
    if let Some((low, high)) = part.split_once(" - ") {
        let bounds = [
            comparator(">=", low.trim())?,
            comparator("<=", high.trim())?,
        ];
        return Some(bounds.into_iter().flatten().collect());
    }
    let mut found = Vec::new();
    // The operator of `>= 3` is a word of its own.
    let mut operator = String::new();
    for word in part.split_whitespace() {
        let end = word.find(|c: char| !"<>=~^".contains(c));
        let (own, number) = word.split_at(end.unwrap_or(word.len()));
        operator.push_str(own);
        if !number.is_empty() {
            found.extend(comparator(&operator, number)?);
            operator.clear();
        }
    }
    operator.is_empty().then_some(found)
}

/// `Some(None)` if every version matches.
fn comparator(operator: &str, number: &str) -> Option<Option<Comparator>> {
    let operator = match operator {
        "" | "=" => "=",
        "~" | "~>" => "~",
        ">" | ">=" | "<" | "<=" | "^" => operator,
        _ => return None,
    };
    let number = number.trim_start_matches('v').split('+').next()?;
    let is_wildcard = |part: &&str| matches!(*part, "x" | "X" | "*");
    let parts: Vec<&str> = number.split('.').collect();
    let fixed = parts.iter().position(is_wildcard);
    let (fixed, rest) = parts.split_at(fixed.unwrap_or(parts.len()));
    if !rest.iter().all(is_wildcard) || parts.len() > 3 && !number.contains('-') {
        return None;
    }
    if fixed.is_empty() {
        return matches!(operator, "=" | "~" | "^" | ">=" | "<=").then_some(None);
    }
    let text = format!("{operator}{}", fixed.join("."));
    Comparator::parse(&text).ok().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(name: &str, version: Option<&str>) -> Language {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../languages");
        let mut language = cloude_protocol::languages::load(dir.as_ref(), name).unwrap();
        language.version = version.map(str::to_owned);
        language
    }

    #[test]
    fn ranges_are_read_as_npm_does() {
        let version = Version::new(3, 13, 5);
        for range in [
            "*",
            "x",
            "",
            "3",
            "3.x",
            "3.13",
            "3.13.x",
            "3.13.*",
            "3.13.5",
            "v3.13.5",
            "=3.13.5",
            "^3.2.1",
            "~3.13",
            "~3.13.1",
            "~>3.13.1",
            ">=3",
            ">= 3",
            ">3.12",
            "<4",
            "<=3",
            "<=3.13.5",
            ">=3.1 <4",
            ">3 || 3.13.x",
            "2.7 || 3.13.5",
            "1.2 - 3",
            "3.13 - 4.1.0",
            "3.13.5+build",
            ">=3.13.5-0",
        ] {
            let parsed = Range::parse(range).unwrap_or_else(|| panic!("{range}"));
            assert!(parsed.has(&version), "{range}");
        }
        for range in [
            "2",
            "3.1",
            "3.1.x",
            "3.13.4",
            "3.13.6",
            "^2",
            "^3.14",
            "~3.12",
            ">3.13",
            ">3",
            "<3",
            "<3.13.5",
            ">=3.14",
            ">=3 <3.13",
            "2 || 4",
            "1.2 - 3.12",
            "=3.12",
        ] {
            let parsed = Range::parse(range).unwrap_or_else(|| panic!("{range}"));
            assert!(!parsed.has(&version), "{range}");
        }
        for text in [
            "latest", "3.13.5.1", ">=", "=>3", "3.x.5", "3..1", "python3", "> *",
        ] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_version_gets_three_numbers() {
        for (image, pinned, expected) in [
            (Some("Python 3.13.5"), Some("3.13"), "3.13.5"),
            (Some("OpenJDK 25.0.1+8-LTS"), None, "25.0.1"),
            (Some("GNU bash 5.2"), None, "5.2.0"),
            (Some("SBCL 2.5.2.debian"), None, "2.5.2"),
            (None, Some("14"), "14.0.0"),
            (None, None, "0.0.0"),
        ] {
            let version = version(&language("python", pinned), image);
            assert_eq!(version.to_string(), expected, "{image:?} {pinned:?}");
        }
    }

    #[test]
    fn names_of_piston_lead_to_our_languages() {
        for (name, own) in [
            ("javascript", "node"),
            ("node-js", "node"),
            ("C++", "cpp"),
            ("gcc", "c"),
            ("rscript", "r"),
            ("py3", "python"),
            ("rust", "rust"),
        ] {
            assert_eq!(own_name(name), own);
        }
    }

    #[test]
    fn a_runtime_has_the_names_of_both() {
        let info = LanguageInfo {
            name: "node".into(),
            aliases: vec!["js".into(), "javascript".into(), "nodejs".into()],
            extensions: Vec::new(),
            image_ready: true,
            version: None,
            image_digest: None,
            image_age_s: None,
        };

        let runtime = Runtime::of(&info, &Version::new(20, 19, 2));

        let expected = serde_json::json!({
            "language": "javascript", "version": "20.19.2", "runtime": "node",
            "aliases": ["node-javascript", "node-js", "js", "node", "nodejs"],
        });
        assert_eq!(serde_json::to_value(runtime).unwrap(), expected);
    }
}

//! The two sources of a language's image.

use std::path::Path;

use cloude_protocol::language::Language;

use super::{Packages, Source, SourceError};

/// Where a language's image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageSources {
    /// `image.reference`: any source. The packages for a language without one.
    pub reference: Source,
    /// `image.debian`.
    pub packages: Source,
    /// Whether the language says which version both have.
    versioned: bool,
}

impl LanguageSources {
    /// Reads them; relative paths begin at `dir`, the language's folder.
    pub fn new(language: &Language, dir: &Path) -> Result<Self, SourceError> {
        let image = &language.image;
        let debian = &image.debian;
        let packages = Packages::new(&debian.suite, &debian.packages, debian.env.clone())?;
        let packages = Source::Debian(packages);
        let reference = match &image.reference {
            Some(reference) => Source::parse_in(reference, dir)?,
            None => packages.clone(),
        };
        Ok(LanguageSources {
            reference,
            packages,
            versioned: language.version.is_some(),
        })
    }

    /// The reference, and the packages for when it is a registry's and the registry is not reached. Nothing takes the
    /// place of a local image, or of an image whose version the language does not state: the packages could have
    /// another.
    pub fn with_fallback(self) -> (Source, Option<Source>) {
        match self.reference {
            Source::Registry(_) if self.versioned => (self.reference, Some(self.packages)),
            alone => (alone, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(reference: &str) -> Language {
        let text = r#"
            name = "c"
            version = "14"
            file = "main.c"
            image = { reference = "", debian = { suite = "trixie", packages = ["gcc"] } }
            run = { command = ["./main"] }
            self_test = { code = "", stdin = "", args = [], stdout = "", exit_code = 0 }
        "#;
        let mut language: Language = toml::from_str(text).unwrap();
        language.image.reference = Some(reference.to_owned());
        language
    }

    fn sources(reference: &str, dir: &Path) -> LanguageSources {
        LanguageSources::new(&language(reference), dir).unwrap()
    }

    #[test]
    fn packages_take_no_place_if_no_version_is_stated() {
        let mut language = language("docker.io/library/gcc:14");
        language.version = None;
        let sources = LanguageSources::new(&language, Path::new("/")).unwrap();
        assert_eq!(sources.with_fallback().1, None);
    }

    #[test]
    fn packages_take_the_place_of_a_registry_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("index.json"), "{}").unwrap();
        let bare = dir.path().display().to_string();
        for (reference, fallback) in [
            ("docker.io/library/gcc:14", true),
            ("oci:/images/gcc:14", false),
            ("docker-archive:/images/gcc.tar", false),
            ("debian:trixie,gcc", false),
            (bare.as_str(), false),
        ] {
            let (source, packages) = sources(reference, dir.path()).with_fallback();
            assert_eq!(packages.is_some(), fallback, "{reference}: {source:?}");
            assert_eq!(
                matches!(source, Source::Registry(_)),
                fallback,
                "{reference}"
            );
        }
    }

    #[test]
    fn packages_are_the_image_without_a_reference() {
        let mut language = language("");
        language.image.reference = None;
        language.image.debian.env = [("A".to_owned(), "b".to_owned())].into();
        let sources = LanguageSources::new(&language, Path::new("/")).unwrap();
        let Source::Debian(packages) = &sources.reference else {
            panic!("{sources:?}");
        };
        assert_eq!(packages.env["A"], "b");
        assert_eq!(sources.reference, sources.packages);
        assert_eq!(sources.with_fallback().1, None);
    }

    #[test]
    fn a_relative_path_begins_at_the_languages_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("with:colon")).unwrap();
        let expected = Source::Oci {
            path: dir.path().join("with:colon"),
            tag: Some("v1".to_owned()),
        };
        assert_eq!(sources("oci:with:colon:v1", dir.path()).reference, expected);
    }
}

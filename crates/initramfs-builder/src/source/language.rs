//! The two sources of a language's image.

use std::path::Path;

use cloude_protocol::language::Image;

use super::{Packages, Source, SourceError};

/// Where a language's image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageSources {
    /// `image.reference`: any source.
    pub reference: Source,
    /// `image.debian`.
    pub packages: Source,
}

impl LanguageSources {
    /// Reads them; relative paths begin at `dir`, the language's folder.
    pub fn new(image: &Image, dir: &Path) -> Result<Self, SourceError> {
        let debian = &image.debian;
        let packages = Packages::new(&debian.suite, &debian.packages, debian.env.clone())?;
        Ok(LanguageSources {
            reference: Source::parse_in(&image.reference, dir)?,
            packages: Source::Debian(packages),
        })
    }

    /// The reference, and the packages for when it is a registry's and the registry is not reached. Nothing
    /// takes the place of a local image.
    pub fn with_fallback(self) -> (Source, Option<Source>) {
        match self.reference {
            Source::Registry(_) => (self.reference, Some(self.packages)),
            local => (local, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(reference: &str, dir: &Path) -> LanguageSources {
        let text = format!(
            "reference = \"{reference}\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"gcc\"]"
        );
        LanguageSources::new(&toml::from_str(&text).unwrap(), dir).unwrap()
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

//! Parsers of package databases. An image is untrusted: what is not a package is skipped, and nothing fails.

/// The format of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// dpkg.
    Deb,
    /// apk.
    Apk,
}

/// One installed package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its architecture, in the words of its distribution; empty if the database has none.
    pub architecture: String,
    /// Its version, with epoch and revision.
    pub version: String,
    /// Its format.
    pub kind: Kind,
    /// `Name <address>` of who maintains it.
    pub maintainer: Option<String>,
    /// The source package, if it has another name.
    pub source: Option<String>,
}

/// The distribution, from os-release(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `VERSION_ID`, such as `13`; empty for a rolling release.
    pub version: String,
    /// `NAME`, such as `Debian GNU/Linux`.
    pub name: String,
}

/// The packages of a dpkg status file that are installed. Stanzas of distroless images have no `Status`.
pub(super) fn dpkg(text: &str) -> Vec<Package> {
    stanzas(text)
        .filter(|stanza| {
            let status = field(stanza, "Status:");
            status.is_none_or(|status| status.ends_with(" installed"))
        })
        .filter_map(|stanza| {
            let name = field(&stanza, "Package:")?;
            // `Source: NAME (VERSION)`; the version is there if it differs.
            let source = field(&stanza, "Source:").and_then(|it| it.split(' ').next());
            Some(Package {
                name: name.to_owned(),
                version: field(&stanza, "Version:")?.to_owned(),
                architecture: field(&stanza, "Architecture:")
                    .unwrap_or_default()
                    .to_owned(),
                kind: Kind::Deb,
                maintainer: field(&stanza, "Maintainer:").map(str::to_owned),
                source: source.filter(|it| *it != name).map(str::to_owned),
            })
        })
        .collect()
}

/// The packages of apk's `installed` (apk-v2 database; the letters are in apk-package(5)).
pub(super) fn apk(text: &str) -> Vec<Package> {
    stanzas(text)
        .filter_map(|stanza| {
            let name = field(&stanza, "P:")?;
            Some(Package {
                name: name.to_owned(),
                version: field(&stanza, "V:")?.to_owned(),
                architecture: field(&stanza, "A:").unwrap_or_default().to_owned(),
                kind: Kind::Apk,
                maintainer: field(&stanza, "m:").map(str::to_owned),
                source: field(&stanza, "o:")
                    .filter(|it| *it != name)
                    .map(str::to_owned),
            })
        })
        .collect()
}

/// The distribution of an os-release file.
pub(super) fn os_release(text: &str) -> Option<System> {
    let lines: Vec<&str> = text.lines().collect();
    let value = |name| field(&lines, name).map(|value| value.trim_matches(['"', '\'']).to_owned());
    let id = value("ID=").filter(|id| !id.is_empty())?;
    Some(System {
        version: value("VERSION_ID=").unwrap_or_default(),
        name: value("NAME=").unwrap_or_else(|| id.clone()),
        id,
    })
}

/// Groups of lines between empty lines.
fn stanzas(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut stanza = Vec::new();
        for line in lines.by_ref() {
            if !line.is_empty() {
                stanza.push(line);
            } else if !stanza.is_empty() {
                break;
            }
        }
        (!stanza.is_empty()).then_some(stanza)
    })
}

/// The value of the first line that starts with `name`; none if it is empty.
fn field<'a>(lines: &[&'a str], name: &str) -> Option<&'a str> {
    let value = lines.iter().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DPKG: &str = "\
Package: libc6
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Source: glibc (2.41-12)
Version: 2.41-12
Description: GNU C Library
 Package: indented lines go on

Package: gone
Status: deinstall ok config-files
Version: 1

Package: halved
Status: install ok installed
";

    #[test]
    fn dpkg_lists_what_is_installed_and_has_a_version() {
        let libc = Package {
            name: "libc6".to_owned(),
            version: "2.41-12".to_owned(),
            architecture: "amd64".to_owned(),
            kind: Kind::Deb,
            maintainer: Some("GNU Libc Maintainers <debian-glibc@lists.debian.org>".to_owned()),
            source: Some("glibc".to_owned()),
        };
        assert_eq!(dpkg(DPKG), [libc]);
    }

    #[test]
    fn apk_lists_each_stanza_with_name_and_version() {
        let text = "C:Q1abc=\nP:musl\nV:1.2.5-r9\nA:x86_64\no:musl\nm:A B <a@b.c>\nF:lib\nR:ld\n\nP:no-version\n\n\n";
        let found = apk(text);
        assert_eq!(found.len(), 1);
        let musl = &found[0];
        assert_eq!(
            (&*musl.name, &*musl.version, &*musl.architecture),
            ("musl", "1.2.5-r9", "x86_64")
        );
        assert_eq!(musl.source, None);
    }

    #[test]
    fn the_distribution_is_read_without_quotes() {
        let found = os_release(
            "PRETTY_NAME=\"x\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='13'\nID=debian\n",
        );
        let system = System {
            id: "debian".to_owned(),
            version: "13".to_owned(),
            name: "Debian GNU/Linux".to_owned(),
        };
        assert_eq!(found, Some(system));
        assert_eq!(os_release("NAME=x\n"), None);
    }
}

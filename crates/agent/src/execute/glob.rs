//! Patterns of paths: `*` and `?` match within a component, `**` any number of components. Every other character is
//! itself. A name that begins with a dot is like any other.

/// Bytes of the longest pattern.
const MAX_BYTES: usize = 4095;

/// A pattern, split into components.
#[derive(Debug)]
pub struct Pattern<'a> {
    components: Vec<&'a [u8]>,
}

impl<'a> Pattern<'a> {
    /// An error says what is wrong with the pattern.
    pub fn new(pattern: &'a str) -> Result<Self, &'static str> {
        if pattern.is_empty() {
            return Err("is empty");
        }
        if pattern.len() > MAX_BYTES {
            return Err("is longer than 4095 bytes");
        }
        if pattern.starts_with('/') {
            return Err("is absolute");
        }
        let components: Vec<_> = pattern.split('/').map(str::as_bytes).collect();
        for component in &components {
            match *component {
                b".." => return Err("contains `..`"),
                b"" | b"." => return Err("contains an empty or `.` part"),
                _ => {}
            }
        }
        Ok(Pattern { components })
    }

    /// True if it matches the whole of `path`, which is relative and has no empty component.
    pub fn matches(&self, path: &[u8]) -> bool {
        let path: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let any = |component: &&[u8]| *component == b"**";
        all_match(&self.components, &path, any, |component, rest| {
            name_matches(component, rest[0]).then_some(1)
        })
    }
}

fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let any = |byte: &u8| *byte == b'*';
    all_match(pattern, name, any, |wanted, rest| match wanted {
        b'?' => Some(character(rest)),
        wanted => (*wanted == rest[0]).then_some(1),
    })
}

/// Bytes of the UTF-8 character that `rest` begins with; 1 if it begins with none.
fn character(rest: &[u8]) -> usize {
    if rest[0] < 0xc0 {
        return 1;
    }
    let continued = rest[1..].iter().take(3);
    1 + continued.take_while(|byte| **byte & 0xc0 == 0x80).count()
}

/// Matches all of `text`. Items of the pattern for which `any` holds match any number of items of the text; `one` returns
/// how many another one matches at the start of what is left. Only the last `any` item is ever tried again, because an
/// earlier one could match nothing that it does not: the time is at most the product of both lengths.
fn all_match<P, T>(
    pattern: &[P],
    text: &[T],
    any: impl Fn(&P) -> bool,
    one: impl Fn(&P, &[T]) -> Option<usize>,
) -> bool {
    let (mut at, mut from) = (0, 0);
    // After the last `any` item, and where its match ends.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(at) {
            Some(item) if any(item) => {
                at += 1;
                retry = Some((at, from));
                continue;
            }
            Some(item) if from < text.len() => one(item, &text[from..]),
            Some(_) => None,
            None if from == text.len() => return true,
            None => None,
        };
        match (step, retry) {
            (Some(length), _) => (at, from) = (at + 1, from + length),
            (None, Some((after, end))) if end < text.len() => {
                retry = Some((after, end + 1));
                (at, from) = (after, end + 1);
            }
            (None, _) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn a_star_matches_within_a_component() {
        for path in ["a.txt", ".txt", "long name.txt", "a.txt.txt"] {
            assert!(matches("*.txt", path), "{path}");
        }
        for path in ["a.txt.gz", "b/a.txt", "txt"] {
            assert!(!matches("*.txt", path), "{path}");
        }
        assert!(matches("out/*/r*t", "out/1/result"));
        assert!(!matches("out/*/r*t", "out/1/2/result"));
        assert!(!matches("out/*", "out"));
    }

    #[test]
    fn two_stars_match_any_number_of_components() {
        for path in ["a", "x/a", "x/y/a"] {
            assert!(matches("**/a", path), "{path}");
            assert!(matches("**", path), "{path}");
        }
        assert!(matches("x/**/a", "x/a"));
        assert!(matches("x/**/y/**/a", "x/1/y/2/y/3/a"));
        assert!(!matches("x/**/a", "x/1/b"));
        assert!(!matches("**/a", "xa"));
    }

    #[test]
    fn a_question_mark_is_one_character() {
        assert!(matches("?.c", "é.c"));
        assert!(matches("a?c", "abc"));
        assert!(!matches("a?c", "ac"));
        assert!(!matches("a?c", "a/c"));
        assert!(!matches("?", "éé"));
    }

    #[test]
    fn other_characters_are_themselves() {
        assert!(matches("[ab]{c}\\!", "[ab]{c}\\!"));
        assert!(!matches("[ab]", "a"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(1000) + "b";
        let name = "a".repeat(4000);
        assert!(!matches(&pattern, &name));
        let pattern = "**/a/".repeat(500) + "b";
        assert!(!matches(&pattern, &"a/".repeat(2000)[..3999]));
    }

    #[test]
    fn patterns_out_of_the_directory_are_refused() {
        for pattern in ["", "/etc/*", "../*", "a/../b", "a//b", "./a", "a/"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }
}

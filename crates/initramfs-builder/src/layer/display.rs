//! Makes names of an image safe for messages.

/// Characters after which a path is cut.
const SHOWN: usize = 200;

/// A path as text: bytes that are not UTF-8 as U+FFFD, control characters escaped (they could control the terminal),
/// cut if very long.
pub fn display_path(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == SHOWN {
            shown.push_str("...");
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(display_path(b"a\x1b[31m\nb"), "a\\u{1b}[31m\\nb");
    }

    #[test]
    fn long_paths_are_cut() {
        assert_eq!(display_path(&[b'a'; 4000]).len(), SHOWN + 3);
    }
}

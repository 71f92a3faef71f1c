//! Names from an image, made fit for a message.

/// The longest path that a message shows, in characters.
const SHOWN: usize = 200;

/// A path as text: bytes that are not UTF-8 as U+FFFD, control characters escaped so that a name
/// cannot speak to the terminal, and cut when very long.
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

//! `language.toml`, and after a NUL the code of a program, in which the language finds names.
#![no_main]

use cloude_engine::languages::{Source, check_path};
use cloude_fuzz::bounded;
use cloude_protocol::languages::parse_text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    bounded(64 << 20, || {
        let (toml, code) = text.split_once('\0').unwrap_or((text, "class A {}"));
        let Ok(language) = parse_text(toml) else {
            return;
        };
        let written = serde_json::to_vec(&language).unwrap();
        assert_eq!(
            serde_json::from_slice::<cloude_protocol::language::Language>(&written).unwrap(),
            language
        );
        if let Ok(source) = Source::of(&language, code, Some("file.js")) {
            // Checked before anything is written.
            let _ = check_path(&source.file);
        }
    });
});

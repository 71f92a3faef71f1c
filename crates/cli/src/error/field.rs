//! The command-line options that fields of a request come from.

/// The option of a field that a problem document names, such as `--memory` of `limits.memory_bytes`.
pub fn option(field: &str) -> Option<String> {
    let compile = field.strip_prefix("limits.compile.");
    if let Some(limit) = compile {
        return Some(match limit {
            "wall_time_ms" => "--compile-timeout".to_owned(),
            limit => format!("--limit compile.{}", name(limit)),
        });
    }
    if let Some(limit) = field.strip_prefix("limits.") {
        return Some(match limit {
            "wall_time_ms" => "--timeout".to_owned(),
            "memory_bytes" => "--memory".to_owned(),
            "vcpus" => "--vcpus".to_owned(),
            "output_bytes" => "--output-limit".to_owned(),
            limit => format!("--limit {}", name(limit)),
        });
    }
    // `files[2].path` and `env.LANG` come from the options of the whole.
    let end = field.find(['.', '[']).unwrap_or(field.len());
    let option = match &field[..end] {
        "language" => "--language",
        "version" => "--language-version",
        "compile_options" => "--compile-option",
        "entrypoint" => "--entrypoint",
        "files" => "--file",
        "env" => "--env",
        "secrets" => "--secret",
        "stdin" => "--stdin",
        "interactive" => "--interactive",
        "network" => "--network",
        "user" => "--user",
        "unconfined" => "--unconfined",
        "artifacts" => "--artifact",
        "labels" | "label" => "--label",
        "callback_url" => "--callback",
        "on_output_limit" => "--on-output-limit",
        "start" => "--start",
        "status" => "--status",
        "memory_mib" => "--memory",
        "vcpus" => "--vcpus",
        "name" => "--name",
        "scopes" => "--scope",
        "expires_s" => "--expires",
        _ => return None,
    };
    Some(option.to_owned())
}

/// The name of a limit in `--limit`, without the field's unit.
fn name(field: &str) -> &str {
    match field {
        "artifact_bytes" => "artifacts",
        "file_bytes" => "file_size",
        field => field
            .strip_suffix("_ms")
            .or_else(|| field.strip_suffix("_bytes"))
            .unwrap_or(field),
    }
}

#[cfg(test)]
mod tests {
    use super::option;

    #[test]
    fn fields_have_the_option_that_sets_them() {
        let table = [
            ("limits.memory_bytes", Some("--memory")),
            ("limits.disk_bytes", Some("--limit disk")),
            ("limits.file_bytes", Some("--limit file_size")),
            ("limits.compile.wall_time_ms", Some("--compile-timeout")),
            ("limits.compile.stack_bytes", Some("--limit compile.stack")),
            ("files[2].path", Some("--file")),
            ("env.LANG", Some("--env")),
            ("something_new", None),
        ];
        for (field, expected) in table {
            assert_eq!(option(field).as_deref(), expected, "{field}");
        }
    }
}

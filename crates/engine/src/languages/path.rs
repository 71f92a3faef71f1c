//! Paths of files in an execution's work directory.

/// A path inside the work directory: relative, without `..`, and not the directory itself.
pub fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("a path must not be empty".into());
    }
    // PATH_MAX of include/uapi/linux/limits.h, less room for the work directory.
    if path.len() > 4000 {
        return Err("a path must be at most 4000 bytes".into());
    }
    if path.contains('\0') {
        return Err("a path must not hold a zero byte".into());
    }
    if path.starts_with('/') {
        return Err("a path must be relative to the work directory".into());
    }
    // NAME_MAX of the same file.
    if path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == ".." || part.len() > 255)
    {
        return Err("a path must not hold `.`, `..`, empty names or names over 255 bytes".into());
    }
    Ok(())
}

// Shows the work directory: cloude run examples/tree.rs --file README.md
use std::path::Path;

fn show(path: &Path, depth: usize) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let metadata = entry.metadata()?;
        println!("{:>9} {}{}", metadata.len(), "  ".repeat(depth), entry.file_name().to_string_lossy());
        if metadata.is_dir() {
            show(&entry.path(), depth + 1)?;
        }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    show(Path::new("."), 0)
}

use std::io::Read;

fn main() -> std::io::Result<()> {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    let total: i64 = input.lines().filter_map(|line| line.parse::<i64>().ok()).sum();
    println!("sum of stdin: {total}");
    println!("args: {}", std::env::args().skip(1).collect::<Vec<_>>().join(", "));
    std::fs::write("note.txt", "written by Rust\n")?;
    println!("file: {}", std::fs::read_to_string("note.txt")?.trim());
    eprintln!("this line is not part of it");
    std::process::exit(10)
}

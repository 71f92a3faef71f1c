// corpus: stdin = "3 4\nsecond\nlast without end"
use std::io::{self, BufRead, Read, Write};

fn main() -> io::Result<()> {
    let mut input = io::stdin().lock();
    let mut line = String::new();
    println!("{} {line:?}", input.read_line(&mut line)?);
    let mut rest = Vec::new();
    println!("{} {:?}", input.read_to_end(&mut rest)?, String::from_utf8(rest));
    println!("{}", input.read(&mut [0; 4])?);
    io::stdout().write_all(&[0xff, 0xfe, b'\n'])?;
    io::stderr().write_all(b"to standard error\n")
}

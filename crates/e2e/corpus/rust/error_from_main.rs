// corpus: exit_code = 1
use std::num::ParseIntError;

fn main() -> Result<(), ParseIntError> {
    println!("before");
    let number: i32 = "not a number".parse()?;
    println!("never {number}");
    Ok(())
}

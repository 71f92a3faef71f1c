// corpus: exit_code = 1
fn main() {
    let text = String::from("moved");
    let other = text;
    println!("{text} {other}");
    let number: u8 = "a text";
}

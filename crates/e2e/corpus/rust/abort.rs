// corpus: signal = 6
fn main() {
    print!("what is in the buffer of standard output is lost");
    eprint!("what goes to standard error is not");
    std::process::abort();
}

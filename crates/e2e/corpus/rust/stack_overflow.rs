// Rust's SIGSEGV handler for the guard page prints the reason.
// corpus: signal = 6
fn down(depth: u64, text: &mut [u8; 1024]) -> u64 {
    let mut next = *text;
    next[0] = next[0].wrapping_add(1);
    if depth == u64::MAX { 0 } else { down(depth + 1, &mut next) + u64::from(next[1]) }
}

fn main() {
    println!("before");
    println!("{}", down(0, &mut [1; 1024]));
}

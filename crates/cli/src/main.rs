//! `cloude`.
fn main() {}

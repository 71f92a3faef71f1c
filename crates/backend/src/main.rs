//! `clouded`.
fn main() {}

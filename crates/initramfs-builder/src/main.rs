//! `cloude-initramfs`.
fn main() {}

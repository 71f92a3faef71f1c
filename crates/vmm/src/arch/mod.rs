//! What a machine is made of, by architecture. There is one: x86-64.

pub mod x86_64;

pub use x86_64::layout;

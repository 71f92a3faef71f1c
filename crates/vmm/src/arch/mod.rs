//! The parts of a machine that depend on the architecture. Only x86-64 exists.

pub mod x86_64;

pub use x86_64::layout;

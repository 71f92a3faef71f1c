//! The console: a 16550 serial port, COM1.

mod device;
mod sink;

pub use device::{INPUT_LIMIT, SIZE, Serial};
pub use sink::ConsoleSink;

//! Power-off and reset: the registers that the FADT names, and the older ways to ask for a reset.

mod legacy;
mod sleep;

pub use legacy::{KeyboardController, ResetControl};
pub use sleep::{
    PowerControl, RESET, RESET_VALUE, S5_SLEEP_TYPE, SIZE, SLEEP_CONTROL, SLEEP_STATUS,
};

//! Power-off and reset: the sleep and reset registers of the FADT, and the legacy PC resets.

mod legacy;
mod sleep;

pub use legacy::{KeyboardController, ResetControl};
pub use sleep::{
    PowerControl, RESET, RESET_VALUE, S5_SLEEP_TYPE, SIZE, SLEEP_CONTROL, SLEEP_STATUS,
};

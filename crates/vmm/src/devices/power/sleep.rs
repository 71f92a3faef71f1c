//! The sleep and reset registers of hardware-reduced ACPI (ACPI 6.5, section 4.8.3.7).

use crate::control::ExitReason;
use crate::devices::{BusDevice, Device};
use crate::exit::ExitSignal;

/// Offset of the sleep control register.
pub const SLEEP_CONTROL: u64 = 0;
/// Offset of the sleep status register.
pub const SLEEP_STATUS: u64 = 1;
/// Offset of the reset register.
pub const RESET: u64 = 2;
/// Number of ports.
pub const SIZE: u64 = 4;

/// The value that resets when written to [`RESET`].
pub const RESET_VALUE: u8 = 1;
/// SLP_TYP of S5 (soft off).
pub const S5_SLEEP_TYPE: u8 = 5;

const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 7;
const SLEEP_ENABLE: u8 = 1 << 5;

/// Ends the VM when the guest powers off or resets through ACPI. Has no state.
pub struct PowerControl(ExitSignal);

impl PowerControl {
    /// A device that raises `exit`.
    pub fn new(exit: ExitSignal) -> Self {
        Self(exit)
    }
}

impl Device for PowerControl {
    fn name(&self) -> &'static str {
        "power"
    }
}

impl BusDevice for PowerControl {
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Some(value) = data.first() else { return };
        let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
        match offset {
            SLEEP_CONTROL if value & SLEEP_ENABLE != 0 && sleep_type == S5_SLEEP_TYPE => {
                self.0.raise(ExitReason::PowerOff);
            }
            RESET if *value == RESET_VALUE => self.0.raise(ExitReason::Reset),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_write(offset: u64, value: u8) -> Option<ExitReason> {
        let exit = ExitSignal::new().unwrap();
        PowerControl::new(exit.clone()).write(offset, &[value]);
        exit.reason()
    }

    #[test]
    fn soft_off_powers_off() {
        let value = S5_SLEEP_TYPE << SLEEP_TYPE_SHIFT | SLEEP_ENABLE;
        assert_eq!(
            after_write(SLEEP_CONTROL, value),
            Some(ExitReason::PowerOff)
        );
    }

    #[test]
    fn only_s5_with_sleep_enable_powers_off() {
        assert_eq!(
            after_write(SLEEP_CONTROL, S5_SLEEP_TYPE << SLEEP_TYPE_SHIFT),
            None
        );
        assert_eq!(
            after_write(SLEEP_CONTROL, 3 << SLEEP_TYPE_SHIFT | SLEEP_ENABLE),
            None
        );
    }

    #[test]
    fn only_the_reset_value_resets() {
        assert_eq!(after_write(RESET, RESET_VALUE), Some(ExitReason::Reset));
        assert_eq!(after_write(RESET, 0), None);
    }
}

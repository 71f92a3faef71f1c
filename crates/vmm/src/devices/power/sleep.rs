//! The sleep and reset registers of hardware-reduced ACPI (ACPI 6.5, section 4.8.3.7).

use crate::control::ExitReason;
use crate::devices::{BusDevice, Device};
use crate::exit::ExitSignal;

/// The sleep control register.
pub const SLEEP_CONTROL: u64 = 0;
/// The sleep status register.
pub const SLEEP_STATUS: u64 = 1;
/// The reset register.
pub const RESET: u64 = 2;
/// How many ports there are.
pub const SIZE: u64 = 4;

/// What to write to [`RESET`].
pub const RESET_VALUE: u8 = 1;
/// The SLP_TYP that means "soft off".
pub const S5_SLEEP_TYPE: u8 = 5;

const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 7;
const SLEEP_ENABLE: u8 = 1 << 5;

/// Ends the VM when the guest powers off or resets through ACPI. Keeps no state.
pub struct PowerControl(ExitSignal);

impl PowerControl {
    /// Ends the VM through `exit`.
    pub fn new(exit: ExitSignal) -> Self {
        Self(exit)
    }
}

/// The FADT names the registers.
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
    fn a_sleep_type_without_enable_or_another_one_does_nothing() {
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
    fn the_reset_register_resets_on_its_value_alone() {
        assert_eq!(after_write(RESET, RESET_VALUE), Some(ExitReason::Reset));
        assert_eq!(after_write(RESET, 0), None);
    }
}

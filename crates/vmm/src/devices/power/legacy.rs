//! The legacy PC resets: the keyboard controller's reset pulse, and port 0xcf9.

use vm_superio::{I8042Device, Trigger};

use crate::control::ExitReason;
use crate::devices::{BusDevice, Device};
use crate::exit::ExitSignal;

struct Reset(ExitSignal);

impl Trigger for Reset {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.raise(ExitReason::Reset);
        Ok(())
    }
}

/// The reset part of an i8042 keyboard controller, at ports 0x60 to 0x64. Has no state.
pub struct KeyboardController(I8042Device<Reset>);

impl KeyboardController {
    /// The first port.
    pub const PORT: u16 = 0x60;
    /// Number of ports.
    pub const SIZE: u64 = 5;

    /// A device that raises `exit` with [`ExitReason::Reset`].
    pub fn new(exit: ExitSignal) -> Self {
        Self(I8042Device::new(Reset(exit)))
    }
}

impl Device for KeyboardController {
    fn name(&self) -> &'static str {
        "keyboard-controller"
    }
}

impl BusDevice for KeyboardController {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(self.0.read(offset as u8));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let [value] = data {
            let Ok(()) = self.0.write(offset as u8, *value);
        }
    }
}

/// The reset control register of a PC chipset, at port 0xcf9. Has no state.
pub struct ResetControl(ExitSignal);

impl ResetControl {
    /// The port.
    pub const PORT: u16 = 0xcf9;
    /// Number of ports.
    pub const SIZE: u64 = 1;
    /// RST_CPU: its rising edge resets.
    const RESET_CPU: u8 = 1 << 2;

    /// A device that raises `exit` with [`ExitReason::Reset`].
    pub fn new(exit: ExitSignal) -> Self {
        Self(exit)
    }
}

impl Device for ResetControl {
    fn name(&self) -> &'static str {
        "reset-control"
    }
}

impl BusDevice for ResetControl {
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _: u64, data: &[u8]) {
        if data
            .first()
            .is_some_and(|value| value & Self::RESET_CPU != 0)
        {
            self.0.raise(ExitReason::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::StateError;

    #[test]
    fn the_keyboard_controller_resets_on_its_pulse_alone() {
        let exit = ExitSignal::new().unwrap();
        let mut device = KeyboardController::new(exit.clone());
        device.write(4, &[0xd1]);
        device.write(0, &[0xfe]);
        assert_eq!(exit.reason(), None);
        device.write(4, &[0xfe]);
        assert_eq!(exit.reason(), Some(ExitReason::Reset));
    }

    #[test]
    fn a_device_without_state_refuses_one() {
        let mut device = ResetControl::new(ExitSignal::new().unwrap());
        let state = device.save().unwrap();
        assert!(device.restore(&state).is_ok());
        let error = device.restore(&[1]).unwrap_err();
        assert!(matches!(error, StateError::Invalid { .. }));
    }

    #[test]
    fn the_reset_control_register_resets_on_the_reset_bit_alone() {
        let exit = ExitSignal::new().unwrap();
        let mut device = ResetControl::new(exit.clone());
        device.write(0, &[2]);
        assert_eq!(exit.reason(), None);
        device.write(0, &[6]);
        assert_eq!(exit.reason(), Some(ExitReason::Reset));
    }
}

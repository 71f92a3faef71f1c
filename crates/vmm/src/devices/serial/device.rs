//! The 16550 itself, around vm-superio's registers.

use std::collections::VecDeque;
use std::io;

use acpi_tables::{Aml, aml};
use serde::{Deserialize, Serialize};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, SerialState};
use vmm_sys_util::eventfd::EventFd;

use super::ConsoleSink;
use crate::arch::layout;
use crate::devices::{BusDevice, Device, StateError};

/// How many ports there are.
pub const SIZE: u64 = 8;

/// How many bytes of input wait for the guest at most.
pub const INPUT_LIMIT: usize = 64 << 10;

/// Bit of the interrupt identification register (IIR): no interrupt is pending.
const NO_INTERRUPT: u8 = 1;

/// Raises an interrupt by writing to KVM's irqfd.
struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// COM1.
///
/// Output goes to a [`ConsoleSink`], which never waits. Input waits in a bounded queue and moves on
/// to the port's FIFO as the guest reads.
pub struct Serial {
    port: vm_superio::Serial<Interrupt, NoEvents, ConsoleSink>,
    input: VecDeque<u8>,
    /// Input was refused, and whoever typed it waits for room.
    refused: bool,
    /// Told when there is room again for input that was refused.
    input_room: Option<EventFd>,
}

/// What a snapshot keeps.
#[derive(Serialize, Deserialize)]
struct State {
    baud_divisor_low: u8,
    baud_divisor_high: u8,
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    fifo: Vec<u8>,
    input: Vec<u8>,
}

impl Serial {
    /// A port that interrupts through `irqfd`.
    pub fn new(irqfd: EventFd, sink: ConsoleSink) -> Self {
        Self {
            port: vm_superio::Serial::new(Interrupt(irqfd), sink),
            input: VecDeque::new(),
            refused: false,
            input_room: None,
        }
    }

    /// The descriptor to write to when there is room again for input that was refused.
    pub fn notify_input_room(&mut self, event: EventFd) {
        self.input_room = Some(event);
    }

    /// Types `bytes`. Gives how many were taken: the rest has no room now.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(INPUT_LIMIT - self.input.len());
        self.input.extend(&bytes[..count]);
        self.feed();
        self.refused |= count < bytes.len();
        count
    }

    /// Where output goes.
    pub fn sink(&self) -> &ConsoleSink {
        self.port.writer()
    }

    /// Moves input to the FIFO as far as there is room, once the guest listens: a driver empties the
    /// FIFO when it takes the port over, and what was typed before would be lost.
    fn feed(&mut self) {
        if !self.listens() {
            return;
        }
        while !self.input.is_empty() && self.port.fifo_capacity() > 0 {
            let (chunk, _) = self.input.as_slices();
            match self.port.enqueue_raw_bytes(chunk) {
                // The guest has the port in loopback mode: the input waits.
                Ok(0) => break,
                Ok(count) => drop(self.input.drain(..count)),
                // The interrupt's counter is full: one is pending already.
                Err(_) => break,
            }
        }
        if self.refused && self.input.len() < INPUT_LIMIT {
            self.refused = false;
            // A full counter means that the reader is due to come already.
            let _ = self.input_room.as_ref().map(|event| event.write(1));
        }
    }
}

impl Device for Serial {
    fn name(&self) -> &'static str {
        "serial"
    }

    fn resume(&mut self) {
        self.feed();
        // KVM injects an irqfd's interrupt from a work queue, so one may have been on its way when the state
        // was saved. One too many is harmless: the handler reads the IIR. One too few hangs a transmit.
        if self.port.state().interrupt_identification & NO_INTERRUPT == 0 {
            // A full counter means that an interrupt is pending already.
            let _ = self.port.interrupt_evt().trigger();
        }
    }

    fn save(&self) -> Result<serde_json::Value, StateError> {
        let port = self.port.state();
        let state = State {
            baud_divisor_low: port.baud_divisor_low,
            baud_divisor_high: port.baud_divisor_high,
            interrupt_enable: port.interrupt_enable,
            interrupt_identification: port.interrupt_identification,
            line_control: port.line_control,
            line_status: port.line_status,
            modem_control: port.modem_control,
            modem_status: port.modem_status,
            scratch: port.scratch,
            fifo: port.in_buffer,
            input: self.input.iter().copied().collect(),
        };
        serde_json::to_value(state).map_err(|source| StateError::Format {
            device: "serial",
            source,
        })
    }

    fn restore(&mut self, state: &serde_json::Value) -> Result<(), StateError> {
        let state = State::deserialize(state).map_err(|source| StateError::Format {
            device: "serial",
            source,
        })?;
        if state.input.len() > INPUT_LIMIT {
            return Err(StateError::Invalid {
                device: "serial",
                what: format!(
                    "{} bytes of input wait; {INPUT_LIMIT} can",
                    state.input.len()
                ),
            });
        }
        let port = SerialState {
            baud_divisor_low: state.baud_divisor_low,
            baud_divisor_high: state.baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.fifo,
        };
        self.rebuild(&port).map_err(|what| StateError::Invalid {
            device: "serial",
            what,
        })?;
        self.input = state.input.into();
        Ok(())
    }

    fn acpi_node(&self) -> Vec<u8> {
        let port = layout::SERIAL_PORT;
        let mut node = Vec::new();
        aml::Device::new(
            "COM1".into(),
            vec![
                &aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0501")),
                &aml::Name::new("_UID".into(), &0u8),
                &aml::Name::new(
                    "_CRS".into(),
                    &aml::ResourceTemplate::new(vec![
                        &aml::Interrupt::new(true, true, false, false, layout::SERIAL_GSI),
                        &aml::IO::new(port, port, 1, SIZE as u8),
                    ]),
                ),
            ],
        )
        .to_aml_bytes(&mut node);
        node
    }
}

impl Serial {
    /// Whether the guest has the interrupt for received data on.
    fn listens(&mut self) -> bool {
        const LINE_CONTROL: u8 = 3;
        const DIVISOR_ACCESS: u8 = 1 << 7;
        const INTERRUPT_ENABLE: u8 = 1;
        const RECEIVED_DATA: u8 = 1;
        self.port.read(LINE_CONTROL) & DIVISOR_ACCESS == 0
            && self.port.read(INTERRUPT_ENABLE) & RECEIVED_DATA != 0
    }

    /// A port in another state, with the same interrupt and sink.
    fn rebuild(&mut self, state: &SerialState) -> Result<(), String> {
        let irqfd = self.port.interrupt_evt().0.try_clone();
        let irqfd = irqfd.map_err(|error| error.to_string())?;
        // Tried without the sink first: a refused state must not lose it.
        let trial = irqfd.try_clone().map_err(|error| error.to_string())?;
        vm_superio::Serial::from_state(state, Interrupt(trial), NoEvents, io::sink())
            .map_err(|error| error.to_string())?;
        let sink = self.port.writer_mut().take();
        self.port = vm_superio::Serial::from_state(state, Interrupt(irqfd), NoEvents, sink)
            .map_err(|error| error.to_string())?;
        Ok(())
    }

    fn register_write(&mut self, register: u8, value: u8) {
        // An error is an interrupt whose counter is full, and so pending; the sink gives none.
        let _ = self.port.write(register, value);
    }
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let [value] = data {
            *value = self.port.read(offset as u8);
            self.feed();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let [value] = data {
            self.register_write(offset as u8, *value);
            self.feed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    const DATA: u64 = 0;
    const INTERRUPT_ENABLE: u64 = 1;
    const INTERRUPT_IDENTIFICATION: u64 = 2;
    const LINE_STATUS: u64 = 5;
    /// Bit of [`INTERRUPT_ENABLE`].
    const TRANSMITTER_EMPTY: u8 = 2;

    fn serial(out: Option<std::os::fd::OwnedFd>) -> Serial {
        let irqfd = EventFd::new(EFD_NONBLOCK).unwrap();
        Serial::new(irqfd, ConsoleSink::new(out).unwrap())
    }

    fn read(serial: &mut Serial, register: u64) -> u8 {
        let mut data = [0];
        serial.read(register, &mut data);
        data[0]
    }

    #[test]
    fn what_the_guest_writes_comes_out() {
        let (output, write) = rustix::pipe::pipe().unwrap();
        let mut serial = serial(Some(write));
        serial.write(DATA, b"a");
        let mut data = [0; 4];
        assert_eq!(rustix::io::read(output.as_fd(), &mut data).unwrap(), 1);
        assert_eq!(data[0], b'a');
    }

    #[test]
    fn input_larger_than_the_fifo_arrives_whole_and_in_order() {
        let mut serial = serial(None);
        serial.write(INTERRUPT_ENABLE, &[1]);
        let typed: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
        assert_eq!(serial.input(&typed), typed.len());
        let mut got = Vec::new();
        while read(&mut serial, LINE_STATUS) & 1 != 0 {
            got.push(read(&mut serial, DATA));
        }
        assert_eq!(got, typed);
    }

    #[test]
    fn what_was_typed_before_the_guest_listens_waits() {
        let mut serial = serial(None);
        serial.input(b"a");
        assert_eq!(read(&mut serial, LINE_STATUS) & 1, 0);
        serial.write(INTERRUPT_ENABLE, &[1]);
        assert_eq!(read(&mut serial, DATA), b'a');
    }

    #[test]
    fn a_full_queue_takes_no_more_until_the_guest_reads_and_then_says_so() {
        let mut serial = serial(None);
        let room = EventFd::new(EFD_NONBLOCK).unwrap();
        serial.write(INTERRUPT_ENABLE, &[1]);
        serial.notify_input_room(room.try_clone().unwrap());
        let taken = serial.input(&vec![b'x'; INPUT_LIMIT]) + serial.input(&vec![b'x'; INPUT_LIMIT]);
        assert!(taken < 2 * INPUT_LIMIT);
        assert_eq!(serial.input(b"x"), 0);
        assert!(room.read().is_err());
        read(&mut serial, DATA);
        assert_eq!(room.read().unwrap(), 1);
        assert_eq!(serial.input(b"xx"), 1);
    }

    #[test]
    fn a_saved_port_goes_on_where_it_was() {
        let mut first = serial(None);
        first.write(INTERRUPT_ENABLE, &[1]);
        first.input(&[b'y'; 100]);
        first.write(7, &[0x5a]);
        let state = first.save().unwrap();
        let mut second = serial(None);
        second.restore(&state).unwrap();
        assert_eq!(read(&mut second, 7), 0x5a);
        assert_eq!(second.save().unwrap(), state);
    }

    #[test]
    fn a_state_of_another_shape_is_refused() {
        let mut serial = serial(None);
        let error = serial.restore(&serde_json::json!({"fifo": 3})).unwrap_err();
        assert!(matches!(error, StateError::Format { .. }));
    }

    #[test]
    fn an_interrupt_that_is_pending_at_the_save_is_raised_at_the_resume() {
        let mut first = serial(None);
        first.write(INTERRUPT_ENABLE, &[TRANSMITTER_EMPTY]);
        let state = first.save().unwrap();
        let mut second = serial(None);
        second.restore(&state).unwrap();
        let irqfd = second.port.interrupt_evt().0.try_clone().unwrap();
        let _ = irqfd.read();

        second.resume();

        assert_eq!(irqfd.read().unwrap(), 1);
    }

    #[test]
    fn a_port_without_a_pending_interrupt_raises_none_at_the_resume() {
        let mut port = serial(None);
        port.write(INTERRUPT_ENABLE, &[TRANSMITTER_EMPTY]);
        let irqfd = port.port.interrupt_evt().0.try_clone().unwrap();
        // The handler's read of the IIR.
        read(&mut port, INTERRUPT_IDENTIFICATION);
        let _ = irqfd.read();

        port.resume();

        assert!(irqfd.read().is_err());
    }
}

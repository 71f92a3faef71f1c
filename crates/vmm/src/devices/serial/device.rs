//! COM1, a 16550A: the registers are vm-superio's; input queue, ACPI node and state are ours.

use std::collections::VecDeque;
use std::io;

use acpi_tables::{Aml, aml};
use serde::{Deserialize, Serialize};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, SerialState};
use vmm_sys_util::eventfd::EventFd;

use super::ConsoleSink;
use crate::arch::layout;
use crate::devices::state::{decode, encode};
use crate::devices::{BusDevice, Device, StateError};

const NAME: &str = "serial";

/// Number of ports.
pub const SIZE: u64 = 8;

/// The most bytes of input that wait for the guest.
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

/// The serial port COM1.
///
/// Output goes to a [`ConsoleSink`], which never blocks. Input waits in a queue of [`INPUT_LIMIT`] bytes and moves
/// to the port's FIFO as the guest reads.
pub struct Serial {
    port: vm_superio::Serial<Interrupt, NoEvents, ConsoleSink>,
    input: VecDeque<u8>,
    /// Input was refused, and its sender waits for space.
    refused: bool,
    /// Written when there is space again for refused input.
    input_space: Option<EventFd>,
}

/// The port's state in a snapshot.
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
            input_space: None,
        }
    }

    /// Sets the eventfd to write to when there is space again for refused input.
    pub fn notify_input_space(&mut self, event: EventFd) {
        self.input_space = Some(event);
    }

    /// Queues console input. Returns how many of `bytes` were accepted; the queue is full for the rest.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(INPUT_LIMIT - self.input.len());
        self.input.extend(&bytes[..count]);
        self.feed();
        self.refused |= count < bytes.len();
        count
    }

    /// The sink of the guest's output.
    pub fn sink(&self) -> &ConsoleSink {
        self.port.writer()
    }

    /// Moves input to the FIFO as far as it has space, once the guest has enabled the received-data interrupt:
    /// a driver clears the FIFO when it opens the port, and earlier input would be lost.
    fn feed(&mut self) {
        if !self.receives() {
            return;
        }
        while !self.input.is_empty() && self.port.fifo_capacity() > 0 {
            let (chunk, _) = self.input.as_slices();
            match self.port.enqueue_raw_bytes(chunk) {
                // The port is in loopback mode: the input waits.
                Ok(0) => break,
                Ok(count) => drop(self.input.drain(..count)),
                // The irqfd's counter is full: an interrupt is already pending.
                Err(_) => break,
            }
        }
        if self.refused && self.input.len() < INPUT_LIMIT {
            self.refused = false;
            // A full counter means that the reader has a wake-up pending.
            let _ = self.input_space.as_ref().map(|event| event.write(1));
        }
    }
}

impl Device for Serial {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resume(&mut self) {
        self.feed();
        // KVM injects an irqfd's interrupt from a work queue, so one may have been in flight when the state
        // was saved. A spurious interrupt is harmless (the handler reads the IIR); a lost one hangs a transmit.
        if self.port.state().interrupt_identification & NO_INTERRUPT == 0 {
            // A full counter means that an interrupt is pending already.
            let _ = self.port.interrupt_evt().trigger();
        }
    }

    fn save(&self) -> Result<Vec<u8>, StateError> {
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
        encode(NAME, &state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = decode(NAME, state)?;
        if state.input.len() > INPUT_LIMIT {
            let what = format!(
                "{} bytes of input, at most {INPUT_LIMIT} are possible",
                state.input.len()
            );
            return Err(StateError::invalid(NAME, what));
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
        self.rebuild(&port)
            .map_err(|what| StateError::invalid(NAME, what))?;
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
    /// True if the guest has enabled the received-data interrupt.
    fn receives(&mut self) -> bool {
        const LINE_CONTROL: u8 = 3;
        const DIVISOR_ACCESS: u8 = 1 << 7;
        const INTERRUPT_ENABLE: u8 = 1;
        const RECEIVED_DATA: u8 = 1;
        self.port.read(LINE_CONTROL) & DIVISOR_ACCESS == 0
            && self.port.read(INTERRUPT_ENABLE) & RECEIVED_DATA != 0
    }

    /// Replaces the port by one in `state`, with the same interrupt and sink.
    fn rebuild(&mut self, state: &SerialState) -> Result<(), String> {
        let irqfd = self.port.interrupt_evt().0.try_clone();
        let irqfd = irqfd.map_err(|error| error.to_string())?;
        // Without the sink first: a refused state must not lose it.
        let trial = irqfd.try_clone().map_err(|error| error.to_string())?;
        vm_superio::Serial::from_state(state, Interrupt(trial), NoEvents, io::sink())
            .map_err(|error| error.to_string())?;
        let sink = self.port.writer_mut().take();
        self.port = vm_superio::Serial::from_state(state, Interrupt(irqfd), NoEvents, sink)
            .map_err(|error| error.to_string())?;
        Ok(())
    }

    fn register_write(&mut self, register: u8, value: u8) {
        // The only error is an irqfd whose counter is full, and so an interrupt is pending.
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
    fn guest_output_reaches_the_sink() {
        let (output, write) = rustix::pipe::pipe().unwrap();
        let mut serial = serial(Some(write));
        serial.write(DATA, b"a");
        let mut data = [0; 4];
        assert_eq!(rustix::io::read(output.as_fd(), &mut data).unwrap(), 1);
        assert_eq!(data[0], b'a');
    }

    #[test]
    fn input_larger_than_the_fifo_arrives_in_order() {
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
    fn input_waits_until_the_guest_enables_its_interrupt() {
        let mut serial = serial(None);
        serial.input(b"a");
        assert_eq!(read(&mut serial, LINE_STATUS) & 1, 0);
        serial.write(INTERRUPT_ENABLE, &[1]);
        assert_eq!(read(&mut serial, DATA), b'a');
    }

    #[test]
    fn a_full_input_queue_signals_when_it_has_space_again() {
        let mut serial = serial(None);
        let room = EventFd::new(EFD_NONBLOCK).unwrap();
        serial.write(INTERRUPT_ENABLE, &[1]);
        serial.notify_input_space(room.try_clone().unwrap());
        let taken = serial.input(&vec![b'x'; INPUT_LIMIT]) + serial.input(&vec![b'x'; INPUT_LIMIT]);
        assert!(taken < 2 * INPUT_LIMIT);
        assert_eq!(serial.input(b"x"), 0);
        assert!(room.read().is_err());
        read(&mut serial, DATA);
        assert_eq!(room.read().unwrap(), 1);
        assert_eq!(serial.input(b"xx"), 1);
    }

    #[test]
    fn a_restored_port_continues_where_the_saved_one_stopped() {
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
    fn a_truncated_state_is_refused() {
        let mut serial = serial(None);
        let state = serial.save().unwrap();
        let error = serial.restore(&state[..state.len() - 1]).unwrap_err();
        assert!(matches!(error, StateError::Format { .. }));
    }

    #[test]
    fn an_interrupt_pending_at_the_save_is_raised_at_the_resume() {
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
    fn resume_raises_no_interrupt_if_none_is_pending() {
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

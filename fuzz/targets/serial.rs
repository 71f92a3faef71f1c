//! The serial port: register accesses of a guest, input of a user, saves and restores.
#![no_main]

use cloude_fuzz::{Input, bounded};
use cloude_vmm::devices::serial::{ConsoleSink, INPUT_LIMIT, Serial};
use cloude_vmm::devices::{BusDevice, Device};
use libfuzzer_sys::fuzz_target;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

fn port() -> Serial {
    let sink = ConsoleSink::new(None).unwrap();
    Serial::new(EventFd::new(EFD_NONBLOCK).unwrap(), sink)
}

fuzz_target!(|bytes: &[u8]| {
    bounded(1 << 20, || {
        let mut input = Input::new(bytes);
        let mut serial = port();
        while !input.is_empty() {
            match input.u8() % 8 {
                0..3 => {
                    let register = (input.u8() % 9).into();
                    serial.write(register, &[input.u8()]);
                }
                3..5 => {
                    let register = (input.u8() % 9).into();
                    let mut data = vec![0; usize::from(input.u8() % 3)];
                    serial.read(register, &mut data);
                }
                5 => {
                    let typed = vec![b'x'; input.u16().into()];
                    assert!(serial.input(&typed) <= INPUT_LIMIT);
                }
                6 => {
                    let saved = serial.save().unwrap();
                    let mut twin = port();
                    twin.restore(&saved).expect("a saved state can be restored");
                    assert_eq!(twin.save().unwrap(), saved);
                    twin.resume();
                    serial = twin;
                }
                // A state that no port has saved, of a damaged snapshot.
                _ => {
                    let state = input.chunk();
                    let mut twin = port();
                    if twin.restore(state).is_ok() {
                        let saved = twin.save().unwrap();
                        twin.resume();
                        assert_eq!(saved.len(), state.len());
                        serial = twin;
                    }
                }
            }
        }
    });
});

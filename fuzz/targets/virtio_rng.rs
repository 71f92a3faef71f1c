//! The entropy device behind `MmioTransport`: the input is a list of steps of a driver.
#![no_main]

use cloude_fuzz::virtio::Machine;
use cloude_fuzz::{Input, bounded};
use cloude_vmm::devices::virtio::rng::Rng;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    bounded(1 << 20, || {
        let mut input = Input::new(bytes);
        let mut machine = Machine::new(Rng);
        machine.start(u64::MAX);
        while !input.is_empty() {
            machine.step(&mut input, || Rng);
            machine.run();
        }
    });
});

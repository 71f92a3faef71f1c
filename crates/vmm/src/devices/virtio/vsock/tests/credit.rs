//! Credit against a model (spec 5.10.6.3): two counters for each direction, and the bytes in order.

use std::io::{Read, Write};

use proptest::prelude::*;

use super::super::BUFFER_SIZE;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// The host writes this many bytes to the stream.
    HostWrites(usize),
    /// The host reads at most this many.
    HostReads(usize),
    /// The guest's program reads this many of what has arrived, and tells the device.
    GuestReads(u32),
    /// The guest's buffer gets this size.
    GuestBuffer(u32),
    /// The guest sends this many bytes, or as many as it has credit for.
    GuestSends(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_usize..9000).prop_map(Step::HostWrites),
        (0_usize..200_000).prop_map(Step::HostReads),
        (0_u32..6000).prop_map(Step::GuestReads),
        (0_u32..9000).prop_map(Step::GuestBuffer),
        (1_usize..30_000).prop_map(Step::GuestSends),
    ]
}

/// Both ends' view of the bytes.
#[derive(Default)]
struct Model {
    /// Host to guest: written to the stream, and received by the guest.
    written: usize,
    arrived: usize,
    /// Guest to host: sent by the guest, read from the stream, and the device's last `fwd_cnt`.
    sent: usize,
    read: usize,
    forwarded: u32,
}

impl Model {
    /// Takes the packets that arrived at the guest and checks each against the credit that the guest gave.
    fn receive(&mut self, guest: &mut Guest) -> Result<(), TestCaseError> {
        while let Some((header, payload)) = guest.try_next() {
            let in_flight = self.arrived as u32 - guest.fwd_cnt;
            if header.op == op::RW {
                let credit = guest.buf_alloc.saturating_sub(in_flight);
                prop_assert!(
                    payload.len() as u32 <= credit,
                    "{} of {credit}",
                    payload.len()
                );
                let upto = self.arrived + payload.len();
                prop_assert_eq!(&pattern(upto)[self.arrived..], &payload[..]);
                self.arrived = upto;
            } else {
                prop_assert!(matches!(header.op, op::CREDIT_REQUEST | op::CREDIT_UPDATE));
            }
            prop_assert_eq!(header.buf_alloc, BUFFER_SIZE);
            // It counts what the stream took, which never shrinks and is no more than was sent.
            prop_assert!(header.fwd_cnt >= self.forwarded && header.fwd_cnt as usize <= self.sent);
            self.forwarded = header.fwd_cnt;
        }
        prop_assert!(self.arrived <= self.written);
        Ok(())
    }

    fn apply(
        &mut self,
        step: &Step,
        guest: &mut Guest,
        stream: &mut UnixStream,
        port: u32,
    ) -> Result<(), TestCaseError> {
        match *step {
            Step::HostWrites(count) => {
                let bytes = pattern(self.written + count).split_off(self.written);
                // A full stream takes a part or nothing.
                self.written += stream.write(&bytes).unwrap_or(0);
            }
            Step::HostReads(count) => {
                let mut bytes = vec![0; count];
                let count = stream.read(&mut bytes).unwrap_or(0);
                let expected = pattern(self.read + count).split_off(self.read);
                prop_assert_eq!(&bytes[..count], &expected[..]);
                self.read += count;
            }
            Step::GuestReads(count) => {
                guest.fwd_cnt += count.min(self.arrived as u32 - guest.fwd_cnt);
                guest.answer(port, op::CREDIT_UPDATE);
            }
            Step::GuestBuffer(size) => {
                guest.buf_alloc = size;
                guest.answer(port, op::CREDIT_UPDATE);
            }
            Step::GuestSends(count) => {
                let credit = BUFFER_SIZE as usize - (self.sent - self.forwarded as usize);
                let count = count.min(credit);
                let bytes = pattern(self.sent + count).split_off(self.sent);
                self.sent += count;
                guest.send_data(port, &bytes);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn credit_is_kept_and_no_byte_is_lost(steps in prop::collection::vec(step(), 1..60)) {
        let (mut guest, mut stream, port) = Guest::connected();
        let mut model = Model::default();
        for step in &steps {
            model.apply(step, &mut guest, &mut stream, port)?;
            guest.driver.run();
            model.receive(&mut guest)?;
        }
        // With credit and readers, everything arrives.
        guest.buf_alloc = GUEST_BUFFER;
        while (model.arrived, model.read) != (model.written, model.sent) {
            let before = (model.arrived, model.read, guest.fwd_cnt);
            for step in [Step::GuestReads(u32::MAX), Step::HostReads(1 << 20)] {
                model.apply(&step, &mut guest, &mut stream, port)?;
                guest.driver.run();
                model.receive(&mut guest)?;
            }
            let after = (model.arrived, model.read, guest.fwd_cnt);
            prop_assert!(after != before, "no progress: {before:?} of {:?}", (model.written, model.sent));
        }
    }
}

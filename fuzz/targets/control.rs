//! Control messages: what a worker that a guest took over could send to the host, and a host to a worker.
#![no_main]

use cloude_fuzz::bounded;
use cloude_vmm::control::{Channel, ChannelError, Event, Request};
use libfuzzer_sys::fuzz_target;
use rustix::net::SendFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Sends raw bytes, receives them as a message, and sends that again.
fn check<M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let (sender, receiver) = Channel::pair().unwrap();
    if bytes.is_empty() || rustix::net::send(&sender, bytes, SendFlags::DONTWAIT).is_err() {
        return;
    }
    let Ok(received) = receiver.try_recv::<M>() else {
        return;
    };
    let (message, descriptors) = received.expect("a message was sent");
    assert!(descriptors.is_empty());
    match sender.try_send(&message, &[]) {
        // JSON that is escaped more than the sender escaped it.
        Err(ChannelError::TooLarge { .. } | ChannelError::Full) => return,
        sent => sent.unwrap(),
    }
    let (again, _) = receiver
        .try_recv::<M>()
        .unwrap()
        .expect("a message was sent");
    assert_eq!(again, message);
}

fuzz_target!(|bytes: &[u8]| {
    bounded(4 << 20, || {
        check::<Event>(bytes);
        check::<Request>(bytes);
    });
});

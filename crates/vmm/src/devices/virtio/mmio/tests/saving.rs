//! Pause, save and restore of the transport.

use super::super::TransportState;
use super::*;
use crate::devices::StateError;
use crate::devices::state::{decode, encode};

#[test]
fn a_paused_device_works_only_after_resume() {
    let mut driver = rng();
    driver.device().pause();
    driver.submit(0, &[(DATA, 8, true)]);
    assert_eq!(driver.used(0), None);
    assert_eq!(driver.interrupts(), 0);
    driver.device().resume();
    driver.run();
    assert!(driver.used(0).is_some());
    assert_eq!(driver.interrupts(), 1);
}

#[test]
fn a_restored_device_continues_where_the_saved_one_stopped() {
    let mut driver = rng();
    driver.submit(0, &[(DATA, 8, true)]);
    driver.used(0);
    // Notified but not processed before the save.
    driver.add(0, &[(DATA, 16, true)]);
    let mut driver = driver.move_to(Rng);
    assert_eq!(driver.used(0), Some((1, 16)));
    assert_eq!(driver.read(STATUS), 0xf);
    let head = driver.submit(0, &[(DATA, 32, true)]);
    assert_eq!(driver.used(0), Some((head, 32)));
}

/// The error of a device that restores a saved state after `change`.
fn refused(change: impl Fn(&mut TransportState)) -> StateError {
    let saved = rng().device().save().unwrap();
    let mut state: TransportState = decode("rng", &saved).unwrap();
    change(&mut state);
    let bytes = encode("rng", &state).unwrap();
    Driver::new(Rng).device().restore(&bytes).unwrap_err()
}

#[test]
fn an_impossible_state_is_refused() {
    type Case = (fn(&mut TransportState), &'static str);
    let changes: [Case; 6] = [
        (|state| state.queues.clear(), "0 queues"),
        (|state| state.driver_features = 1, "negotiated features 0x1"),
        (|state| state.status = 0x100, "status 0x100"),
        (|state| state.device = vec![1], "the device has no state"),
        (|state| state.queues[0].next_avail = 3, "chains in use"),
        (|state| state.queues[0].desc_table = !15, "queue 0"),
    ];
    for (change, expected) in changes {
        let error = refused(change);
        assert!(matches!(error, StateError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_truncated_state_is_refused() {
    let saved = rng().device().save().unwrap();
    let error = Driver::new(Rng).device().restore(&saved[..3]).unwrap_err();
    assert!(matches!(error, StateError::Format { .. }), "{error}");
}

#[test]
fn an_unacknowledged_interrupt_is_raised_at_the_resume() {
    let mut driver = rng();
    driver.submit(0, &[(DATA, 8, true)]);
    let driver = driver.move_to(Rng);
    assert_eq!(driver.interrupts(), 1);
}

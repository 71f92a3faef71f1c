//! Locks that no panic can poison.

use std::sync::{Mutex, MutexGuard};

/// Locks `mutex`.
///
/// In `cloude-vmm` a panic ends the process before another thread can take the lock ([`crate::panics`]). In a
/// program that unwinds instead, a thread must not continue with what another one left half done.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panicked under this lock")
}

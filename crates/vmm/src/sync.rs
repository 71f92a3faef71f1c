//! Locking without a poison case.

use std::sync::{Mutex, MutexGuard};

/// Locks `mutex`.
///
/// In `cloude-vmm` a panic ends the process before another thread can take the lock ([`crate::panics`]). In a program
/// that unwinds, a thread must not continue with a state that another one left incomplete, so this panics too.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panicked under this lock")
}

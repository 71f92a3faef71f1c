//! Sorts the descriptors of a request (SCM_RIGHTS) by their purpose.

use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use kvm_ioctls::Kvm;

use super::error::WorkerError;
use crate::control::{BlankVmSpec, BootSpec};

/// Descriptors in the order that the request documents.
struct Descriptors(std::vec::IntoIter<OwnedFd>);

impl Descriptors {
    fn new(descriptors: Vec<OwnedFd>, need: usize) -> Result<Self, WorkerError> {
        let have = descriptors.len();
        if have != need {
            return Err(WorkerError::Descriptors { need, have });
        }
        Ok(Self(descriptors.into_iter()))
    }

    fn next(&mut self) -> OwnedFd {
        self.0
            .next()
            .expect("the number of descriptors was checked")
    }

    fn next_if(&mut self, present: bool) -> Option<OwnedFd> {
        present.then(|| self.next())
    }

    fn next_kvm(&mut self) -> Kvm {
        // SAFETY: the descriptor is owned and ownership moves to `Kvm`. If it is not /dev/kvm, the first ioctl fails.
        unsafe { Kvm::from_raw_fd(self.next().into_raw_fd()) }
    }
}

/// The descriptors of [`crate::control::Request::Boot`].
pub(super) struct BootFds {
    pub kvm: Kvm,
    pub kernel: File,
    pub initramfs: Vec<File>,
    pub tap: Option<OwnedFd>,
    pub console: Option<OwnedFd>,
}

impl BootFds {
    pub fn sort(spec: &BootSpec, descriptors: Vec<OwnedFd>) -> Result<Self, WorkerError> {
        let optional = usize::from(spec.tap.is_some()) + usize::from(spec.console);
        let need = spec.initramfs_segments.saturating_add(2 + optional);
        let mut rest = Descriptors::new(descriptors, need)?;
        Ok(Self {
            kvm: rest.next_kvm(),
            kernel: rest.next().into(),
            initramfs: (0..spec.initramfs_segments)
                .map(|_| rest.next().into())
                .collect(),
            tap: rest.next_if(spec.tap.is_some()),
            console: rest.next_if(spec.console),
        })
    }
}

/// The descriptors of [`crate::control::Request::Blank`].
pub(super) struct BlankVmFds {
    pub kvm: Kvm,
    pub tap: Option<OwnedFd>,
    pub console: Option<OwnedFd>,
}

impl BlankVmFds {
    pub fn sort(spec: &BlankVmSpec, descriptors: Vec<OwnedFd>) -> Result<Self, WorkerError> {
        let need = 1 + usize::from(spec.tap.is_some()) + usize::from(spec.console);
        let mut rest = Descriptors::new(descriptors, need)?;
        Ok(Self {
            kvm: rest.next_kvm(),
            tap: rest.next_if(spec.tap.is_some()),
            console: rest.next_if(spec.console),
        })
    }
}

/// The descriptors of [`crate::control::Request::Restore`].
pub(super) struct RestoreFds {
    pub memory: File,
    pub state: File,
    pub stream: Option<OwnedFd>,
    pub working_set: Option<File>,
}

impl RestoreFds {
    /// The stream is optional here: only the VM state knows whether a connection needs one.
    pub fn sort(working_set: bool, descriptors: Vec<OwnedFd>) -> Result<Self, WorkerError> {
        let list = usize::from(working_set);
        let need = descriptors.len().clamp(2 + list, 3 + list);
        let mut rest = Descriptors::new(descriptors, need)?;
        Ok(Self {
            memory: rest.next().into(),
            state: rest.next().into(),
            stream: rest.next_if(need == 3 + list),
            working_set: rest.next_if(working_set).map(File::from),
        })
    }
}

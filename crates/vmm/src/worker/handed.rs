//! The descriptors that come with a request, by what they are.

use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use kvm_ioctls::Kvm;

use super::WorkerError;
use crate::control::{BootSpec, ShellSpec};

/// Descriptors in the order of their request, as many as it names.
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
        self.0.next().expect("their number was checked")
    }

    fn next_if(&mut self, named: bool) -> Option<OwnedFd> {
        named.then(|| self.next())
    }

    fn next_kvm(&mut self) -> Kvm {
        // SAFETY: the descriptor is owned and given away. One that is not /dev/kvm answers its first
        // request with an error.
        unsafe { Kvm::from_raw_fd(self.next().into_raw_fd()) }
    }
}

/// What comes with a boot request.
pub(super) struct ForBoot {
    pub kvm: Kvm,
    pub kernel: File,
    pub initramfs: Vec<File>,
    pub tap: Option<OwnedFd>,
    pub console: Option<OwnedFd>,
}

impl ForBoot {
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

/// What comes with a shell request.
pub(super) struct ForShell {
    pub kvm: Kvm,
    pub tap: Option<OwnedFd>,
    pub console: Option<OwnedFd>,
}

impl ForShell {
    pub fn sort(spec: &ShellSpec, descriptors: Vec<OwnedFd>) -> Result<Self, WorkerError> {
        let need = 1 + usize::from(spec.tap.is_some()) + usize::from(spec.console);
        let mut rest = Descriptors::new(descriptors, need)?;
        Ok(Self {
            kvm: rest.next_kvm(),
            tap: rest.next_if(spec.tap.is_some()),
            console: rest.next_if(spec.console),
        })
    }
}

/// What comes with a restore request.
pub(super) struct ForRestore {
    pub memory: File,
    pub record: File,
    pub stream: Option<OwnedFd>,
    pub working_set: Option<File>,
}

impl ForRestore {
    /// Whether a stream has to be there only the record says.
    pub fn sort(working_set: bool, descriptors: Vec<OwnedFd>) -> Result<Self, WorkerError> {
        let list = usize::from(working_set);
        let need = descriptors.len().clamp(2 + list, 3 + list);
        let mut rest = Descriptors::new(descriptors, need)?;
        Ok(Self {
            memory: rest.next().into(),
            record: rest.next().into(),
            stream: rest.next_if(need == 3 + list),
            working_set: rest.next_if(working_set).map(File::from),
        })
    }
}

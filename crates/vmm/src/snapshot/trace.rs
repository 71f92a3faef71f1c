//! What a restore did, step by step: how long each step took and how many ioctls it made.

use std::time::{Duration, Instant};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it did.
    pub name: &'static str,
    /// How long it took.
    pub time: Duration,
    /// How many requests to KVM it made.
    pub ioctls: u32,
    /// How many system calls it made otherwise: only those of the memory are counted.
    pub syscalls: u32,
}

/// Steps in the order in which they were done.
#[derive(Clone, Debug)]
pub struct Trace {
    steps: Vec<Step>,
    since: Instant,
    ioctls: u32,
    syscalls: u32,
}

impl Trace {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            steps: Vec::with_capacity(16),
            since: Instant::now(),
            ioctls: 0,
            syscalls: 0,
        }
    }

    /// The steps so far; those of one name are one.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Requests to KVM of all steps.
    pub fn ioctls(&self) -> u32 {
        self.steps.iter().map(|step| step.ioctls).sum()
    }

    /// System calls of all steps that map the memory.
    pub fn syscalls(&self) -> u32 {
        self.steps.iter().map(|step| step.syscalls).sum()
    }

    pub(crate) fn ioctl<T>(&mut self, call: impl FnOnce() -> T) -> T {
        self.requests(1, call)
    }

    /// A call that makes `count` requests to KVM.
    pub(crate) fn requests<T>(&mut self, count: u32, call: impl FnOnce() -> T) -> T {
        self.ioctls += count;
        call()
    }

    pub(crate) fn syscall(&mut self, count: u32) {
        self.syscalls += count;
    }

    /// Ends a step; the next begins.
    pub(crate) fn step(&mut self, name: &'static str) {
        let now = Instant::now();
        let time = now - self.since;
        let (ioctls, syscalls) = (
            std::mem::take(&mut self.ioctls),
            std::mem::take(&mut self.syscalls),
        );
        self.since = now;
        match self.steps.iter_mut().find(|step| step.name == name) {
            Some(step) => {
                step.time += time;
                step.ioctls += ioctls;
                step.syscalls += syscalls;
            }
            None => self.steps.push(Step {
                name,
                time,
                ioctls,
                syscalls,
            }),
        }
    }
}

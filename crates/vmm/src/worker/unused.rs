//! Memory that a fork got ahead, and makes no use of.
//!
//! A fork has copies of the pages that forks of its template write to before it runs, those of a program's end
//! too. One that goes on for a while gives back what it has not changed, so that many of them fit into a
//! host; what it turns out to need after all is copied then.

use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::timerfd::TimerFd;

use crate::exit::ExitSignal;
use crate::snapshot::{Template, WorkingSet};
use crate::vm::VmHandle;

/// How long a fork has run by then. Most are over.
const AFTER: Duration = Duration::from_secs(1);

/// Gives it back once, a while after [`Unused::arm`].
pub(super) struct Unused {
    timer: TimerFd,
    exit: ExitSignal,
    of: Option<(VmHandle, Template, WorkingSet)>,
}

impl Unused {
    /// For nothing yet.
    pub fn new(exit: ExitSignal) -> std::io::Result<Self> {
        Ok(Self {
            timer: TimerFd::new()?,
            exit,
            of: None,
        })
    }

    /// The VM is a fork of `template`, has got these `pages`, and begins to run.
    pub fn arm(
        &mut self,
        vm: VmHandle,
        template: Template,
        pages: WorkingSet,
    ) -> std::io::Result<()> {
        self.timer.reset(AFTER, None)?;
        self.of = Some((vm, template, pages));
        Ok(())
    }
}

impl MutEventSubscriber for Unused {
    fn init(&mut self, ops: &mut EventOps) {
        let events = Events::new(&self.timer, EventSet::IN);
        crate::vm::watch_or_end(ops, events, &self.exit);
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        // It has expired, so that this waits for nothing.
        let _ = self.timer.wait();
        let Some((vm, template, pages)) = self.of.take() else {
            return;
        };
        // Where it fails the fork keeps what it has: that is memory, and nothing else.
        let _ = vm.give_back(&pages, template.memory());
    }
}

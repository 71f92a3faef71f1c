//! [`Vcpus`]: the vCPU threads of a VM, and how they are started, paused and stopped.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::immediate_exit::ImmediateExit;
use super::machine::Machine;
use super::run;
use crate::control::ExitReason;
use crate::jail;
use crate::sync::lock;

/// All vCPUs of a VM, each with its thread.
pub struct Vcpus {
    threads: Vec<Thread>,
    /// True after `resume`, false after `pause` and `stop`.
    running: AtomicBool,
}

struct Thread {
    vcpu: Arc<Vcpu>,
    /// `None` once joined.
    handle: Mutex<Option<JoinHandle<()>>>,
}

struct Vcpu {
    /// Locked by the thread while it runs the guest, unlocked while the vCPU is paused.
    fd: Mutex<VcpuFd>,
    immediate_exit: ImmediateExit,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    target: Target,
    running: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Run,
    Pause,
    Stop,
}

/// Stack of a vCPU thread in bytes. Its call chains are short, and a worker's memory is limited.
const STACK: usize = 256 << 10;

impl Vcpus {
    /// Starts one thread per vCPU. No vCPU enters the guest before [`Vcpus::resume`].
    pub fn spawn(vcpus: Vec<VcpuFd>, machine: &Machine) -> io::Result<Self> {
        Self::spawn_threads(vcpus, machine, false)
    }

    /// [`Vcpus::spawn`] for vCPUs whose state is restored later. Calls KVM_RUN once on each, which fails for
    /// lack of memory, so that KVM's one-time set-up is not part of the first run with a state. Returns when
    /// all calls have returned.
    pub fn spawn_warmed_up(vcpus: Vec<VcpuFd>, machine: &Machine) -> io::Result<Self> {
        let vcpus = Self::spawn_threads(vcpus, machine, true)?;
        for thread in &vcpus.threads {
            thread.vcpu.wait_until_out();
        }
        Ok(vcpus)
    }

    fn spawn_threads(vcpus: Vec<VcpuFd>, machine: &Machine, warm_up: bool) -> io::Result<Self> {
        install_kick_handler()?;
        let mut threads = Self {
            threads: Vec::with_capacity(vcpus.len()),
            running: AtomicBool::new(false),
        };
        for (index, fd) in vcpus.into_iter().enumerate() {
            let vcpu = Arc::new(Vcpu::new(fd, warm_up));
            let (thread_vcpu, machine) = (vcpu.clone(), machine.clone());
            let handle = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .stack_size(STACK)
                .spawn(move || thread_vcpu.work(&machine, warm_up))?;
            threads.threads.push(Thread {
                vcpu,
                handle: Mutex::new(Some(handle)),
            });
        }
        Ok(threads)
    }

    /// Lets every vCPU enter the guest.
    pub fn resume(&self) {
        self.running.store(true, Ordering::SeqCst);
        for thread in &self.threads {
            thread.vcpu.set_target(Target::Run);
        }
    }

    /// Stops every vCPU between two instructions, and returns when all have left the guest.
    pub fn pause(&self) {
        self.running.store(false, Ordering::SeqCst);
        self.set_target_and_kick(Target::Pause);
        for thread in &self.threads {
            thread.vcpu.wait_until_out();
        }
    }

    /// True after [`Vcpus::resume`], false after [`Vcpus::pause`] and [`Vcpus::stop`].
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// Ends all threads and joins them. No vCPU can run the guest afterwards, even if this value is still
    /// shared.
    pub fn stop(&self) {
        self.running.store(false, Ordering::SeqCst);
        self.set_target_and_kick(Target::Stop);
        for thread in &self.threads {
            let handle = lock(&thread.handle).take();
            if let Some(handle) = handle {
                // A panic of the thread has been printed and ends `cloude-vmm` (`crate::panics`).
                let _ = handle.join();
            }
        }
    }

    /// Calls `f` with each vCPU in order of its index. Blocks until the vCPUs are paused.
    pub fn with_each<E>(
        &self,
        mut f: impl FnMut(usize, &VcpuFd) -> Result<(), E>,
    ) -> Result<(), E> {
        for (index, thread) in self.threads.iter().enumerate() {
            f(index, &lock(&thread.vcpu.fd))?;
        }
        Ok(())
    }

    fn set_target_and_kick(&self, target: Target) {
        for thread in &self.threads {
            thread.vcpu.set_target(target);
            thread.kick();
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Thread {
    /// Makes the thread leave the guest, or not enter it, and read its target.
    fn kick(&self) {
        self.vcpu.immediate_exit.set(1);
        if let Some(handle) = &*lock(&self.handle) {
            // Fails only if the thread has ended.
            let _ = handle.kill(SIGRTMIN());
        }
    }
}

impl Vcpu {
    fn new(mut fd: VcpuFd, running: bool) -> Self {
        let immediate_exit = ImmediateExit::new(&mut fd);
        Self {
            fd: Mutex::new(fd),
            immediate_exit,
            state: Mutex::new(State {
                target: Target::Pause,
                running,
            }),
            changed: Condvar::new(),
        }
    }

    /// The body of the vCPU's thread.
    fn work(&self, machine: &Machine, warm_up: bool) {
        if let Err(error) = jail::narrow_vcpu() {
            let exit = format!("seccomp of a vCPU's thread: {error}");
            machine.exit.raise(ExitReason::Unhandled { exit });
            return self.set_out();
        }
        if warm_up {
            run::warm_up(&mut lock(&self.fd));
        }
        while self.wait_for_run() {
            let mut fd = lock(&self.fd);
            if let run::Outcome::Ended(reason) = run::run(&mut fd, &self.immediate_exit, machine) {
                machine.exit.raise(reason);
                break;
            }
        }
        self.set_out();
    }

    /// Waits while the target is `Pause`. Returns true for `Run`, false for `Stop`.
    fn wait_for_run(&self) -> bool {
        let mut state = lock(&self.state);
        state.running = false;
        self.changed.notify_all();
        while state.target == Target::Pause {
            state = self.wait_for_change(state);
        }
        state.running = state.target == Target::Run;
        state.running
    }

    fn set_out(&self) {
        lock(&self.state).running = false;
        self.changed.notify_all();
    }

    fn set_target(&self, target: Target) {
        lock(&self.state).target = target;
        self.changed.notify_all();
    }

    fn wait_until_out(&self) {
        let mut state = lock(&self.state);
        while state.running {
            state = self.wait_for_change(state);
        }
    }

    fn wait_for_change<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait(state);
        waited.expect("no thread panicked under this lock")
    }
}

/// The handler does nothing: delivering the signal makes KVM_RUN return EINTR.
fn install_kick_handler() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), nothing).map_err(io::Error::from)
}

//! vCPU threads: each enters the guest, answers what the guest asks of the machine, and can be paused.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::bus::Bus;
use crate::exit::ExitSignal;
use crate::memory::GuestMemory;
use crate::sync::lock;

mod run;

/// What a vCPU thread reaches of the machine.
#[derive(Clone)]
pub struct Machine {
    /// Devices at ports.
    pub ports: Arc<Bus>,
    /// Devices in memory.
    pub mmio: Arc<Bus>,
    /// Guest memory, to report an instruction from.
    pub memory: GuestMemory,
    /// Where the guest's end is told.
    pub exit: ExitSignal,
}

/// All vCPUs of a VM, each with its thread.
pub struct Vcpus {
    threads: Vec<Thread>,
    /// Whether they were last told to run.
    running: AtomicBool,
}

struct Thread {
    vcpu: Arc<Vcpu>,
    /// `None` once it was joined.
    handle: Mutex<Option<JoinHandle<()>>>,
}

struct Vcpu {
    /// Held by the thread while it runs the guest, and free while it is paused.
    fd: Mutex<VcpuFd>,
    /// `immediate_exit` of the vCPU's `struct kvm_run`.
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

/// Stacks of vCPU threads, in bytes: they call no deep code, and the worker's memory is counted.
const STACK: usize = 256 << 10;

impl Vcpus {
    /// Starts a thread for each vCPU; none enters the guest before [`Vcpus::resume`].
    pub fn spawn(vcpus: Vec<VcpuFd>, machine: &Machine) -> io::Result<Self> {
        Self::spawn_threads(vcpus, machine, false)
    }

    /// As [`Vcpus::spawn`], of vCPUs that get their state later. Calls KVM_RUN once on each, which fails for
    /// lack of memory, so that the first run with a state does not pay for what KVM sets up in the first run.
    /// Returns when that is over.
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

    /// Lets all enter the guest.
    pub fn resume(&self) {
        self.running.store(true, Ordering::SeqCst);
        for thread in &self.threads {
            thread.vcpu.set_target(Target::Run);
        }
    }

    /// Takes all out of the guest, with nothing half done, and returns when they are.
    pub fn pause(&self) {
        self.running.store(false, Ordering::SeqCst);
        self.set_target_and_kick(Target::Pause);
        for thread in &self.threads {
            thread.vcpu.wait_until_out();
        }
    }

    /// Whether they were last told to run, not to pause.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// Stops all threads for good and waits for their end. No vCPU runs the guest afterwards, whoever still
    /// holds this.
    pub fn stop(&self) {
        self.running.store(false, Ordering::SeqCst);
        self.set_target_and_kick(Target::Stop);
        for thread in &self.threads {
            let handle = lock(&thread.handle).take();
            if let Some(handle) = handle {
                // A panic of the thread was printed, and ends `cloude-vmm`.
                let _ = handle.join();
            }
        }
    }

    /// Calls `f` with each vCPU in order. To be used while paused: it waits for a vCPU that runs.
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
    /// Makes the thread leave the guest, or not enter it, and look at its target.
    fn kick(&self) {
        self.vcpu.immediate_exit.set(1);
        if let Some(handle) = &*lock(&self.handle) {
            // Fails only for a thread that has ended.
            let _ = handle.kill(SIGRTMIN());
        }
    }
}

impl Vcpu {
    fn new(mut fd: VcpuFd, running: bool) -> Self {
        let immediate_exit = ImmediateExit(&raw mut fd.get_kvm_run().immediate_exit);
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

    /// The thread's life.
    fn work(&self, machine: &Machine, warm_up: bool) {
        if warm_up {
            run::warm_up(&mut lock(&self.fd));
        }
        while self.wait_for_run() {
            let mut fd = lock(&self.fd);
            if let run::Left::Ended(reason) = run::run(&mut fd, &self.immediate_exit, machine) {
                machine.exit.raise(reason);
                break;
            }
        }
        self.set_out();
    }

    /// Waits for the target [`Target::Run`]; false is [`Target::Stop`].
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

/// `kvm_run.immediate_exit`: KVM reads it at the start of KVM_RUN, and another thread may write it.
///
/// `VcpuFd::run` makes a `&mut kvm_run` to decode an exit, and a kick may write this byte meanwhile. Rust's
/// rules for references forbid that; nothing depends on it, since no code reads or writes the byte through
/// that reference, and the kernel, which shares the page, may change any byte of it as well.
struct ImmediateExit(*mut u8);

// SAFETY: every thread accesses the byte as an atomic alone, and it lives as long as the `VcpuFd` beside
// which the pointer is stored.
unsafe impl Send for ImmediateExit {}
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    fn set(&self, value: u8) {
        // SAFETY: the pointer is valid (see above), and a byte is always aligned.
        unsafe { AtomicU8::from_ptr(self.0) }.store(value, Ordering::SeqCst);
    }
}

/// The signal has to interrupt KVM_RUN and do nothing else.
fn install_kick_handler() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), nothing).map_err(io::Error::from)
}

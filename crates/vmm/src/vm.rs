//! A VM: memory, interrupt controllers, devices and vCPUs, put together and run to its end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use event_manager::MutEventSubscriber;
use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::arch::x86_64::boot::{self, BootError};
use crate::arch::x86_64::cpuid::CpuBaseline;
use crate::arch::x86_64::kernel::Entry;
use crate::arch::x86_64::{layout, regs};
use crate::bus::{Bus, Overlap, SharedDevice};
use crate::control::{ExitReason, ExitReport};
use crate::devices::power::{self, KeyboardController, PowerControl, ResetControl};
use crate::devices::pvpanic::PvPanic;
use crate::devices::serial::{self, ConsoleSink, Serial};
use crate::devices::virtio::mmio::{QUEUE_NOTIFY, WINDOW_SIZE};
use crate::devices::virtio::{MmioSlot, MmioTransport, VirtioDevice};
use crate::devices::vmgenid;
use crate::exit::ExitSignal;
use crate::memory::{self, GuestMemory};
use crate::snapshot::SnapshotError;
use crate::sync::lock;
use crate::vcpu::{Machine, Vcpus};

mod build;
mod error;
mod event_loop;
mod first_run;
mod handle;
mod shell;
mod signal_watch;

pub use error::VmError;
pub use event_loop::EventLoop;
pub(crate) use event_loop::{raw, watch_or_end};
use first_run::FirstRun;
pub use handle::{Saved, VmHandle};
pub use shell::Shell;
pub use signal_watch::SignalWatch;

/// The most vCPUs that a VM may have.
pub const MAX_VCPUS: u8 = 8;

/// What the event loop serves.
pub type Subscriber = Arc<Mutex<dyn MutEventSubscriber + Send>>;

/// A virtio device on its transport, as the VM and its owner share it.
pub type Attached<D> = Arc<Mutex<MmioTransport<D>>>;

/// The shape of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// [`memory::MIN_MIB`] to what the host has.
    pub memory_mib: u64,
    /// Which features of the host's processor the guest sees.
    pub cpu_baseline: CpuBaseline,
}

/// A VM. First devices are attached, then a guest is loaded, then it runs.
pub struct Vm {
    // The vCPUs go first: their threads use what follows.
    vcpus: Option<Arc<Vcpus>>,
    vm: Arc<VmFd>,
    idle_vcpus: Vec<VcpuFd>,
    cpu: Arc<build::Cpu>,
    shape: Shape,
    kind: Kind,
    memory: GuestMemory,
    ports: Bus,
    mmio: Bus,
    devices: Vec<SharedDevice>,
    subscribers: Vec<Subscriber>,
    serial: Arc<Mutex<Serial>>,
    virtio_count: u8,
    exit: ExitSignal,
    first_run: FirstRun,
}

/// What a VM's memory is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// To run.
    Plain,
    /// Reserved address space: the memory comes from a template.
    Reserved,
}

impl Vm {
    /// A machine of this shape with its fixed devices. Console output goes to `console`, if anywhere.
    pub fn new(kvm: &Kvm, shape: Shape, console: Option<OwnedFd>) -> Result<Self, VmError> {
        Self::with_memory(kvm, shape, console, Kind::Plain)
    }

    /// A machine without memory, to become a [`Shell`] once its devices are attached: in the same order
    /// as those of the VMs that it is to take the state of.
    pub fn reserved(kvm: &Kvm, shape: Shape, console: Option<OwnedFd>) -> Result<Self, VmError> {
        Self::with_memory(kvm, shape, console, Kind::Reserved)
    }

    fn with_memory(
        kvm: &Kvm,
        shape: Shape,
        console: Option<OwnedFd>,
        kind: Kind,
    ) -> Result<Self, VmError> {
        if shape.vcpus == 0 || shape.vcpus > MAX_VCPUS {
            return Err(VmError::Vcpus { vcpus: shape.vcpus });
        }
        let memory = match kind {
            Kind::Plain => memory::allocate(shape.memory_mib)?,
            Kind::Reserved => memory::reserve(shape.memory_mib)?,
        };
        let vm = build::create_vm(kvm)?;
        build::map_memory(&vm, &memory)?;
        vm.create_irq_chip()
            .map_err(VmError::kvm("KVM_CREATE_IRQCHIP"))?;
        let (idle_vcpus, cpu) = build::create_vcpus(kvm, &vm, shape)?;

        let exit = ExitSignal::new().map_err(VmError::host("make an eventfd"))?;
        let irq = EventFd::new(EFD_NONBLOCK).map_err(VmError::host("make an eventfd"))?;
        vm.register_irqfd(&irq, layout::SERIAL_GSI)
            .map_err(VmError::kvm("KVM_IRQFD of the serial port"))?;
        let sink = ConsoleSink::new(console).map_err(VmError::host("set up the console"))?;
        let serial = Arc::new(Mutex::new(Serial::new(irq, sink)));
        let mut machine = Self {
            vcpus: None,
            vm: Arc::new(vm),
            idle_vcpus,
            cpu: Arc::new(cpu),
            shape,
            kind,
            memory,
            ports: Bus::default(),
            mmio: Bus::default(),
            devices: Vec::new(),
            subscribers: Vec::new(),
            serial: serial.clone(),
            virtio_count: 0,
            exit,
            first_run: FirstRun::default(),
        };
        machine.add_fixed_devices(serial)?;
        Ok(machine)
    }

    fn add_fixed_devices(&mut self, serial: Arc<Mutex<Serial>>) -> Result<(), Overlap> {
        let exit = &self.exit;
        let fixed: [(u16, u64, SharedDevice); 5] = [
            (layout::SERIAL_PORT, serial::SIZE, serial),
            (
                layout::POWER_PORT,
                power::SIZE,
                shared(PowerControl::new(exit.clone())),
            ),
            (
                layout::PVPANIC_PORT,
                PvPanic::SIZE,
                shared(PvPanic::new(exit.clone())),
            ),
            (
                KeyboardController::PORT,
                KeyboardController::SIZE,
                shared(KeyboardController::new(exit.clone())),
            ),
            (
                ResetControl::PORT,
                ResetControl::SIZE,
                shared(ResetControl::new(exit.clone())),
            ),
        ];
        for (port, size, device) in fixed {
            self.ports.insert(port.into(), size, device.clone())?;
            self.devices.push(device);
        }
        Ok(())
    }

    /// Attaches a virtio device at the next free window and interrupt. To be called before
    /// [`Vm::load`], which tells the guest.
    pub fn attach_virtio<D: VirtioDevice + 'static>(
        &mut self,
        device: D,
    ) -> Result<Attached<D>, VmError> {
        let index = u32::from(self.virtio_count);
        let slot = MmioSlot {
            base: layout::VIRTIO_MMIO as u32 + index * layout::VIRTIO_MMIO_SIZE as u32,
            gsi: layout::VIRTIO_GSI + index,
            uid: self.virtio_count,
        };
        if slot.gsi > layout::LAST_VIRTIO_GSI {
            return Err(VmError::TooManyDevices);
        }
        let transport = MmioTransport::new(device, self.memory.clone(), slot)
            .map_err(VmError::host("make a device's eventfds"))?;
        self.vm
            .register_irqfd(transport.irq_eventfd(), slot.gsi)
            .map_err(VmError::kvm("KVM_IRQFD of a device"))?;
        let notify = IoEventAddress::Mmio(u64::from(slot.base) + QUEUE_NOTIFY);
        for (event, queue) in transport.notify_eventfds().iter().zip(0u32..) {
            self.vm
                .register_ioevent(event, &notify, queue)
                .map_err(VmError::kvm("KVM_IOEVENTFD of a device"))?;
        }
        let transport = Arc::new(Mutex::new(transport));
        self.mmio
            .insert(slot.base.into(), WINDOW_SIZE, transport.clone())?;
        self.devices.push(transport.clone());
        self.subscribers.push(transport.clone());
        self.virtio_count += 1;
        Ok(transport)
    }

    /// Loads a guest: its kernel, initramfs segments and command line.
    pub fn load(
        &mut self,
        kernel: &File,
        initramfs: &[File],
        cmdline: &str,
    ) -> Result<(), VmError> {
        if self.kind == Kind::Reserved {
            return Err(VmError::Reserved);
        }
        let mut nodes: Vec<u8> = self
            .devices
            .iter()
            .flat_map(|device| lock(device).acpi_node())
            .collect();
        nodes.extend(vmgenid::acpi_nodes());
        vmgenid::write_fresh(&self.memory)?;
        let entry = boot::load(
            &self.memory,
            kernel,
            initramfs,
            cmdline,
            self.shape.vcpus,
            &nodes,
        )?;
        self.set_entry(&entry)
    }

    /// Sets the first vCPU to enter the guest.
    fn set_entry(&mut self, entry: &Entry) -> Result<(), VmError> {
        regs::write_gdt(&self.memory, entry).map_err(BootError::Memory)?;
        match self.idle_vcpus.first() {
            Some(vcpu) => {
                regs::set_entry(vcpu, entry).map_err(VmError::kvm("KVM_SET_REGS or KVM_SET_SREGS"))
            }
            None => Err(VmError::Started),
        }
    }

    /// Starts the vCPUs.
    pub fn start(&mut self) -> Result<(), VmError> {
        if self.kind == Kind::Reserved {
            return Err(VmError::Reserved);
        }
        for device in &self.devices {
            lock(device).start();
        }
        self.spawn_vcpus()?.resume();
        Ok(())
    }

    /// Starts the vCPUs' threads, which wait.
    fn spawn_vcpus(&mut self) -> Result<Arc<Vcpus>, VmError> {
        if self.vcpus.is_some() {
            return Err(VmError::Started);
        }
        let machine = Machine {
            ports: Arc::new(self.ports.clone()),
            mmio: Arc::new(self.mmio.clone()),
            memory: self.memory.clone(),
            exit: self.exit.clone(),
        };
        let spawn = match self.kind {
            Kind::Reserved => Vcpus::spawn_warmed_up,
            Kind::Plain => Vcpus::spawn,
        };
        let vcpus = spawn(std::mem::take(&mut self.idle_vcpus), &machine)
            .map_err(VmError::host("start the vCPU threads"))?;
        let vcpus = Arc::new(vcpus);
        self.vcpus = Some(vcpus.clone());
        Ok(vcpus)
    }

    /// What to pause, resume and save the VM with while [`Vm::serve`] has it; `None` before it was
    /// started. After [`Vm::serve`] has returned a handle keeps the VM's memory and nothing that runs.
    pub fn handle(&self) -> Option<VmHandle> {
        let vcpus = self.vcpus.clone()?;
        Some(VmHandle::new(self, vcpus))
    }

    /// Stops the vCPUs between two instructions, then the devices.
    pub fn pause(&mut self) {
        if let Some(handle) = self.handle() {
            handle.pause();
        }
    }

    /// Lets the devices and then the vCPUs go on. Fails if the time at which the VM was saved cannot be set.
    pub fn resume(&mut self) -> Result<(), SnapshotError> {
        match self.handle() {
            Some(handle) => handle.resume(),
            None => Ok(()),
        }
    }

    /// Whether the guest's TSC counts at one rate in all states of the processor, and can be its clock.
    pub fn has_invariant_tsc(&self) -> bool {
        self.cpu.model.has_invariant_tsc()
    }

    /// Where the VM's end is told, and can be brought about.
    pub fn exit_signal(&self) -> ExitSignal {
        self.exit.clone()
    }

    /// The console.
    pub fn serial(&self) -> Arc<Mutex<Serial>> {
        self.serial.clone()
    }

    /// Guest memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Serves the devices and `subscribers` until the VM ends, and says how it ended. No vCPU runs the guest
    /// once this has returned, even where a [`VmHandle`] is left.
    pub fn serve(&mut self, subscribers: Vec<Subscriber>) -> Result<ExitReport, VmError> {
        let event_loop = self.event_loop(subscribers)?;
        self.serve_on(event_loop)
    }

    /// The event loop of the devices and `subscribers`, for [`Vm::serve_on`]: made ahead of the moment
    /// when the vCPUs run.
    pub fn event_loop(&mut self, subscribers: Vec<Subscriber>) -> Result<EventLoop, VmError> {
        let mut all = std::mem::take(&mut self.subscribers);
        all.extend(subscribers);
        EventLoop::new(all, self.exit.clone())
    }

    /// As [`Vm::serve`], on an event loop of this VM.
    pub fn serve_on(&mut self, mut event_loop: EventLoop) -> Result<ExitReport, VmError> {
        let served = event_loop.run();
        drop(event_loop);
        if let Some(vcpus) = self.vcpus.take() {
            vcpus.stop();
        }
        served?;
        let reason = self.exit.reason().unwrap_or(ExitReason::Stopped);
        let serial = lock(&self.serial);
        Ok(ExitReport {
            reason: match reason {
                // A kernel without a pvpanic driver can only reset when it panics.
                ExitReason::Reset if serial.sink().saw_panic() => ExitReason::Panic,
                reason => reason,
            },
            console_dropped_bytes: serial.sink().dropped_bytes(),
        })
    }
}

fn shared(device: impl crate::devices::BusDevice + 'static) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

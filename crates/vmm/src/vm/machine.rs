//! [`Vm`]: created, given its devices, loaded with a guest, started, and served to its end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::build;
use super::error::VmError;
use super::event_loop::{EventLoop, Subscriber};
use super::handle::VmHandle;
use super::shape::{MAX_VCPUS, MachineShape};
use super::time_restore::TimeRestore;
use crate::arch::x86_64::boot::{self, BootError};
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

/// A virtio device on its transport, shared by the VM and its owner.
pub type Attached<D> = Arc<Mutex<MmioTransport<D>>>;

/// A VM. The order is: attach devices, [`Vm::load`] a guest, [`Vm::start`], [`Vm::serve`].
pub struct Vm {
    // Dropped first: the vCPU threads use the fields below.
    vcpus: Option<Arc<Vcpus>>,
    vm: Arc<VmFd>,
    idle_vcpus: Vec<VcpuFd>,
    cpu: Arc<build::Cpu>,
    shape: MachineShape,
    pub(super) memory_kind: MemoryKind,
    pub(super) memory: GuestMemory,
    ports: Bus,
    mmio: Bus,
    devices: Vec<SharedDevice>,
    subscribers: Vec<Subscriber>,
    serial: Arc<Mutex<Serial>>,
    virtio_count: u8,
    exit: ExitSignal,
    time_restore: TimeRestore,
}

/// The mapping behind a VM's memslots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryKind {
    /// Private memory: anonymous, or a snapshot's mapped copy-on-write. The VM can run.
    Private,
    /// Reserved address space (PROT_NONE). The VM cannot run before a snapshot is restored.
    Reserved,
}

impl Vm {
    /// Creates a VM with its fixed devices. Serial output goes to `console`; without one it is dropped.
    pub fn new(kvm: &Kvm, shape: MachineShape, console: Option<OwnedFd>) -> Result<Self, VmError> {
        Self::with_memory(kvm, shape, console, MemoryKind::Private)
    }

    /// Creates a VM without memory, for [`super::BlankVm::new`]. Attach the same devices in the same order as
    /// to the VMs whose snapshots it will restore.
    pub fn reserved(
        kvm: &Kvm,
        shape: MachineShape,
        console: Option<OwnedFd>,
    ) -> Result<Self, VmError> {
        Self::with_memory(kvm, shape, console, MemoryKind::Reserved)
    }

    fn with_memory(
        kvm: &Kvm,
        shape: MachineShape,
        console: Option<OwnedFd>,
        memory_kind: MemoryKind,
    ) -> Result<Self, VmError> {
        if shape.vcpus == 0 || shape.vcpus > MAX_VCPUS {
            return Err(VmError::Vcpus { vcpus: shape.vcpus });
        }
        let memory = match memory_kind {
            MemoryKind::Private => memory::allocate(shape.memory_mib)?,
            MemoryKind::Reserved => memory::reserve(shape.memory_mib)?,
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
            memory_kind,
            memory,
            ports: Bus::default(),
            mmio: Bus::default(),
            devices: Vec::new(),
            subscribers: Vec::new(),
            serial: serial.clone(),
            virtio_count: 0,
            exit,
            time_restore: TimeRestore::default(),
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

    /// Attaches a virtio device at the next free MMIO window and GSI. Call it before [`Vm::load`], which
    /// writes the ACPI tables that describe the device.
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

    /// Loads a guest: kernel, initramfs segments in order, and kernel command line.
    pub fn load(
        &mut self,
        kernel: &File,
        initramfs: &[File],
        cmdline: &str,
    ) -> Result<(), VmError> {
        if self.memory_kind == MemoryKind::Reserved {
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

    /// Sets the registers of vCPU 0 to the kernel's entry point.
    fn set_entry(&mut self, entry: &Entry) -> Result<(), VmError> {
        regs::write_gdt(&self.memory, entry).map_err(BootError::Memory)?;
        match self.idle_vcpus.first() {
            Some(vcpu) => {
                regs::set_entry(vcpu, entry).map_err(VmError::kvm("KVM_SET_REGS or KVM_SET_SREGS"))
            }
            None => Err(VmError::Started),
        }
    }

    /// Starts the devices, then the vCPUs.
    pub fn start(&mut self) -> Result<(), VmError> {
        if self.memory_kind == MemoryKind::Reserved {
            return Err(VmError::Reserved);
        }
        for device in &self.devices {
            lock(device).start();
        }
        self.spawn_vcpus()?.resume();
        Ok(())
    }

    /// Starts the vCPU threads, paused.
    pub(super) fn spawn_vcpus(&mut self) -> Result<Arc<Vcpus>, VmError> {
        if self.vcpus.is_some() {
            return Err(VmError::Started);
        }
        let machine = Machine {
            ports: Arc::new(self.ports.clone()),
            mmio: Arc::new(self.mmio.clone()),
            memory: self.memory.clone(),
            exit: self.exit.clone(),
        };
        let spawn = match self.memory_kind {
            MemoryKind::Reserved => Vcpus::spawn_warmed_up,
            MemoryKind::Private => Vcpus::spawn,
        };
        let vcpus = spawn(std::mem::take(&mut self.idle_vcpus), &machine)
            .map_err(VmError::host("start the vCPU threads"))?;
        let vcpus = Arc::new(vcpus);
        self.vcpus = Some(vcpus.clone());
        Ok(vcpus)
    }

    /// A handle that pauses, resumes and saves the VM while [`Vm::serve`] borrows it; `None` before the start.
    /// After [`Vm::serve`] has returned a handle keeps the memory mapped, and its vCPUs have stopped.
    pub fn handle(&self) -> Option<VmHandle> {
        Some(self.handle_of(self.vcpus.clone()?))
    }

    pub(super) fn handle_of(&self, vcpus: Arc<Vcpus>) -> VmHandle {
        VmHandle {
            vcpus,
            vm: self.vm.clone(),
            cpu: self.cpu.clone(),
            devices: self.devices.clone(),
            memory: self.memory.clone(),
            shape: self.shape,
            time_restore: self.time_restore.clone(),
        }
    }

    /// Stops the vCPUs between two instructions, then the devices.
    pub fn pause(&mut self) {
        if let Some(handle) = self.handle() {
            handle.pause();
        }
    }

    /// Starts the devices, then the vCPUs ([`VmHandle::resume`]).
    pub fn resume(&mut self) -> Result<(), SnapshotError> {
        match self.handle() {
            Some(handle) => handle.resume(),
            None => Ok(()),
        }
    }

    /// True if the guest sees an invariant TSC (leaf 0x8000_0007 EDX bit 8) and may use it as its clock.
    pub fn has_invariant_tsc(&self) -> bool {
        self.cpu.model.has_invariant_tsc()
    }

    /// The signal that ends the VM when raised, and holds the reason.
    pub fn exit_signal(&self) -> ExitSignal {
        self.exit.clone()
    }

    /// The serial port.
    pub fn serial(&self) -> Arc<Mutex<Serial>> {
        self.serial.clone()
    }

    /// Guest memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Serves the devices and `subscribers` until the VM ends and returns the reason. The vCPU threads have
    /// ended when this returns, even if a [`VmHandle`] still exists.
    pub fn serve(&mut self, subscribers: Vec<Subscriber>) -> Result<ExitReport, VmError> {
        let event_loop = self.event_loop(subscribers)?;
        self.serve_on(event_loop)
    }

    /// Makes the event loop of the devices and `subscribers` for [`Vm::serve_on`], so that this work is done
    /// before the vCPUs run.
    pub fn event_loop(&mut self, subscribers: Vec<Subscriber>) -> Result<EventLoop, VmError> {
        let mut all = std::mem::take(&mut self.subscribers);
        all.extend(subscribers);
        EventLoop::new(all, self.exit.clone())
    }

    /// [`Vm::serve`] on an event loop from [`Vm::event_loop`].
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
                // A kernel without a pvpanic driver prints its panic, then resets.
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

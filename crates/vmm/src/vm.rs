//! A VM: memory, interrupt controllers, devices and vCPUs, put together and run to its end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::MutEventSubscriber;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::arch::x86_64::boot::{self, BootError};
use crate::arch::x86_64::kernel::Entry;
use crate::arch::x86_64::{cpuid, layout, msrs, regs};
use crate::bus::{Bus, Overlap, SharedDevice};
use crate::control::{ExitReason, ExitReport};
use crate::devices::power::{self, KeyboardController, PowerControl, ResetControl};
use crate::devices::pvpanic::PvPanic;
use crate::devices::serial::{self, ConsoleSink, Serial};
use crate::devices::virtio::mmio::{QUEUE_NOTIFY, WINDOW_SIZE};
use crate::devices::virtio::{MmioSlot, MmioTransport, VirtioDevice};
use crate::exit::ExitSignal;
use crate::memory::{self, GuestMemory};
use crate::vcpu::{Machine, Vcpus};

mod error;
mod event_loop;
mod halt_watch;
mod signal_watch;

pub use error::VmError;
pub(crate) use event_loop::{raw, watch_or_end};
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
}

/// A VM. First devices are attached, then a guest is loaded, then it runs.
pub struct Vm {
    // The vCPUs go first: their threads use what follows.
    vcpus: Option<Arc<Vcpus>>,
    vm: VmFd,
    idle_vcpus: Vec<VcpuFd>,
    shape: Shape,
    memory: GuestMemory,
    ports: Bus,
    mmio: Bus,
    devices: Vec<SharedDevice>,
    subscribers: Vec<Subscriber>,
    serial: Arc<Mutex<Serial>>,
    virtio_count: u8,
    exit: ExitSignal,
}

impl Vm {
    /// A machine of this shape with its fixed devices. Console output goes to `console`, if anywhere.
    pub fn new(kvm: &Kvm, shape: Shape, console: Option<OwnedFd>) -> Result<Self, VmError> {
        if shape.vcpus == 0 || shape.vcpus > MAX_VCPUS {
            return Err(VmError::Vcpus { vcpus: shape.vcpus });
        }
        let memory = memory::allocate(shape.memory_mib)?;
        let vm = create_vm(kvm)?;
        map_memory(&vm, &memory)?;
        vm.create_irq_chip()
            .map_err(VmError::kvm("create interrupt controllers"))?;
        let idle_vcpus = create_vcpus(kvm, &vm, shape.vcpus)?;

        let exit = ExitSignal::new().map_err(VmError::host("make an eventfd"))?;
        let irq = EventFd::new(EFD_NONBLOCK).map_err(VmError::host("make an eventfd"))?;
        vm.register_irqfd(&irq, layout::SERIAL_GSI)
            .map_err(VmError::kvm("register the serial port's interrupt"))?;
        let sink = ConsoleSink::new(console).map_err(VmError::host("set up the console"))?;
        let serial = Arc::new(Mutex::new(Serial::new(irq, sink)));
        let mut machine = Self {
            vcpus: None,
            vm,
            idle_vcpus,
            shape,
            memory,
            ports: Bus::default(),
            mmio: Bus::default(),
            devices: Vec::new(),
            subscribers: Vec::new(),
            serial: serial.clone(),
            virtio_count: 0,
            exit,
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
        if slot.gsi > layout::LAST_GSI {
            return Err(VmError::TooManyDevices);
        }
        let transport = MmioTransport::new(device, self.memory.clone(), slot)
            .map_err(VmError::host("make a device's eventfds"))?;
        self.vm
            .register_irqfd(transport.irq_eventfd(), slot.gsi)
            .map_err(VmError::kvm("register a device's interrupt"))?;
        let notify = IoEventAddress::Mmio(u64::from(slot.base) + QUEUE_NOTIFY);
        for (event, queue) in transport.notify_eventfds().iter().zip(0u32..) {
            self.vm
                .register_ioevent(event, &notify, queue)
                .map_err(VmError::kvm("register a device's notification"))?;
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
        let nodes: Vec<u8> = self
            .devices
            .iter()
            .flat_map(|device| lock(device).acpi_node())
            .collect();
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
            Some(vcpu) => regs::set_entry(vcpu, entry).map_err(VmError::kvm("set registers")),
            None => Err(VmError::Started),
        }
    }

    /// Starts the vCPUs.
    pub fn start(&mut self) -> Result<(), VmError> {
        if self.vcpus.is_some() {
            return Err(VmError::Started);
        }
        for device in &self.devices {
            lock(device).start();
        }
        let machine = Machine {
            ports: Arc::new(self.ports.clone()),
            mmio: Arc::new(self.mmio.clone()),
            memory: self.memory.clone(),
            exit: self.exit.clone(),
        };
        let vcpus = Vcpus::spawn(std::mem::take(&mut self.idle_vcpus), &machine)
            .map_err(VmError::host("start the vCPU threads"))?;
        vcpus.resume();
        self.vcpus = Some(Arc::new(vcpus));
        Ok(())
    }

    /// Stops the vCPUs between two instructions, then the devices.
    pub fn pause(&mut self) {
        if let Some(vcpus) = &self.vcpus {
            vcpus.pause();
        }
        for device in &self.devices {
            lock(device).pause();
        }
    }

    /// Lets the devices and then the vCPUs go on.
    pub fn resume(&mut self) {
        for device in &self.devices {
            lock(device).resume();
        }
        if let Some(vcpus) = &self.vcpus {
            vcpus.resume();
        }
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

    /// Serves the devices and `subscribers` until the VM ends, stops the vCPUs, and says how it ended.
    pub fn serve(&mut self, subscribers: Vec<Subscriber>) -> Result<ExitReport, VmError> {
        let mut all = std::mem::take(&mut self.subscribers);
        all.extend(subscribers);
        event_loop::serve(all, self.vcpus.clone(), &self.exit)?;
        self.vcpus = None;
        let reason = self.exit.reason().unwrap_or(ExitReason::Stopped);
        let serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
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

fn lock(device: &SharedDevice) -> MutexGuard<'_, dyn crate::devices::BusDevice + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

fn create_vm(kvm: &Kvm) -> Result<VmFd, VmError> {
    // KVM gives EINTR when a signal comes while it makes a VM.
    let vm = loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => break result.map_err(VmError::kvm("create a VM"))?,
        }
    };
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(VmError::kvm("set the identity map"))?;
    vm.set_tss_address(layout::KVM_TSS as usize)
        .map_err(VmError::kvm("set the task segment"))?;
    Ok(vm)
}

fn map_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), VmError> {
    for (slot, region) in memory.iter().enumerate() {
        let host = region
            .get_host_address(vm_memory::MemoryRegionAddress(0))
            .map_err(BootError::Memory)?;
        let memslot = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY: the mapping is the guest's alone and outlives the VM: `Vm` drops its memory after
        // its vCPUs, and KVM keeps no pointer past the last of its descriptors.
        unsafe { vm.set_user_memory_region(memslot) }
            .map_err(VmError::kvm("give the VM its memory"))?;
    }
    Ok(())
}

fn create_vcpus(kvm: &Kvm, vm: &VmFd, count: u8) -> Result<Vec<VcpuFd>, VmError> {
    let supported = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(VmError::kvm("say what CPUs it supports"))?;
    let tsc_deadline = vm.check_extension(Cap::TscDeadlineTimer);
    let boot_msrs = msrs::boot_msrs();
    let mut vcpus = Vec::with_capacity(count.into());
    for id in 0..count {
        let vcpu = vm
            .create_vcpu(id.into())
            .map_err(VmError::kvm("create a vCPU"))?;
        let spec = cpuid::CpuidSpec {
            apic_id: id,
            vcpus: count,
            tsc_khz: vcpu.get_tsc_khz().ok(),
            tsc_deadline,
        };
        vcpu.set_cpuid2(&cpuid::fit(&supported, spec))
            .map_err(VmError::kvm("set CPUID"))?;
        let set = vcpu
            .set_msrs(&boot_msrs)
            .map_err(VmError::kvm("set MSRs"))?;
        if let Some(refused) = boot_msrs.as_slice().get(set) {
            return Err(VmError::Msr {
                index: refused.index,
            });
        }
        vcpu.set_fpu(&regs::boot_fpu())
            .map_err(VmError::kvm("set floating-point state"))?;
        let mut lapic = vcpu
            .get_lapic()
            .map_err(VmError::kvm("give the local APIC"))?;
        regs::set_local_interrupts(&mut lapic);
        vcpu.set_lapic(&lapic)
            .map_err(VmError::kvm("set the local APIC"))?;
        vcpus.push(vcpu);
    }
    Ok(vcpus)
}

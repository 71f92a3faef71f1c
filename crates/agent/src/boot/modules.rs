//! Loads the kernel modules of the initramfs.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;

use cloude_protocol::boot::{MODULES_DIR, MODULES_LIST};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};

/// Loads the modules of modules.list, in order, then deletes their files to free memory. A failure is logged only:
/// a missing device is reported later by the code that needs it.
pub fn load_all() {
    let Ok(list) = fs::read_to_string(MODULES_LIST) else {
        return;
    };
    for name in list.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let path = Path::new(MODULES_DIR).join(name);
        match load(&path) {
            // EEXIST: built in or loaded. ENODEV: this VM lacks the device.
            Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => {}
            Err(errno) => println!("cloude-agent: finit_module({name}): {errno}"),
        }
    }
    let _ = fs::remove_dir_all(MODULES_DIR);
}

fn load(path: &Path) -> nix::Result<()> {
    const NO_PARAMETERS: &CStr = c"";
    let to_errno =
        |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let file = File::open(path).map_err(to_errno)?;
    match finit_module(&file, NO_PARAMETERS, ModuleInitFlags::empty()) {
        Err(Errno::ENOSYS) => init_module(&fs::read(path).map_err(to_errno)?, NO_PARAMETERS),
        result => result,
    }
}

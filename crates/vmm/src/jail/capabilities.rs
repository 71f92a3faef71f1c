//! Capabilities: a worker keeps none, and can get none back.

use std::io;

use caps::CapSet;

/// Drops every capability from every set, the bounding set included.
pub(super) fn drop_all() -> io::Result<()> {
    let clear = |set| caps::clear(None, set).map_err(io::Error::other);
    // Without CAP_SETPCAP the bounding set stays. It limits what execve(2) may give, and `no_new_privs` makes that
    // nothing.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap_or(false) {
        clear(CapSet::Bounding)?;
    }
    // Older kernels than 4.3 have no ambient set.
    if caps::runtime::ambient_set_supported().is_ok() {
        clear(CapSet::Ambient)?;
    }
    clear(CapSet::Inheritable)?;
    clear(CapSet::Effective)?;
    clear(CapSet::Permitted)
}

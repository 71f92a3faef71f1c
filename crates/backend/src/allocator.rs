//! Settings of glibc's allocator.

/// Allocations from this size on are mappings of their own, in bytes.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 256 << 10;

/// Makes the memory of large buffers, such as output and request bodies, return to the kernel when they are freed. By
/// default glibc raises its threshold to the size of any freed mapping, up to 32 MiB, and keeps smaller buffers in
/// heaps that shrink from their ends only (mallopt(3), M_MMAP_THRESHOLD).
pub fn unmap_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes two integers of the allocator under its lock, and has no pointer arguments.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}

//! The newc cpio format.

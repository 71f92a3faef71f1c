//! Templates: which VM may be forked for which execution, and where a saved one is kept.

pub mod disk;
pub mod kept;
pub mod key;
pub mod warm;

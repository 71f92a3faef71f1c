//! Interfaces of other servers, for their unmodified clients (docs/dialects.md). Each module only translates.

pub mod piston;

//! Whether a server can run programs.

use serde::{Deserialize, Serialize};

/// The response to `GET /v1/ready`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// Every required part works, and some language has an image.
    pub ready: bool,
    /// The parts.
    pub parts: Vec<ReadyPart>,
}

/// A part of a server.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadyPart {
    /// `server`, `kvm`, `disk`, `store`, `image NAME` or `template NAME`.
    pub name: String,
    /// True if it works.
    pub ready: bool,
    /// The server is not ready without it.
    pub required: bool,
    /// Its state, or what is wrong.
    pub detail: String,
}

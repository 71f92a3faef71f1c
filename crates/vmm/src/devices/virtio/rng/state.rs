//! What a snapshot keeps: nothing. That it is the entropy device's nothing is in the type.

use serde::{Deserialize, Serialize};

/// The entropy device's state. It has none: the bytes come from the host's kernel at the time of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RngState {}

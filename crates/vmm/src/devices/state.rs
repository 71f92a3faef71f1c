//! Device states in a snapshot: postcard of one typed struct per device.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A device state that cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The bytes are not this device's state in this version. Discard the snapshot and build it again.
    #[error("the state of device {device} does not parse: {source}")]
    Format {
        /// The device's name.
        device: &'static str,
        /// The decoder's error.
        source: postcard::Error,
    },
    /// The state parses and has an impossible value. Discard the snapshot and build it again.
    #[error("invalid state of device {device}: {what}")]
    Invalid {
        /// The device's name.
        device: &'static str,
        /// The field and its value.
        what: String,
    },
}

impl StateError {
    pub(crate) fn invalid(device: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self::Invalid { device, what }
    }
}

/// The bytes of a device's state. Fails only if memory runs out.
pub(super) fn encode<S: Serialize>(device: &'static str, state: &S) -> Result<Vec<u8>, StateError> {
    postcard::to_stdvec(state).map_err(|source| StateError::Format { device, source })
}

/// The state in `bytes`, which must have nothing after it.
pub(super) fn decode<S: DeserializeOwned>(
    device: &'static str,
    bytes: &[u8],
) -> Result<S, StateError> {
    let (state, rest) =
        postcard::take_from_bytes(bytes).map_err(|source| StateError::Format { device, source })?;
    match rest.len() {
        0 => Ok(state),
        count => Err(StateError::invalid(
            device,
            format!("{count} bytes follow its end"),
        )),
    }
}

/// Refuses a state for a device that has none.
pub(super) fn expect_none(device: &'static str, bytes: &[u8]) -> Result<(), StateError> {
    match bytes.len() {
        0 => Ok(()),
        count => Err(StateError::invalid(
            device,
            format!("{count} bytes, and the device has no state"),
        )),
    }
}

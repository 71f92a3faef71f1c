//! The keys of `[callbacks]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Callbacks to clients.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Callbacks {
    /// Key of the signatures. Empty: requests with `callback_url` are refused.
    pub secret: SigningSecret,
    /// Networks that callbacks may reach although VMs cannot, `A.B.C.D/N` or `A:B::/N`.
    pub allow: Vec<String>,
    /// Attempts at a delivery.
    pub attempts: u32,
    /// Delay before the second attempt in milliseconds. It doubles with each further one, up to an hour.
    pub retry_ms: u64,
    /// Time-out of an attempt in milliseconds.
    pub timeout_ms: u64,
}

impl Default for Callbacks {
    fn default() -> Self {
        Callbacks {
            secret: SigningSecret::default(),
            allow: Vec::new(),
            attempts: 12,
            retry_ms: 5000,
            timeout_ms: 10_000,
        }
    }
}

/// A text that is not printed: the configuration shows `(secret)` in its place.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SigningSecret(String);

impl SigningSecret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True if none is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        match self.is_empty() {
            true => "",
            false => "(secret)",
        }
    }
}

impl FromStr for SigningSecret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(SigningSecret(text.trim().to_owned()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for SigningSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for SigningSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(SigningSecret(String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_configuration_hides_the_secret() {
        let callbacks: Callbacks = toml::from_str("secret = \"hunter2\"").unwrap();
        let printed = toml::to_string(&callbacks).unwrap();
        assert_eq!(callbacks.secret.expose(), "hunter2");
        assert!(!printed.contains("hunter2") && !format!("{callbacks:?}").contains("hunter2"));
    }
}

//! The keys of `[api]` and the address of the API.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Prefix of a Unix socket's path.
const UNIX: &str = "unix:";
/// Maximum length of the path: `sun_path` of `struct sockaddr_un` without the final NUL (unix(7)).
const MAX_PATH: usize = 107;

/// The address of the HTTP server: `ADDRESS:PORT` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address. Port 0 selects a free port, which the log names.
    Tcp(SocketAddr),
    /// An absolute path of a Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// True if only clients on this host can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Listen::Unix(_) => true,
        }
    }

    /// The IP address; `None` for a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Listen::Tcp(address) => Some(address.ip().to_canonical()),
            Listen::Unix(_) => None,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let Some(path) = text.strip_prefix(UNIX) else {
            return text.parse().map(Listen::Tcp).map_err(|_| {
                format!(
                    "`{text}` is no address; use ADDRESS:PORT such as 127.0.0.1:8080, or unix:/PATH"
                )
            });
        };
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(format!(
                "`{text}` must have the absolute path of a file: unix:/run/cloude/api.sock"
            ));
        }
        if path.len() > MAX_PATH || path.contains('\0') {
            return Err(format!(
                "the path of `{text}` must have at most {MAX_PATH} bytes, none of them NUL"
            ));
        }
        Ok(Listen::Unix(path.into()))
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// When a request needs an API key.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Except on a loopback address or a Unix socket. A key that is sent there counts.
    #[default]
    Auto,
    /// Always.
    Required,
    /// Never. Allowed on a loopback address or a Unix socket alone.
    Off,
}

impl FromStr for Auth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Auth::Auto),
            "required" => Ok(Auth::Required),
            "off" => Ok(Auth::Off),
            _ => Err(format!(
                "`{text}` is no policy; use `auto`, `required` or `off`"
            )),
        }
    }
}

/// How this server treats API keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPolicy {
    /// A request without a key is refused.
    Required,
    /// A request without a key may do everything.
    Optional,
    /// The header `Authorization` is not read.
    Ignored,
}

/// Who may use the API.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Names of this server in the header `Host`, besides `localhost`, loopback addresses and the address of
    /// [`Listen`].
    pub allowed_hosts: Vec<String>,
    /// When a request needs an API key.
    pub auth: Auth,
    /// Group of the Unix socket: a name or a number. Empty: the group of clouded's process.
    pub socket_group: String,
}

impl Api {
    /// How keys are treated on an address.
    pub fn key_policy(&self, listen: &Listen) -> KeyPolicy {
        match self.auth {
            Auth::Auto if listen.is_local() => KeyPolicy::Optional,
            Auth::Off if listen.is_local() => KeyPolicy::Ignored,
            _ => KeyPolicy::Required,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_printed_as_it_was_written() {
        for text in ["127.0.0.1:8080", "[::1]:80", "unix:/run/cloude/api.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_invalid_address_is_refused_with_an_example() {
        let long = format!("unix:/{}", "x".repeat(200));
        for (text, part) in [
            ("nowhere", "127.0.0.1:8080"),
            ("unix:relative", "unix:/run/cloude/api.sock"),
            ("unix:", "absolute path"),
            (long.as_str(), "107 bytes"),
        ] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn loopback_addresses_and_unix_sockets_are_local() {
        for text in ["127.0.0.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/a"] {
            assert!(text.parse::<Listen>().unwrap().is_local(), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "192.168.1.1:1"] {
            assert!(!text.parse::<Listen>().unwrap().is_local(), "{text}");
        }
    }
}

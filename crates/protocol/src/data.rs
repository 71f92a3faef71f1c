//! Bytes that are usually text: a JSON string if they are UTF-8, else `{"base64": "…"}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// Any bytes. In JSON a string if they are valid UTF-8, else an object with the one key `base64` (RFC 4648, section 4,
/// padded).
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Data(pub Vec<u8>);

impl Data {
    /// The bytes as text, each invalid sequence replaced by U+FFFD.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<&str> for Data {
    fn from(text: &str) -> Self {
        Data(text.as_bytes().to_vec())
    }
}

impl From<String> for Data {
    fn from(text: String) -> Self {
        Data(text.into_bytes())
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Data(bytes)
    }
}

impl AsRef<[u8]> for Data {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "a string or {\"base64\": \"…\"}")]
        enum Form {
            Text(String),
            Binary(Binary),
        }
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Binary {
            base64: String,
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Data(text.into_bytes())),
            Form::Binary(Binary { base64 }) => STANDARD
                .decode(base64)
                .map(Data)
                .map_err(|error| D::Error::custom(format!("invalid base64: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Data;

    #[test]
    fn utf8_is_a_plain_string() {
        let json = serde_json::to_string(&Data::from("hé\n")).unwrap();
        assert_eq!(json, r#""hé\n""#);
        assert_eq!(
            serde_json::from_str::<Data>(&json).unwrap(),
            Data::from("hé\n")
        );
    }

    #[test]
    fn other_bytes_round_trip_as_base64() {
        let data = Data(vec![0xff, 0x00, b'a']);
        let json = serde_json::to_string(&data).unwrap();
        assert_eq!(json, r#"{"base64":"/wBh"}"#);
        assert_eq!(serde_json::from_str::<Data>(&json).unwrap(), data);
    }

    #[test]
    fn malformed_base64_is_refused() {
        assert!(serde_json::from_str::<Data>(r#"{"base64":"*"}"#).is_err());
        assert!(serde_json::from_str::<Data>(r#"{"base65":"AA=="}"#).is_err());
    }
}

//! Bytes that are usually text: a JSON string if they are UTF-8 with few control characters, else
//! `{"base64": "…"}`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Unexpected, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// A text whose JSON string is this many bytes longer than twice the text is base64. Short texts stay strings.
const ESCAPES: usize = 1024;

/// Any bytes. In JSON a string if they are valid UTF-8, else an object with the one key `base64` (RFC 4648, section 4,
/// padded). UTF-8 with many control characters, which take six bytes each in a JSON string, is base64, too: the JSON
/// has at most twice the bytes and 1 KiB.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Data(pub Vec<u8>);

impl Data {
    /// The bytes as text, each invalid sequence replaced by U+FFFD.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The text, if it is a string in JSON; `None` if it is base64.
    pub fn as_json_text(&self) -> Option<&str> {
        let added: usize = self.0.iter().map(escape).sum();
        if added > self.0.len() + ESCAPES {
            return None;
        }
        std::str::from_utf8(&self.0).ok()
    }
}

/// The bytes that a byte's escape adds to a JSON string (RFC 8259, section 7).
fn escape(byte: &u8) -> usize {
    match byte {
        // \b, \t, \n, \f and \r.
        b'"' | b'\\' | 8..=10 | 12 | 13 => 1,
        // \u0001.
        0..0x20 => 5,
        _ => 0,
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Data {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, Type};
        let text = ObjectBuilder::new().schema_type(Type::String);
        let base64 = ObjectBuilder::new()
            .property(
                "base64",
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .content_encoding("base64"),
            )
            .required("base64")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)));
        OneOfBuilder::new()
            .item(text)
            .item(base64)
            .description(Some(
                "Bytes: a string, or an object with `base64` where they are not UTF-8 or have many control characters.",
            ))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Data {}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_json_text() {
            Some(text) => serializer.serialize_str(text),
            None => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Form)
    }
}

/// Reads either form. An untagged enum would first build a tree of whatever it is given, in many times its bytes.
struct Form;

impl<'de> Visitor<'de> for Form {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string or {\"base64\": \"…\"}")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Data, E> {
        Ok(Data::from(text))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Data, E> {
        Ok(Data::from(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        #[derive(serde::Deserialize)]
        #[serde(field_identifier, rename_all = "lowercase")]
        enum Key {
            Base64,
        }
        let Some(Key::Base64) = map.next_key()? else {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        };
        let base64: std::borrow::Cow<'de, str> = map.next_value()?;
        if let Some(Key::Base64) = map.next_key()? {
            return Err(A::Error::duplicate_field("base64"));
        }
        STANDARD
            .decode(base64.as_bytes())
            .map(Data)
            .map_err(|error| A::Error::custom(format!("invalid base64: {error}")))
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
        assert!(serde_json::from_str::<Data>(r#"{"base64":"AA==","base64":""}"#).is_err());
        assert!(serde_json::from_str::<Data>("{}").is_err());
    }

    #[test]
    fn another_type_is_refused_with_the_two_forms() {
        let error = serde_json::from_str::<Data>("[0, 0]").unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("invalid type: sequence, expected a string or {\"base64\": \"…\"}"),
            "{error}"
        );
    }

    #[test]
    fn json_has_at_most_twice_the_bytes_and_1_kib() {
        let texts = [
            vec![1; 1 << 20],
            vec![0x1f; 1 << 20],
            b"\"".repeat(1 << 20),
            b"\n".repeat(1 << 20),
            b"\x01aaaa".repeat(1 << 20),
            b"\x01aaa\n".repeat(1 << 20),
            "\u{2028}é".repeat(1 << 20).into_bytes(),
            vec![0xff; 1 << 20],
            vec![1; 512],
        ];
        for bytes in texts {
            let data = Data(bytes);
            let json = serde_json::to_vec(&data).unwrap();
            let start = &json[..20];
            assert!(
                json.len() <= 2 * data.0.len() + 1100,
                "{} bytes for {}: {start:?}",
                json.len(),
                data.0.len(),
            );
            assert_eq!(serde_json::from_slice::<Data>(&json).unwrap(), data);
        }
    }

    #[test]
    fn colours_and_short_texts_stay_strings() {
        let coloured = Data::from("\u{1b}[31mred\u{1b}[0m\n".repeat(10_000));
        for data in [Data::from("\u{1}\u{0}"), Data(vec![1; 200]), coloured] {
            assert!(data.as_json_text().is_some(), "{} bytes", data.0.len());
        }
    }
}

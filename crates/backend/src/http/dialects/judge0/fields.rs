//! Reads the fields of a body, and collects all errors: `{"FIELD": ["MESSAGE"]}`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cloude_protocol::Data;
use serde::Serialize;
use serde_json::{Map, Value};

/// Clients leave out the padding at times.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Messages by field, as Rails writes them.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Errors(pub BTreeMap<String, Vec<String>>);

impl Errors {
    /// Adds a message.
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        let messages = self.0.entry(field.to_owned()).or_default();
        messages.push(message.into());
    }
}

/// A body whose fields are read one by one.
#[derive(Debug)]
pub struct Fields {
    body: Map<String, Value>,
    /// Texts are base64.
    is_base64: bool,
    pub errors: Errors,
}

impl Fields {
    /// The fields of a body.
    pub fn of(body: Map<String, Value>, is_base64: bool) -> Self {
        Fields {
            body,
            is_base64,
            errors: Errors::default(),
        }
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        self.body.remove(field).filter(|value| !value.is_null())
    }

    /// A text that is never base64. An empty one is absent.
    pub fn text(&mut self, field: &str) -> Option<String> {
        match self.take(field)? {
            Value::String(text) => Some(text).filter(|text| !text.is_empty()),
            _ => {
                self.errors.add(field, "must be a string");
                None
            }
        }
    }

    /// A text that is base64 if the request says so.
    pub fn data(&mut self, field: &str) -> Option<Data> {
        match self.is_base64 {
            true => self.base64(field),
            false => match self.take(field)? {
                Value::String(text) => Some(text.into()),
                _ => {
                    self.errors.add(field, "must be a string");
                    None
                }
            },
        }
    }

    /// Bytes in base64. White space is ignored.
    pub fn base64(&mut self, field: &str) -> Option<Data> {
        let value = self.take(field)?;
        let text = value.as_str().map(|text| {
            let text = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
            text.collect::<Vec<_>>()
        });
        match text.and_then(|text| BASE64.decode(text).ok()) {
            Some(bytes) => Some(bytes.into()),
            None => {
                self.errors.add(field, "is not valid base64");
                None
            }
        }
    }

    /// A number, also in a string, within bounds.
    pub fn number(&mut self, field: &str, least: f64, most: f64) -> Option<f64> {
        let number = match self.take(field)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) if text.trim().is_empty() => return None,
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number.filter(|number: &f64| number.is_finite()) else {
            self.errors.add(field, "is not a number");
            return None;
        };
        if number < least {
            let message = format!("must be greater than or equal to {least}");
            self.errors.add(field, message);
        }
        if number > most {
            let message = format!("must be less than or equal to {most}");
            self.errors.add(field, message);
        }
        Some(number)
    }

    /// A whole number; parts of one count as one.
    pub fn integer(&mut self, field: &str, least: u64, most: u64) -> Option<u64> {
        let number = self.number(field, least as f64, most as f64)?;
        Some(number.ceil() as u64)
    }

    /// `true` or `false`, also as a text or as 1 and 0.
    pub fn flag(&mut self, field: &str) -> bool {
        let Some(value) = self.take(field) else {
            return false;
        };
        let text = match &value {
            Value::String(text) => text.trim().to_lowercase(),
            other => other.to_string(),
        };
        match text.as_str() {
            "true" | "1" => true,
            "false" | "0" | "" => false,
            _ => {
                self.errors.add(field, "must be true or false");
                false
            }
        }
    }
}

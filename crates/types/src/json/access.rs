//! Taking JSON apart that has a known shape.

use serde_json::Value;

use super::read::mismatch;
use super::{JsonError, JsonErrorKind};

/// The field of an object.
pub(crate) fn field<'v>(value: &'v Value, name: &str) -> Result<&'v Value, JsonError> {
    let object = value.as_object().ok_or_else(|| mismatch("an object", value))?;
    object.get(name).ok_or_else(|| JsonErrorKind::MissingField(name.to_owned()).into())
}

/// The items of an array.
pub(crate) fn expect_array(value: &Value) -> Result<&[Value], JsonError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| mismatch("an array", value))
}

/// A string.
pub(crate) fn expect_text(value: &Value) -> Result<&str, JsonError> {
    value.as_str().ok_or_else(|| mismatch("a string", value))
}

/// The only entry of an object, which is how a variant is written.
pub(crate) fn single_entry(value: &Value) -> Result<(&str, &Value), JsonError> {
    let mut entries = value.as_object().into_iter().flatten();
    match (entries.next(), entries.next()) {
        (Some((name, payload)), None) => Ok((name, payload)),
        _ => Err(mismatch("an object with one entry", value)),
    }
}

//! The envelopes of messages: `[[name, fields]]` for requests, `[name, fields]` for responses.

use crate::{DecodeError, Reader, Value, Writer};

/// Bytes reserved for a message: most are smaller, so that they are written into one allocation.
const RESERVED: usize = 192;

/// A whole request.
#[inline]
pub fn encode_request<T: Value>(name: &str, fields: &T) -> Vec<u8> {
    let mut writer = Writer::append_to(Vec::with_capacity(RESERVED));
    writer.array(1);
    write_named(&mut writer, name, fields);
    writer.into_bytes()
}

/// A whole response.
#[inline]
pub fn encode_response<T: Value>(name: &str, fields: &T) -> Vec<u8> {
    let mut writer = Writer::append_to(Vec::with_capacity(RESERVED));
    write_named(&mut writer, name, fields);
    writer.into_bytes()
}

#[inline]
fn write_named<T: Value>(writer: &mut Writer, name: &str, fields: &T) {
    writer.array(2);
    writer.string(name);
    fields.write(writer);
}

/// Reads the fields of a message, the last thing in it, after its name.
///
/// # Errors
/// Fields that are not those of the type, and bytes behind them.
#[inline]
pub fn decode_message<T: Value>(reader: &mut Reader<'_>) -> Result<T, DecodeError> {
    let fields = T::read(reader)?;
    reader.finish()?;
    Ok(fields)
}

/// Reads the head of a request: its name.
///
/// # Errors
/// Data that is no request.
#[inline]
pub fn read_request<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    exactly(reader, 1)?;
    read_response(reader)
}

/// Reads the head of a response: its name.
///
/// # Errors
/// Data that is no response.
#[inline]
pub fn read_response<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    exactly(reader, 2)?;
    reader.str()
}

fn exactly(reader: &mut Reader<'_>, expected: usize) -> Result<(), DecodeError> {
    match reader.array()? {
        found if found == expected => Ok(()),
        found => Err(DecodeError::WrongLength { position: reader.position(), expected, found }),
    }
}

impl DecodeError {
    /// The error of a message that the service does not have; long names are cut.
    #[cold]
    pub fn unknown_message(name: &str) -> Self {
        // Longer than any name of a schema, short enough for a line of a log.
        const SHOWN_MAX: usize = 100;
        Self::UnknownMessage { name: name.chars().take(SHOWN_MAX).collect() }
    }
}

//! Call records: what the log keeps of every call besides its row changes.
//!
//! Format, version 2 (BSATN): `u8` version, `u8` record tag, then the fields of [`Record`] in order. Sessions and modules are written
//! once and referenced by number, so that an ordinary call costs its arguments and some thirty bytes.

use bytes::Bytes;
use tine_types::bsatn::{BsatnWrite, DecodeError, Reader};
use tine_types::{ConnectionId, Identity};

const FORMAT_VERSION: u8 = 2;

/// What started a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// A reducer called by a client or over HTTP.
    Reducer,
    /// A lifecycle hook.
    Lifecycle,
    /// A reducer started by a schedule.
    Scheduled,
    /// One transaction of a procedure.
    Procedure,
    /// A module was published.
    Publish,
    /// A schedule's own bookkeeping: the removal of a one-shot row.
    ScheduleDone,
    /// The schedules of a fork were allowed to run.
    SchedulesResumed,
    /// A statement changed rows; the arguments are its text.
    Statement,
    /// One transaction of an HTTP handler; the arguments are the BSATN of the request, without its body.
    Handler,
    /// A local program inserted or deleted rows: `function` says which, the arguments are the table's name and their number.
    Rows,
    /// A checkpoint was reverted.
    Reverted,
}

impl CallKind {
    const ALL: [CallKind; 11] = [
        CallKind::Reducer,
        CallKind::Lifecycle,
        CallKind::Scheduled,
        CallKind::Procedure,
        CallKind::Publish,
        CallKind::ScheduleDone,
        CallKind::SchedulesResumed,
        CallKind::Statement,
        CallKind::Handler,
        CallKind::Rows,
        CallKind::Reverted,
    ];
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRecord {
    /// What started it.
    pub kind: CallKind,
    /// Source name of the function, empty where there is none.
    pub function: Box<str>,
    /// BSATN product of the arguments.
    pub arguments: Bytes,
    /// Number of the session it belongs to; 0 for the database itself.
    pub session: u64,
    /// The call's timestamp in microseconds since the Unix epoch.
    pub timestamp_micros: i64,
    /// Seed of the call's random numbers.
    pub seed: u64,
    /// The first eight bytes of the module's hash, little endian; the whole hash is in a [`Record::Module`].
    pub module: u64,
    /// Code of the failure; `None` for a call that succeeded, whose LSN, if it has one, is that of the log record around it.
    pub failure: Option<Box<str>>,
    /// Whether it was the first call of its instance. A bundle's generator of random numbers goes on from call to call, so only the
    /// first one's are known from the record.
    pub is_fresh: bool,
}

/// Everything the host writes into the call field of a log record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A call.
    Call(CallRecord),
    /// A session, written before its first call.
    Session {
        /// Its number, random and unique in the log.
        number: u64,
        /// Who.
        caller: Identity,
        /// All-zero when the session is no connection.
        connection: ConnectionId,
        /// JSON text of the token's payload, empty if none.
        jwt_payload: Box<str>,
    },
    /// A module that runs from here on.
    Module {
        /// blake3 of the program.
        hash: [u8; 32],
    },
}

/// The parts of a call record, borrowed, so that the hot path copies nothing before encoding.
pub(crate) struct CallParts<'a> {
    pub kind: CallKind,
    pub function: &'a str,
    pub arguments: &'a [u8],
    pub session: u64,
    pub timestamp_micros: i64,
    pub seed: u64,
    pub module: u64,
    pub failure: Option<&'a str>,
    pub is_fresh: bool,
}

impl CallParts<'_> {
    /// Replaces the content of `out` with the encoded record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.put_u8(FORMAT_VERSION);
        out.put_u8(0);
        out.put_u8(self.kind as u8);
        out.put_str(self.function);
        out.put_bytes(self.arguments);
        out.put_u64(self.session);
        out.put_i64(self.timestamp_micros);
        out.put_u64(self.seed);
        out.put_u64(self.module);
        match self.failure {
            Some(code) => {
                out.put_u8(0);
                out.put_str(code);
            }
            None => out.put_u8(1),
        }
        out.put_bool(self.is_fresh);
    }
}

impl Record {
    /// Encodes the record in the current format version.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Record::Call(call) => CallParts {
                kind: call.kind,
                function: &call.function,
                arguments: &call.arguments,
                session: call.session,
                timestamp_micros: call.timestamp_micros,
                seed: call.seed,
                module: call.module,
                failure: call.failure.as_deref(),
                is_fresh: call.is_fresh,
            }
            .encode(&mut out),
            Record::Session { number, caller, connection, jwt_payload } => {
                out.put_u8(FORMAT_VERSION);
                out.put_u8(1);
                out.put_u64(*number);
                out.put_identity(caller);
                out.put_connection_id(*connection);
                out.put_str(jwt_payload);
            }
            Record::Module { hash } => {
                out.put_u8(FORMAT_VERSION);
                out.put_u8(2);
                out.extend_from_slice(hash);
            }
        }
        out
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no record of a known version.
    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != FORMAT_VERSION {
            return Err(DecodeError::InvalidTag { position: 0, tag: version });
        }
        let record = match reader.tag(3)? {
            0 => Record::Call(Self::decode_call(&mut reader)?),
            1 => Record::Session {
                number: reader.u64()?,
                caller: reader.identity()?,
                connection: reader.connection_id()?,
                jwt_payload: reader.str()?.into(),
            },
            _ => Record::Module { hash: *reader.take(32)?.first_chunk().expect("32 bytes were taken") },
        };
        reader.finish()?;
        Ok(record)
    }

    fn decode_call(reader: &mut Reader<'_>) -> Result<CallRecord, DecodeError> {
        let kind = CallKind::ALL[usize::from(reader.tag(CallKind::ALL.len())?)];
        Ok(CallRecord {
            kind,
            function: reader.str()?.into(),
            arguments: Bytes::copy_from_slice(reader.bytes()?),
            session: reader.u64()?,
            timestamp_micros: reader.i64()?,
            seed: reader.u64()?,
            module: reader.u64()?,
            failure: if reader.option()? { Some(reader.str()?.into()) } else { None },
            is_fresh: reader.bool()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_truncated_ones_are_refused() {
        let call = |failure: Option<&str>| {
            Record::Call(CallRecord {
                kind: CallKind::Scheduled,
                function: "tick".into(),
                arguments: Bytes::from_static(&[1, 2, 3]),
                session: 7,
                timestamp_micros: -5,
                seed: u64::MAX,
                module: 9,
                failure: failure.map(Into::into),
                is_fresh: failure.is_none(),
            })
        };
        let session = Record::Session {
            number: 3,
            caller: Identity::from_claims("issuer", "subject"),
            connection: ConnectionId::new(77),
            jwt_payload: "{\"sub\":\"x\"}".into(),
        };
        for record in [call(None), call(Some("TN0501")), session, Record::Module { hash: [3; 32] }] {
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes).expect("decodes"), record);
            for length in 0..bytes.len() {
                assert!(Record::decode(&bytes[..length]).is_err(), "{length} bytes of {record:?}");
            }
        }
    }

    #[test]
    fn kinds_keep_their_numbers() {
        for (number, kind) in CallKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }
}

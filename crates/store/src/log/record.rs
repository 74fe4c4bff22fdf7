//! The records inside a frame.
//!
//! A record is one byte of kind and its fields. Numbers are LEB128 unless said, byte strings are preceded by
//! their length.
//!
//! | kind | fields |
//! |---|---|
//! | 1 commit | fork, lsn, timestamp (i64, 8 bytes), operations as one byte string, call (to the end) |
//! | 2 fork created | fork, name, created at (i64, 8 bytes), 0 or (1, parent fork, parent lsn) |
//! | 3 fork dropped | fork |
//! | 4 fork renamed | fork, name |
//! | 5 keyspaces allocated | first, count |
//! | 6 fork ids reserved | the first id that is not reserved |
//! | 7 call without a commit | fork, call (to the end) |
//! | 8 fork with an expiry created | as 2, then expires at (i64, 8 bytes) |
//! | 9 fork replaced | fork, the fork whose name it takes and which is dropped |
//! | 10 version named | fork, lsn, name |
//! | 11 version's name forgotten | name |
//!
//! An operation is 1, keyspace, key, value (put) or 2, keyspace, key (delete).

use bytes::Bytes;

use crate::ids::{ForkId, KeyspaceId, Lsn, Version};

const KIND_COMMIT: u8 = 1;
const KIND_FORK_CREATED: u8 = 2;
const KIND_FORK_DROPPED: u8 = 3;
const KIND_FORK_RENAMED: u8 = 4;
const KIND_KEYSPACES_ALLOCATED: u8 = 5;
const KIND_FORK_IDS_RESERVED: u8 = 6;
const KIND_CALL: u8 = 7;
const KIND_FORK_WITH_EXPIRY_CREATED: u8 = 8;
const KIND_FORK_REPLACED: u8 = 9;
const KIND_VERSION_NAMED: u8 = 10;
const KIND_VERSION_NAME_FORGOTTEN: u8 = 11;

const OPERATION_PUT: u8 = 1;
const OPERATION_DELETE: u8 = 2;

/// Most bytes that the fields of a record take besides its byte strings.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 64;

/// A record as it lies in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordRef<'a> {
    Commit {
        version: Version,
        timestamp_micros: i64,
        operations: &'a [u8],
        call: &'a [u8],
    },
    ForkCreated {
        fork: ForkId,
        name: &'a str,
        created_at_micros: i64,
        parent: Option<Version>,
        expires_at_micros: Option<i64>,
    },
    ForkDropped {
        fork: ForkId,
    },
    ForkReplaced {
        fork: ForkId,
        replaced: ForkId,
    },
    ForkRenamed {
        fork: ForkId,
        name: &'a str,
    },
    KeyspacesAllocated {
        first: KeyspaceId,
        count: u32,
    },
    ForkIdsReserved {
        end: ForkId,
    },
    Call {
        fork: ForkId,
        call: &'a [u8],
    },
    VersionNamed {
        version: Version,
        name: &'a str,
    },
    VersionNameForgotten {
        name: &'a str,
    },
}

/// One write of a commit as it lies in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OperationRef<'a> {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

/// The bytes are not a record. They passed their checksum, so they come from another release or a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRecord;

impl RecordRef<'_> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            RecordRef::Commit { version, timestamp_micros, operations, call } => {
                out.push(KIND_COMMIT);
                put_number(out, version.fork.get());
                put_number(out, version.lsn.get());
                out.extend_from_slice(&timestamp_micros.to_le_bytes());
                put_bytes(out, operations);
                out.extend_from_slice(call);
            }
            RecordRef::ForkCreated { fork, name, created_at_micros, parent, expires_at_micros } => {
                let expires = expires_at_micros.is_some();
                out.push(if expires { KIND_FORK_WITH_EXPIRY_CREATED } else { KIND_FORK_CREATED });
                put_number(out, fork.get());
                put_bytes(out, name.as_bytes());
                out.extend_from_slice(&created_at_micros.to_le_bytes());
                out.push(u8::from(parent.is_some()));
                if let Some(parent) = parent {
                    put_number(out, parent.fork.get());
                    put_number(out, parent.lsn.get());
                }
                if let Some(expires_at_micros) = expires_at_micros {
                    out.extend_from_slice(&expires_at_micros.to_le_bytes());
                }
            }
            RecordRef::ForkReplaced { fork, replaced } => {
                out.push(KIND_FORK_REPLACED);
                put_number(out, fork.get());
                put_number(out, replaced.get());
            }
            RecordRef::ForkDropped { fork } => {
                out.push(KIND_FORK_DROPPED);
                put_number(out, fork.get());
            }
            RecordRef::ForkRenamed { fork, name } => {
                out.push(KIND_FORK_RENAMED);
                put_number(out, fork.get());
                put_bytes(out, name.as_bytes());
            }
            RecordRef::KeyspacesAllocated { first, count } => {
                out.push(KIND_KEYSPACES_ALLOCATED);
                put_number(out, u64::from(first.get()));
                put_number(out, u64::from(count));
            }
            RecordRef::ForkIdsReserved { end } => {
                out.push(KIND_FORK_IDS_RESERVED);
                put_number(out, end.get());
            }
            RecordRef::Call { fork, call } => {
                out.push(KIND_CALL);
                put_number(out, fork.get());
                out.extend_from_slice(call);
            }
            RecordRef::VersionNamed { version, name } => {
                out.push(KIND_VERSION_NAMED);
                put_number(out, version.fork.get());
                put_number(out, version.lsn.get());
                put_bytes(out, name.as_bytes());
            }
            RecordRef::VersionNameForgotten { name } => {
                out.push(KIND_VERSION_NAME_FORGOTTEN);
                put_bytes(out, name.as_bytes());
            }
        }
    }

    /// An upper bound of the bytes that [`RecordRef::encode`] appends.
    pub(crate) fn size_bound(&self) -> usize {
        RECORD_OVERHEAD_BYTES
            + match self {
                RecordRef::Commit { operations, call, .. } => operations.len() + call.len(),
                RecordRef::ForkCreated { name, .. }
                | RecordRef::ForkRenamed { name, .. }
                | RecordRef::VersionNamed { name, .. }
                | RecordRef::VersionNameForgotten { name } => name.len(),
                RecordRef::Call { call, .. } => call.len(),
                _ => 0,
            }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<RecordRef<'_>, BadRecord> {
        let mut input = Input(bytes);
        let record = match input.byte()? {
            KIND_COMMIT => RecordRef::Commit {
                version: input.version()?,
                timestamp_micros: input.timestamp()?,
                operations: input.bytes()?,
                call: input.rest(),
            },
            kind @ (KIND_FORK_CREATED | KIND_FORK_WITH_EXPIRY_CREATED) => RecordRef::ForkCreated {
                fork: input.fork()?,
                name: input.text()?,
                created_at_micros: input.timestamp()?,
                parent: input.option(Input::version)?,
                expires_at_micros: match kind {
                    KIND_FORK_WITH_EXPIRY_CREATED => Some(input.timestamp()?),
                    _ => None,
                },
            },
            KIND_FORK_REPLACED => RecordRef::ForkReplaced { fork: input.fork()?, replaced: input.fork()? },
            KIND_FORK_DROPPED => RecordRef::ForkDropped { fork: input.fork()? },
            KIND_FORK_RENAMED => RecordRef::ForkRenamed { fork: input.fork()?, name: input.text()? },
            KIND_KEYSPACES_ALLOCATED => {
                RecordRef::KeyspacesAllocated { first: input.keyspace()?, count: input.number32()? }
            }
            KIND_FORK_IDS_RESERVED => RecordRef::ForkIdsReserved { end: input.fork()? },
            KIND_CALL => RecordRef::Call { fork: input.fork()?, call: input.rest() },
            KIND_VERSION_NAMED => RecordRef::VersionNamed { version: input.version()?, name: input.text()? },
            KIND_VERSION_NAME_FORGOTTEN => RecordRef::VersionNameForgotten { name: input.text()? },
            _ => return Err(BadRecord),
        };
        if input.0.is_empty() { Ok(record) } else { Err(BadRecord) }
    }
}

/// Appends one write; `None` deletes.
pub(crate) fn put_operation(out: &mut Vec<u8>, keyspace: KeyspaceId, key: &[u8], value: Option<&[u8]>) {
    out.push(if value.is_some() { OPERATION_PUT } else { OPERATION_DELETE });
    put_number(out, u64::from(keyspace.get()));
    put_bytes(out, key);
    if let Some(value) = value {
        put_bytes(out, value);
    }
}

/// The writes of a commit in order.
pub(crate) fn operations(bytes: &[u8]) -> impl Iterator<Item = Result<OperationRef<'_>, BadRecord>> {
    let mut input = Input(bytes);
    std::iter::from_fn(move || {
        if input.0.is_empty() {
            return None;
        }
        let operation = input.operation();
        if operation.is_err() {
            input.0 = &[];
        }
        Some(operation)
    })
}

/// Appends a record with its length to a frame.
pub(crate) fn append_record(frame: &mut Vec<u8>, record: &RecordRef<'_>) {
    let start = frame.len();
    frame.extend_from_slice(&[0; 4]);
    record.encode(frame);
    let length = u32::try_from(frame.len() - start - 4).expect("records are bounded by RECORD_BYTES_MAX");
    frame[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Cuts the next record's bytes off the front of `payload`.
pub(crate) fn take_record<'a>(payload: &mut &'a [u8]) -> Result<&'a [u8], BadRecord> {
    let (length, rest) = payload.split_first_chunk::<4>().ok_or(BadRecord)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (record, rest) = rest.split_at_checked(length).ok_or(BadRecord)?;
    *payload = rest;
    Ok(record)
}

pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Bytes to decode, from their start.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, BadRecord> {
        let (byte, rest) = self.0.split_first().ok_or(BadRecord)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(crate) fn number(&mut self) -> Result<u64, BadRecord> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(BadRecord);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(BadRecord)
    }

    pub(crate) fn number32(&mut self) -> Result<u32, BadRecord> {
        u32::try_from(self.number()?).map_err(|_| BadRecord)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], BadRecord> {
        let length = usize::try_from(self.number()?).map_err(|_| BadRecord)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(BadRecord)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, BadRecord> {
        std::str::from_utf8(self.bytes()?).map_err(|_| BadRecord)
    }

    pub(crate) fn timestamp(&mut self) -> Result<i64, BadRecord> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn array<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], BadRecord> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(BadRecord)?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// A byte that says whether a field follows, and the field.
    pub(crate) fn option<T>(
        &mut self,
        field: impl FnOnce(&mut Self) -> Result<T, BadRecord>,
    ) -> Result<Option<T>, BadRecord> {
        match self.byte()? {
            0 => Ok(None),
            1 => field(self).map(Some),
            _ => Err(BadRecord),
        }
    }

    pub(crate) fn fork(&mut self) -> Result<ForkId, BadRecord> {
        Ok(ForkId::new(self.number()?))
    }

    pub(crate) fn keyspace(&mut self) -> Result<KeyspaceId, BadRecord> {
        Ok(KeyspaceId::new(self.number32()?))
    }

    pub(crate) fn version(&mut self) -> Result<Version, BadRecord> {
        Ok(Version { fork: self.fork()?, lsn: Lsn::new(self.number()?) })
    }

    pub(crate) fn operation(&mut self) -> Result<OperationRef<'a>, BadRecord> {
        let kind = self.byte()?;
        let (keyspace, key) = (self.keyspace()?, self.bytes()?);
        let value = match kind {
            OPERATION_PUT => Some(self.bytes()?),
            OPERATION_DELETE => None,
            _ => return Err(BadRecord),
        };
        Ok(OperationRef { keyspace, key, value })
    }
}

/// One write of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Where.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Bytes,
    /// The new value, or `None` if the key was deleted.
    pub value: Option<Bytes>,
}

/// A record of the log; see [`Store::read_log`](crate::Store::read_log).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Position in the log, dense from 1. Equals the number of the record's [`DurableTicket`](crate::DurableTicket).
    pub sequence: u64,
    /// Number of the segment file.
    pub segment: u64,
    /// Byte offset in the segment of the frame that holds the record.
    pub offset: u64,
    /// What happened.
    pub kind: LogRecordKind,
}

/// What a [`LogRecord`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRecordKind {
    /// A transaction changed a fork.
    Commit {
        /// The fork and its new LSN.
        version: Version,
        /// Commit time in microseconds since the Unix epoch.
        timestamp_micros: i64,
        /// The writes in the order they were made; a key may occur more than once.
        operations: Vec<Operation>,
        /// What the caller recorded with it.
        call: Bytes,
    },
    /// A fork was made.
    ForkCreated {
        /// The new fork.
        fork: ForkId,
        /// Its name.
        name: String,
        /// The version it starts from; `None` for the empty state.
        parent: Option<Version>,
        /// When, in microseconds since the Unix epoch.
        created_at_micros: i64,
        /// When it is to be dropped, in microseconds since the Unix epoch.
        expires_at_micros: Option<i64>,
    },
    /// A fork was dropped and another got its name.
    ForkReplaced {
        /// The one that has the name now.
        fork: ForkId,
        /// The one that was dropped.
        replaced: ForkId,
    },
    /// A fork was dropped.
    ForkDropped {
        /// Which one.
        fork: ForkId,
    },
    /// A fork got another name.
    ForkRenamed {
        /// Which one.
        fork: ForkId,
        /// Its new name.
        name: String,
    },
    /// Keyspace numbers were handed out.
    KeyspacesAllocated {
        /// The first of them.
        first: KeyspaceId,
        /// How many.
        count: u32,
    },
    /// Fork numbers below this one may be in use by ephemeral forks.
    ForkIdsReserved {
        /// The first number that is not reserved.
        end: ForkId,
    },
    /// A call that committed nothing.
    Call {
        /// The fork it ran on.
        fork: ForkId,
        /// What the caller recorded.
        call: Bytes,
    },
    /// A version got a name.
    VersionNamed {
        /// Which one.
        version: Version,
        /// Its name.
        name: String,
    },
    /// A version's name was given up.
    VersionNameForgotten {
        /// The name.
        name: String,
    },
}

impl LogRecordKind {
    /// Decodes the record `bytes`, which lie in `payload`; the result shares its memory.
    pub(crate) fn decode(payload: &Bytes, bytes: &[u8]) -> Result<LogRecordKind, BadRecord> {
        let share = |part: &[u8]| payload.slice_ref(part);
        Ok(match RecordRef::decode(bytes)? {
            RecordRef::Commit { version, timestamp_micros, operations: encoded, call } => {
                let operations = operations(encoded)
                    .map(|operation| {
                        let OperationRef { keyspace, key, value } = operation?;
                        Ok(Operation { keyspace, key: share(key), value: value.map(share) })
                    })
                    .collect::<Result<_, _>>()?;
                LogRecordKind::Commit { version, timestamp_micros, operations, call: share(call) }
            }
            RecordRef::ForkCreated { fork, name, created_at_micros, parent, expires_at_micros } => {
                let name = name.to_owned();
                LogRecordKind::ForkCreated { fork, name, parent, created_at_micros, expires_at_micros }
            }
            RecordRef::ForkReplaced { fork, replaced } => LogRecordKind::ForkReplaced { fork, replaced },
            RecordRef::ForkDropped { fork } => LogRecordKind::ForkDropped { fork },
            RecordRef::ForkRenamed { fork, name } => LogRecordKind::ForkRenamed { fork, name: name.to_owned() },
            RecordRef::KeyspacesAllocated { first, count } => LogRecordKind::KeyspacesAllocated { first, count },
            RecordRef::ForkIdsReserved { end } => LogRecordKind::ForkIdsReserved { end },
            RecordRef::Call { fork, call } => LogRecordKind::Call { fork, call: share(call) },
            RecordRef::VersionNamed { version, name } => LogRecordKind::VersionNamed { version, name: name.to_owned() },
            RecordRef::VersionNameForgotten { name } => LogRecordKind::VersionNameForgotten { name: name.to_owned() },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(record: RecordRef<'_>) {
        let mut frame = Vec::new();
        append_record(&mut frame, &record);
        assert!(frame.len() <= record.size_bound() + 4);
        let mut rest = frame.as_slice();
        let bytes = take_record(&mut rest).expect("whole");
        assert!(rest.is_empty());
        assert_eq!(RecordRef::decode(bytes), Ok(record));
    }

    proptest! {
        #[test]
        fn round_trip(
            number in any::<u64>(), small in any::<u32>(), time in any::<i64>(),
            text in ".{0,20}", bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let fork = ForkId::new(number);
            let version = Version { fork, lsn: Lsn::new(number ^ u64::from(small)) };
            check(RecordRef::Commit { version, timestamp_micros: time, operations: &bytes, call: text.as_bytes() });
            for parent in [None, Some(version)] {
                for expires_at_micros in [None, Some(time)] {
                    let created_at_micros = time;
                    check(RecordRef::ForkCreated { fork, name: &text, created_at_micros, parent, expires_at_micros });
                }
            }
            check(RecordRef::ForkReplaced { fork, replaced: ForkId::new(u64::from(small)) });
            check(RecordRef::ForkDropped { fork });
            check(RecordRef::ForkRenamed { fork, name: &text });
            check(RecordRef::KeyspacesAllocated { first: KeyspaceId::new(small), count: small });
            check(RecordRef::ForkIdsReserved { end: fork });
            check(RecordRef::Call { fork, call: &bytes });
            check(RecordRef::VersionNamed { version, name: &text });
            check(RecordRef::VersionNameForgotten { name: &text });
        }

        #[test]
        fn operations_round_trip(
            writes in prop::collection::vec(
                (any::<u32>(), prop::collection::vec(any::<u8>(), 0..200), prop::option::of(prop::collection::vec(any::<u8>(), 0..200))),
                0..20,
            ),
        ) {
            let mut encoded = Vec::new();
            for (keyspace, key, value) in &writes {
                put_operation(&mut encoded, KeyspaceId::new(*keyspace), key, value.as_deref());
            }
            let decoded = operations(&encoded)
                .map(|operation| operation.map(|o| (o.keyspace.get(), o.key.to_vec(), o.value.map(<[u8]>::to_vec))))
                .collect::<Result<Vec<_>, _>>();
            prop_assert_eq!(decoded, Ok(writes));
        }

        #[test]
        fn hostile_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let payload = Bytes::from(bytes);
            let _ = LogRecordKind::decode(&payload, &payload);
            prop_assert!(operations(&payload).count() <= payload.len());
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let cases: [&[u8]; 9] = [
            b"",
            &[0],
            &[99, 1],
            &[KIND_FORK_DROPPED],
            &[KIND_FORK_DROPPED, 1, 1],
            &[KIND_FORK_DROPPED, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[KIND_FORK_RENAMED, 1, 1, 0xff],
            &[KIND_KEYSPACES_ALLOCATED, 0xff, 0xff, 0xff, 0xff, 0x1f, 1],
            &[KIND_COMMIT, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1],
        ];
        for case in cases {
            assert_eq!(RecordRef::decode(case), Err(BadRecord), "{case:?}");
        }
    }
}

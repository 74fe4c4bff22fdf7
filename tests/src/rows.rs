//! Rows and arguments of the probe module (`tests/modules/probe.ts`).

use bytes::Bytes;
use tine_client::protocol::{QueryRows, RowList, ServerMessage, TableUpdateRows, TransactionUpdate};
use tine_types::bsatn::{BsatnWrite, Reader};

/// A row of `person`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Person {
    /// Generated.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Age.
    pub age: u32,
}

/// A row of `entry`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Generated.
    pub id: u64,
    /// Which client wrote it.
    pub client: u32,
    /// The client's own count.
    pub sequence: u32,
    /// Anything.
    pub text: String,
}

/// A row that can be read.
pub trait Row: Sized {
    /// Decodes one row.
    ///
    /// # Panics
    /// When the bytes are not such a row.
    fn decode(row: &[u8]) -> Self;
}

impl Row for Person {
    fn decode(row: &[u8]) -> Person {
        let mut reader = Reader::new(row);
        let mut read =
            || Ok::<_, tine_types::bsatn::DecodeError>((reader.u64()?, reader.str()?.to_owned(), reader.u32()?));
        let (id, name, age) = read().expect("a person");
        Person { id, name, age }
    }
}

impl Row for Entry {
    fn decode(row: &[u8]) -> Entry {
        let mut reader = Reader::new(row);
        let mut read = || {
            let ids = (reader.u64()?, reader.u32()?, reader.u32()?);
            Ok::<_, tine_types::bsatn::DecodeError>((ids, reader.str()?.to_owned()))
        };
        let ((id, client, sequence), text) = read().expect("an entry");
        Entry { id, client, sequence, text }
    }
}

/// All rows of a list.
pub fn decode<R: Row>(rows: &RowList) -> Vec<R> {
    rows.rows().map(R::decode).collect()
}

/// All rows of a table in the result of a query.
pub fn of_table<R: Row>(rows: &QueryRows, table: &str) -> Vec<R> {
    rows.tables.iter().filter(|part| &*part.table == table).flat_map(|part| decode(&part.rows)).collect()
}

/// Inserted and deleted rows of a table in an update.
pub fn changes<R: Row>(update: &TransactionUpdate, table: &str) -> (Vec<R>, Vec<R>) {
    let (mut inserted, mut deleted) = (Vec::new(), Vec::new());
    for part in update.query_sets.iter().flat_map(|set| &set.tables).filter(|part| &*part.table == table) {
        if let TableUpdateRows::Persistent { inserts, deletes } = &part.rows {
            inserted.extend(decode(inserts));
            deleted.extend(decode(deletes));
        }
    }
    (inserted, deleted)
}

/// The update in a message, if it is one.
pub fn update_of(message: &ServerMessage) -> Option<&TransactionUpdate> {
    match message {
        ServerMessage::TransactionUpdate(update) => Some(update),
        _ => None,
    }
}

/// Arguments of `add`.
pub fn add(name: &str, age: u32) -> Bytes {
    let mut out = Vec::new();
    out.put_str(name);
    out.put_u32(age);
    out.into()
}

/// Arguments of `append`.
pub fn append(client: u32, sequence: u32, text: &str) -> Bytes {
    let mut out = Vec::new();
    out.put_u32(client);
    out.put_u32(sequence);
    out.put_str(text);
    out.into()
}

/// Arguments of `fill`.
pub fn fill(count: u32, bytes: u32) -> Bytes {
    let mut out = Vec::new();
    out.put_u32(count);
    out.put_u32(bytes);
    out.into()
}

/// One string argument.
pub fn text(text: &str) -> Bytes {
    let mut out = Vec::new();
    out.put_str(text);
    out.into()
}

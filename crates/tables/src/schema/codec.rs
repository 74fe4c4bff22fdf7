//! The schema as bytes, kept in the store beside the rows so that a version knows its schema.
//!
//! A format version byte, then BSATN-style fields in the order of the structs. What can be worked
//! out (layouts, lookup tables, sizes) is not stored.

use std::sync::Arc;

use bytes::Bytes;
use tine_store::KeyspaceId;
use tine_types::bsatn::{BsatnWrite, DecodeError, Reader, decode_product_type, encode_product_type};

use tine_types::Typespace;

use super::{ColumnSchema, DatabaseSchema, IndexAlgorithm, IndexSchema, SequenceSchema, TableSchedule, TableSchema};
use crate::error::SchemaError;
use crate::ids::{ColumnId, IndexId, TableId};
use crate::layout::TableLayout;

const FORMAT_VERSION: u8 = 1;

impl DatabaseSchema {
    /// The schema as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT_VERSION];
        out.put_u32(self.sequences_keyspace.get());
        out.put_len(self.tables.len());
        for table in &self.tables {
            encode_table(table, &mut out);
        }
        out
    }

    /// The schema that [`DatabaseSchema::encode`] wrote.
    ///
    /// # Errors
    /// Another format version, or bytes that do not describe a consistent schema.
    pub fn decode(bytes: &[u8]) -> Result<DatabaseSchema, SchemaError> {
        let damaged = |error: DecodeError| SchemaError::Damaged(error.to_string());
        let mut reader = Reader::new(bytes);
        let version = reader.u8().map_err(damaged)?;
        if version != FORMAT_VERSION {
            return Err(SchemaError::UnknownVersion(version));
        }
        let sequences_keyspace = KeyspaceId::new(reader.u32().map_err(damaged)?);
        let tables = read_list(&mut reader, read_table).map_err(damaged)?;
        reader.finish().map_err(damaged)?;
        for table in &tables {
            let inlined = Typespace::default().inline_product(&table.row_type);
            inlined.map_err(|error| SchemaError::Damaged(error.to_string()))?;
        }
        DatabaseSchema::assemble(sequences_keyspace, tables).map_err(|error| SchemaError::Damaged(error.to_string()))
    }
}

fn encode_table(table: &TableSchema, out: &mut Vec<u8>) {
    out.put_u32(table.id.0);
    out.put_str(&table.name);
    out.put_str(&table.accessor);
    encode_product_type(&table.row_type, out);
    for column in &table.columns {
        out.put_str(&column.name);
        out.put_str(&column.accessor);
    }
    put_option(out, table.primary_key.as_ref(), |out, column| out.put_u16(column.0));
    put_list(out, &table.indexes, encode_index);
    put_list(out, &table.sequences, |out, sequence| {
        out.put_u16(sequence.column.0);
        for number in [sequence.start, sequence.min, sequence.max, sequence.increment] {
            out.put_i128(number);
        }
    });
    put_list(out, &table.defaults, |out, (column, value)| {
        out.put_u16(column.0);
        out.put_bytes(value);
    });
    out.put_bool(table.public);
    out.put_bool(table.is_event);
    put_option(out, table.schedule.as_ref(), |out, schedule| {
        out.put_u16(schedule.at_column.0);
        out.put_str(&schedule.function);
    });
}

fn encode_index(out: &mut Vec<u8>, index: &IndexSchema) {
    out.put_u32(index.id.0);
    out.put_str(&index.name);
    out.put_str(&index.accessor);
    put_list(out, &index.columns, |out, column| out.put_u16(column.0));
    out.put_bool(index.unique);
    out.put_str(&index.constraint);
    out.put_u8(match index.algorithm {
        IndexAlgorithm::BTree => 0,
        IndexAlgorithm::Hash => 1,
        IndexAlgorithm::Direct => 2,
    });
    out.put_bool(index.is_primary_key);
}

fn read_table(reader: &mut Reader<'_>) -> Result<TableSchema, DecodeError> {
    let id = TableId(reader.u32()?);
    let name = read_name(reader)?;
    let accessor = read_name(reader)?;
    let row_type = decode_product_type(reader)?;
    let mut columns = Vec::new();
    for (position, element) in row_type.elements.iter().enumerate() {
        columns.push(ColumnSchema {
            name: read_name(reader)?,
            accessor: read_name(reader)?,
            ty: element.ty.clone(),
            position: ColumnId(position as u16),
        });
    }
    let primary_key = read_option(reader, |reader| reader.u16().map(ColumnId))?;
    let indexes = read_list(reader, read_index)?;
    let sequences = read_list(reader, |reader| {
        Ok(SequenceSchema {
            column: ColumnId(reader.u16()?),
            start: reader.i128()?,
            min: reader.i128()?,
            max: reader.i128()?,
            increment: reader.i128()?,
        })
    })?;
    let defaults = read_list(reader, |reader| Ok((ColumnId(reader.u16()?), Bytes::copy_from_slice(reader.bytes()?))))?;
    let public = reader.bool()?;
    let is_event = reader.bool()?;
    let schedule = read_option(reader, |reader| {
        Ok(TableSchedule { at_column: ColumnId(reader.u16()?), function: read_name(reader)? })
    })?;
    let static_row_size = row_type.static_bsatn_size();
    Ok(TableSchema {
        id,
        name,
        accessor,
        row_type,
        columns,
        primary_key,
        indexes,
        sequences,
        defaults,
        public,
        is_event,
        schedule,
        static_row_size,
        layout: TableLayout::default(),
    })
}

fn read_index(reader: &mut Reader<'_>) -> Result<IndexSchema, DecodeError> {
    Ok(IndexSchema {
        id: IndexId(reader.u32()?),
        name: read_name(reader)?,
        accessor: read_name(reader)?,
        columns: read_list(reader, |reader| reader.u16().map(ColumnId))?,
        unique: reader.bool()?,
        constraint: read_name(reader)?,
        algorithm: match reader.tag(3)? {
            0 => IndexAlgorithm::BTree,
            1 => IndexAlgorithm::Hash,
            _ => IndexAlgorithm::Direct,
        },
        is_primary_key: reader.bool()?,
    })
}

fn read_name(reader: &mut Reader<'_>) -> Result<Arc<str>, DecodeError> {
    reader.str().map(Arc::from)
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    out.put_len(items.len());
    for item in items {
        put(out, item);
    }
}

fn put_option<T>(out: &mut Vec<u8>, item: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    out.put_bool(item.is_some());
    if let Some(item) = item {
        put(out, item);
    }
}

/// Every item of every list here takes at least two bytes.
fn read_list<T>(
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.array_len(2)?;
    (0..count).map(|_| read(reader)).collect()
}

fn read_option<T>(
    reader: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if reader.bool()? { read(reader).map(Some) } else { Ok(None) }
}

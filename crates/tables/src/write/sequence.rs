//! Sequences: the values of columns that were inserted as 0.
//!
//! The state of a sequence is the last value taken, kept as a row of the shared sequence keyspace:
//! key table id and column (big endian), value the 128-bit integer (little endian). So it is part of
//! the version: rolled back with the transaction and copied by a fork.
//!
//! A module may insert its own values beside generated ones. When the next value is already taken in
//! a unique column, the sequence goes on past the largest (for a falling sequence: smallest) value of
//! the column. It could not do so by failing and being tried again, because a refused insert takes
//! the sequence back too.

use std::ops::Bound;

use tine_store::{Direction, Read, Writer};
use tine_types::AlgebraicType;

use super::{Buffers, TableWriter};
use crate::error::TableError;
use crate::ids::TableId;
use crate::layout::push_column;
use crate::schema::{IndexSchema, SequenceSchema, TableSchema};

const STATE_KEY_BYTES: usize = 6;

impl TableWriter {
    /// If the sequence's column of `buffers.row` holds 0, puts the next value there and appends it to
    /// `generated`.
    pub(super) fn fill_sequence(
        &mut self,
        table: &TableSchema,
        sequence: &SequenceSchema,
        generated: &mut Vec<u8>,
    ) -> Result<(), TableError> {
        let Buffers { row, offsets, entry, .. } = &mut self.buffers;
        let column = sequence.column.position();
        let place = offsets[column] as usize..offsets[column + 1] as usize;
        if row[place.clone()].iter().any(|&byte| byte != 0) {
            return Ok(());
        }
        let keyspace = self.schema.sequences_keyspace();
        let key = state_key(table.id, sequence);
        let exhausted =
            || TableError::SequenceOverflow { table: table.name.clone(), column: table.columns[column].name.clone() };
        let last = match self.writer.get(keyspace, &key)? {
            Some(state) => Some(read_state(table, &state)?),
            None => None,
        };
        let mut value = sequence.after(last).ok_or_else(exhausted)?;
        write_value(value, &mut row[place.clone()]);
        if let Some(index) = table.unique_index_on(sequence) {
            let keyspace = if index.is_primary_key { table.id.keyspace() } else { index.id.keyspace() };
            entry.clear();
            push_column(&table.columns, column, row, offsets, entry);
            if self.writer.get(keyspace, entry)?.is_some() {
                let ty = &table.columns[column].ty;
                let extreme = extreme_value(&self.writer, index, keyspace, ty, sequence.increment)?;
                value = sequence.after(Some(extreme)).ok_or_else(exhausted)?;
                write_value(value, &mut row[place.clone()]);
            }
        }
        self.writer.put(keyspace, &key, &value.to_le_bytes())?;
        generated.extend_from_slice(&row[place]);
        Ok(())
    }
}

impl SequenceSchema {
    /// The value after `last`, or the first one; `None` when there is none within the limits.
    fn after(&self, last: Option<i128>) -> Option<i128> {
        let value = match last {
            None => self.start,
            Some(last) => last.checked_add(self.increment)?,
        };
        (self.min <= value && value <= self.max).then_some(value)
    }
}

impl TableSchema {
    fn unique_index_on(&self, sequence: &SequenceSchema) -> Option<&IndexSchema> {
        self.indexes.iter().find(|index| index.unique && index.columns == [sequence.column])
    }
}

pub(crate) fn state_key(table: TableId, sequence: &SequenceSchema) -> [u8; STATE_KEY_BYTES] {
    let mut key = [0; STATE_KEY_BYTES];
    key[..4].copy_from_slice(&table.0.to_be_bytes());
    key[4..].copy_from_slice(&sequence.column.0.to_be_bytes());
    key
}

fn read_state(table: &TableSchema, state: &[u8]) -> Result<i128, TableError> {
    let damaged = || TableError::Damaged { what: table.name.clone() };
    Ok(i128::from_le_bytes(state.try_into().map_err(|_| damaged())?))
}

/// Writes the low bytes of `value`; the sequence's limits lie within the column's type.
fn write_value(value: i128, column: &mut [u8]) {
    let bytes = value.to_le_bytes();
    column.copy_from_slice(&bytes[..column.len()]);
}

/// The largest value in a unique one-column index, or the smallest for a falling sequence.
fn extreme_value(
    writer: &Writer,
    index: &IndexSchema,
    keyspace: tine_store::KeyspaceId,
    ty: &AlgebraicType,
    increment: i128,
) -> Result<i128, TableError> {
    let direction = if increment > 0 { Direction::Reverse } else { Direction::Forward };
    let mut cursor = writer.range(keyspace, Bound::Unbounded, Bound::Unbounded, direction);
    let damaged = || TableError::Damaged { what: index.name.clone() };
    let (key, _) = cursor.next()?.ok_or_else(damaged)?;
    decode_integer(ty, key).ok_or_else(damaged)
}

/// The integer with the given key encoding; one above `i128::MAX` comes back as that.
fn decode_integer(ty: &AlgebraicType, key: &[u8]) -> Option<i128> {
    let size = ty.primitive_size()?;
    if key.len() != size || size > 16 {
        return None;
    }
    let mut bytes = [0; 16];
    bytes[16 - size..].copy_from_slice(key);
    let number = u128::from_be_bytes(bytes);
    let signed = matches!(
        ty,
        AlgebraicType::I8 | AlgebraicType::I16 | AlgebraicType::I32 | AlgebraicType::I64 | AlgebraicType::I128
    );
    if !signed {
        return Some(i128::try_from(number).unwrap_or(i128::MAX));
    }
    let bias = 1u128 << (size * 8 - 1);
    Some(number.wrapping_sub(bias) as i128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tine_types::bsatn::{BsatnWrite, Reader};

    #[test]
    fn integers_come_back_from_their_keys() {
        let cases: &[(AlgebraicType, i128)] = &[
            (AlgebraicType::U8, 255),
            (AlgebraicType::I8, -128),
            (AlgebraicType::I8, 127),
            (AlgebraicType::I16, -2),
            (AlgebraicType::U32, 70_000),
            (AlgebraicType::I64, i128::from(i64::MIN)),
            (AlgebraicType::U64, i128::from(u64::MAX)),
            (AlgebraicType::I128, i128::MIN),
            (AlgebraicType::I128, -1),
            (AlgebraicType::U128, i128::MAX),
        ];
        for (ty, value) in cases {
            let mut bsatn = Vec::new();
            bsatn.put_i128(*value);
            bsatn.truncate(ty.primitive_size().unwrap());
            let mut key = Vec::new();
            crate::key::encode_checked(ty, &mut Reader::new(&bsatn), &mut key).unwrap();
            assert_eq!(decode_integer(ty, &key), Some(*value), "{ty:?} {value}");
        }
    }
}

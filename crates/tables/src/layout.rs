//! Per-table facts worked out once, for the row path.
//!
//! A row is validated and its columns are found in one pass ([`TableLayout::scan`]): columns that
//! any bytes of the right length are valid for (numbers, identities, timestamps) are stepped over,
//! the others are checked by the decoder. The pass leaves the byte offset of every column, from which
//! row keys, index keys and sequence columns are read without decoding.

use tine_types::AlgebraicType;
use tine_types::bsatn::{self, DecodeError, Reader};

use crate::ids::ColumnId;
use crate::key;
use crate::schema::ColumnSchema;

/// Bytes of the row key of a table without a primary key: a hash of the row, wide enough that two
/// different rows never share one.
pub(crate) const ROW_HASH_BYTES: usize = 16;

/// The default is a placeholder for a table that is not part of a schema yet.
#[derive(Debug, Default)]
pub(crate) struct TableLayout {
    steps: Vec<ColumnStep>,
    row_key: RowKey,
}

#[derive(Debug)]
enum ColumnStep {
    /// So many bytes, all values valid.
    Fixed(usize),
    Text,
    /// An array of items of so many bytes, all values valid.
    Items(usize),
    Checked,
}

#[derive(Debug, Default)]
enum RowKey {
    PrimaryKey {
        column: usize,
        fixed_size: Option<usize>,
    },
    #[default]
    Hash,
}

impl TableLayout {
    pub fn new(columns: &[ColumnSchema], primary_key: Option<ColumnId>) -> TableLayout {
        let steps = columns.iter().map(|column| ColumnStep::of(&column.ty)).collect();
        let row_key = match primary_key {
            Some(column) => RowKey::PrimaryKey {
                column: column.position(),
                fixed_size: key::fixed_encoded_size(&columns[column.position()].ty),
            },
            None => RowKey::Hash,
        };
        TableLayout { steps, row_key }
    }

    /// Checks that `row` is exactly one row and fills `offsets` with the start of each column and, as
    /// last entry, the row's length.
    pub fn scan(&self, columns: &[ColumnSchema], row: &[u8], offsets: &mut Vec<u32>) -> Result<(), DecodeError> {
        let mut reader = Reader::new(row);
        offsets.clear();
        for (step, column) in self.steps.iter().zip(columns) {
            offsets.push(reader.position() as u32);
            match step {
                ColumnStep::Fixed(size) => {
                    reader.take(*size)?;
                }
                ColumnStep::Text => {
                    reader.str()?;
                }
                ColumnStep::Items(size) => {
                    let count = reader.array_len(*size)?;
                    reader.take(count * size)?;
                }
                ColumnStep::Checked => bsatn::skip_value(&column.ty, &mut reader)?,
            }
        }
        offsets.push(reader.position() as u32);
        reader.finish()
    }

    /// Appends the row's key. `offsets` are those of [`TableLayout::scan`].
    pub fn push_row_key(&self, columns: &[ColumnSchema], row: &[u8], offsets: &[u32], out: &mut Vec<u8>) {
        match self.row_key {
            RowKey::PrimaryKey { column, .. } => push_column(columns, column, row, offsets, out),
            RowKey::Hash => {
                let hash = blake3::hash(row);
                out.extend_from_slice(&hash.as_bytes()[..ROW_HASH_BYTES]);
            }
        }
    }

    /// Bytes of a row key when all rows' keys have the same size.
    pub fn fixed_row_key_size(&self) -> Option<usize> {
        match self.row_key {
            RowKey::PrimaryKey { fixed_size, .. } => fixed_size,
            RowKey::Hash => Some(ROW_HASH_BYTES),
        }
    }
}

/// The bytes of one column of a scanned row.
pub(crate) fn column_bytes<'a>(row: &'a [u8], offsets: &[u32], column: usize) -> &'a [u8] {
    &row[offsets[column] as usize..offsets[column + 1] as usize]
}

/// Appends the key encoding of one column of a scanned row.
pub(crate) fn push_column(columns: &[ColumnSchema], column: usize, row: &[u8], offsets: &[u32], out: &mut Vec<u8>) {
    let mut reader = Reader::new(column_bytes(row, offsets, column));
    key::encode_valid(&columns[column].ty, &mut reader, out).expect("the row was scanned, so its columns decode");
}

impl ColumnStep {
    fn of(ty: &AlgebraicType) -> ColumnStep {
        if let Some(size) = unchecked_size(ty) {
            return ColumnStep::Fixed(size);
        }
        match ty {
            AlgebraicType::String => ColumnStep::Text,
            AlgebraicType::Array(item) => match unchecked_size(item) {
                Some(size) if size > 0 => ColumnStep::Items(size),
                _ => ColumnStep::Checked,
            },
            _ => ColumnStep::Checked,
        }
    }
}

/// Bytes of a value of a type for which any bytes of that length are a value.
fn unchecked_size(ty: &AlgebraicType) -> Option<usize> {
    match ty {
        AlgebraicType::U8 | AlgebraicType::I8 => Some(1),
        AlgebraicType::U16 | AlgebraicType::I16 => Some(2),
        AlgebraicType::U32 | AlgebraicType::I32 | AlgebraicType::F32 => Some(4),
        AlgebraicType::U64 | AlgebraicType::I64 | AlgebraicType::F64 => Some(8),
        AlgebraicType::U128 | AlgebraicType::I128 => Some(16),
        AlgebraicType::U256 | AlgebraicType::I256 => Some(32),
        AlgebraicType::Product(product) => product.elements.iter().map(|element| unchecked_size(&element.ty)).sum(),
        _ => None,
    }
}

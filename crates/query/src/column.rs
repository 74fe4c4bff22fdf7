//! Columns of encoded rows: where they start, how they compare.
//!
//! A row is the BSATN of a product: its columns end to end. Everything up to the first column of
//! variable size has a fixed place, so most reads are one slice; after it the columns in between are
//! stepped over. Rows come from the tables, which validated them when they were inserted; a row that
//! does not have the shape of its table is a broken invariant and panics.

use std::cmp::Ordering;

use tine_tables::{ColumnId, TableSchema};
use tine_types::AlgebraicType;
use tine_types::bsatn::{Reader, skip_value};

/// How the values of a comparable column compare, given as BSATN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ScalarKind {
    /// Little-endian unsigned integer of 1, 2, 4, 8, 16 or 32 bytes. Bools, identities, connection
    /// ids and uuids too.
    Unsigned(u8),
    /// Little-endian two's complement integer of 1, 2, 4, 8, 16 or 32 bytes. Timestamps too.
    Signed(u8),
    /// IEEE: NaN compares with nothing, `-0 = 0`.
    Float32,
    /// As [`ScalarKind::Float32`].
    Float64,
    /// Length-prefixed bytes in lexicographic order: strings and byte arrays.
    Text,
    /// A sum whose variants all have unit payload: one byte, equality only.
    Tag,
}

impl ScalarKind {
    /// The kind of a type, or none when its values cannot be compared in a query.
    pub fn of(ty: &AlgebraicType) -> Option<ScalarKind> {
        Some(match ty {
            AlgebraicType::Bool | AlgebraicType::U8 => ScalarKind::Unsigned(1),
            AlgebraicType::U16 => ScalarKind::Unsigned(2),
            AlgebraicType::U32 => ScalarKind::Unsigned(4),
            AlgebraicType::U64 => ScalarKind::Unsigned(8),
            AlgebraicType::U128 => ScalarKind::Unsigned(16),
            AlgebraicType::U256 => ScalarKind::Unsigned(32),
            AlgebraicType::I8 => ScalarKind::Signed(1),
            AlgebraicType::I16 => ScalarKind::Signed(2),
            AlgebraicType::I32 => ScalarKind::Signed(4),
            AlgebraicType::I64 => ScalarKind::Signed(8),
            AlgebraicType::I128 => ScalarKind::Signed(16),
            AlgebraicType::I256 => ScalarKind::Signed(32),
            AlgebraicType::F32 => ScalarKind::Float32,
            AlgebraicType::F64 => ScalarKind::Float64,
            AlgebraicType::String => ScalarKind::Text,
            AlgebraicType::Array(item) if **item == AlgebraicType::U8 => ScalarKind::Text,
            _ if ty.is_identity() => ScalarKind::Unsigned(32),
            _ if ty.is_connection_id() || ty.is_uuid() => ScalarKind::Unsigned(16),
            _ if ty.is_timestamp() || ty.is_time_duration() => ScalarKind::Signed(8),
            AlgebraicType::Sum(sum) if sum.variants.iter().all(|variant| is_unit(&variant.ty)) => ScalarKind::Tag,
            _ => return None,
        })
    }

    pub fn is_float(self) -> bool {
        matches!(self, ScalarKind::Float32 | ScalarKind::Float64)
    }

    /// Whether `<` and its kin mean anything.
    pub fn is_ordered(self) -> bool {
        self != ScalarKind::Tag
    }

    /// Compares two encoded values; none only when one is a NaN.
    pub fn compare(self, left: &[u8], right: &[u8]) -> Option<Ordering> {
        match self {
            ScalarKind::Float32 => f32::from_le_bytes(array(left)).partial_cmp(&f32::from_le_bytes(array(right))),
            ScalarKind::Float64 => f64::from_le_bytes(array(left)).partial_cmp(&f64::from_le_bytes(array(right))),
            _ => Some(self.compare_total(left, right)),
        }
    }

    fn compare_total(self, left: &[u8], right: &[u8]) -> Ordering {
        match self {
            ScalarKind::Unsigned(1) | ScalarKind::Tag => left[0].cmp(&right[0]),
            ScalarKind::Unsigned(2) => u16::from_le_bytes(array(left)).cmp(&u16::from_le_bytes(array(right))),
            ScalarKind::Unsigned(4) => u32::from_le_bytes(array(left)).cmp(&u32::from_le_bytes(array(right))),
            ScalarKind::Unsigned(8) => u64::from_le_bytes(array(left)).cmp(&u64::from_le_bytes(array(right))),
            ScalarKind::Unsigned(_) => left.iter().rev().cmp(right.iter().rev()),
            ScalarKind::Signed(1) => (left[0] as i8).cmp(&(right[0] as i8)),
            ScalarKind::Signed(2) => i16::from_le_bytes(array(left)).cmp(&i16::from_le_bytes(array(right))),
            ScalarKind::Signed(4) => i32::from_le_bytes(array(left)).cmp(&i32::from_le_bytes(array(right))),
            ScalarKind::Signed(8) => i64::from_le_bytes(array(left)).cmp(&i64::from_le_bytes(array(right))),
            ScalarKind::Signed(_) => {
                let last = left.len() - 1;
                let high = (left[last] as i8).cmp(&(right[last] as i8));
                high.then_with(|| left[..last].iter().rev().cmp(right[..last].iter().rev()))
            }
            ScalarKind::Text => left[LENGTH_BYTES..].cmp(&right[LENGTH_BYTES..]),
            ScalarKind::Float32 | ScalarKind::Float64 => unreachable!("floats have no total order here"),
        }
    }
}

/// Bytes of the length before a string, byte array or array.
const LENGTH_BYTES: usize = 4;

fn is_unit(ty: &AlgebraicType) -> bool {
    matches!(ty, AlgebraicType::Product(product) if product.elements.is_empty())
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("a stored value has the size of its type")
}

/// The way to one column of the rows of a table.
#[derive(Debug, Clone)]
pub(crate) struct ColumnAccess {
    /// Offset of the column, or of the first step when there are steps.
    start: usize,
    /// What lies between `start` and the column; empty when the column has a fixed place.
    steps: Box<[Step]>,
    /// The column itself.
    own: Step,
}

#[derive(Debug, Clone)]
enum Step {
    /// Values of a fixed total size.
    Fixed(usize),
    /// A length-prefixed array whose items have the given size.
    Items(usize),
    /// Anything else of variable size.
    Value(AlgebraicType),
}

impl Step {
    fn of(ty: &AlgebraicType) -> Step {
        if let Some(size) = ty.static_bsatn_size() {
            return Step::Fixed(size);
        }
        match ty {
            AlgebraicType::String => Step::Items(1),
            AlgebraicType::Array(item) => match item.static_bsatn_size() {
                Some(size) => Step::Items(size),
                None => Step::Value(ty.clone()),
            },
            _ => Step::Value(ty.clone()),
        }
    }

    fn length(&self, rest: &[u8]) -> usize {
        match self {
            Step::Fixed(size) => *size,
            Step::Items(size) => {
                let count = u32::from_le_bytes(array(&rest[..LENGTH_BYTES]));
                LENGTH_BYTES + count as usize * size
            }
            Step::Value(ty) => {
                let mut reader = Reader::new(rest);
                skip_value(ty, &mut reader).expect("a stored row has the shape of its table");
                reader.position()
            }
        }
    }
}

impl ColumnAccess {
    /// The way to `column` in the rows of `table`.
    pub fn new(table: &TableSchema, column: ColumnId) -> ColumnAccess {
        let position = column.position();
        let mut start = 0;
        let mut steps: Vec<Step> = Vec::new();
        for before in &table.columns[..position] {
            match (Step::of(&before.ty), steps.last_mut()) {
                (Step::Fixed(size), None) => start += size,
                (Step::Fixed(size), Some(Step::Fixed(total))) => *total += size,
                (step, _) => steps.push(step),
            }
        }
        ColumnAccess { start, steps: steps.into(), own: Step::of(&table.columns[position].ty) }
    }

    /// The encoded column of `row`.
    ///
    /// # Panics
    /// When `row` is not a row of the table.
    #[inline]
    pub fn get<'a>(&self, row: &'a [u8]) -> &'a [u8] {
        let mut start = self.start;
        for step in &self.steps {
            start += step.length(&row[start..]);
        }
        let rest = &row[start..];
        &rest[..self.own.length(rest)]
    }
}

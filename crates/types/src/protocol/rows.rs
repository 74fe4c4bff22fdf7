//! Row lists: the rows of one table, end to end, with a hint where each starts.

use std::sync::Arc;

use bytes::Bytes;

use crate::bsatn::BsatnWrite;
use crate::protocol::ProtocolError;
use crate::protocol::slices::SliceReader;

/// Where rows start in the data of a [`RowList`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RowSizeHint {
    /// Every row has this many bytes, not 0.
    FixedSize(u16),
    /// Offset of each row; a row ends where the next starts, or the data ends.
    RowOffsets(Arc<[u64]>),
}

/// Rows, encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowList {
    /// Where rows start.
    pub hint: RowSizeHint,
    /// The rows, end to end.
    pub data: Bytes,
}

const FIXED_SIZE: u8 = 0;
const ROW_OFFSETS: u8 = 1;

impl Default for RowList {
    fn default() -> Self {
        Self { hint: RowSizeHint::RowOffsets(Arc::default()), data: Bytes::new() }
    }
}

impl RowList {
    /// No rows.
    pub fn empty() -> Self {
        Self::default()
    }

    /// One row, not copied.
    pub fn single(row: Bytes) -> Self {
        let hint = match u16::try_from(row.len()) {
            Ok(size) if size > 0 => RowSizeHint::FixedSize(size),
            _ => RowSizeHint::RowOffsets(Arc::new([0])),
        };
        Self { hint, data: row }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.hint {
            RowSizeHint::FixedSize(size) => self.data.len() / usize::from(*size),
            RowSizeHint::RowOffsets(offsets) => offsets.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row at `index`.
    ///
    /// # Panics
    /// If there is none.
    pub fn row(&self, index: usize) -> &[u8] {
        &self.data[self.row_range(index)]
    }

    /// The row at `index` as a slice that shares the list's data.
    ///
    /// # Panics
    /// If there is none.
    pub fn row_bytes(&self, index: usize) -> Bytes {
        self.data.slice(self.row_range(index))
    }

    /// The rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.row(index))
    }

    fn row_range(&self, index: usize) -> std::ops::Range<usize> {
        match &self.hint {
            RowSizeHint::FixedSize(size) => {
                let size = usize::from(*size);
                index * size..(index + 1) * size
            }
            // Offsets fit a usize: they were made from one or checked against the data.
            RowSizeHint::RowOffsets(offsets) => {
                let end = offsets.get(index + 1).map_or(self.data.len(), |&end| end as usize);
                offsets[index] as usize..end
            }
        }
    }

    /// Size of the encoding in bytes.
    pub fn encoded_len(&self) -> usize {
        let hint = match &self.hint {
            RowSizeHint::FixedSize(_) => 2,
            RowSizeHint::RowOffsets(offsets) => 4 + 8 * offsets.len(),
        };
        1 + hint + 4 + self.data.len()
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        match &self.hint {
            RowSizeHint::FixedSize(size) => {
                out.put_u8(FIXED_SIZE);
                out.put_u16(*size);
            }
            RowSizeHint::RowOffsets(offsets) => {
                out.put_u8(ROW_OFFSETS);
                out.put_len(offsets.len());
                offsets.iter().for_each(|&offset| out.put_u64(offset));
            }
        }
        out.put_bytes(&self.data);
    }

    pub(super) fn decode(slices: &mut SliceReader<'_>) -> Result<Self, ProtocolError> {
        let position = slices.reader.position();
        let hint = match slices.reader.tag(2)? {
            FIXED_SIZE => RowSizeHint::FixedSize(slices.reader.u16()?),
            _ => {
                let count = slices.reader.array_len(8)?;
                let offsets = (0..count).map(|_| slices.reader.u64()).collect::<Result<_, _>>()?;
                RowSizeHint::RowOffsets(offsets)
            }
        };
        let list = Self { hint, data: slices.bytes()? };
        if list.is_consistent() { Ok(list) } else { Err(ProtocolError::InvalidRowList { position }) }
    }

    /// Whether the hint divides the data into rows, with nothing left over.
    fn is_consistent(&self) -> bool {
        match &self.hint {
            RowSizeHint::FixedSize(size) => *size != 0 && self.data.len().is_multiple_of(usize::from(*size)),
            RowSizeHint::RowOffsets(offsets) => match (offsets.first(), offsets.last()) {
                (Some(&first), Some(&last)) => first == 0 && offsets.is_sorted() && last <= self.data.len() as u64,
                _ => self.data.is_empty(),
            },
        }
    }
}

/// Collects rows into a [`RowList`].
///
/// Offsets are only written down once two rows differ in size, since most tables never need them.
#[derive(Clone, Debug, Default)]
pub struct RowListBuilder {
    data: Vec<u8>,
    count: usize,
    /// Size of the first row, and of all others while `offsets` is empty.
    size: usize,
    /// Start of every row, once their sizes differ.
    offsets: Vec<u64>,
}

impl RowListBuilder {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// No rows yet, with room for `bytes` bytes of them.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { data: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Number of rows so far.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no rows yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of rows so far.
    pub fn data_len(&self) -> usize {
        self.data.len()
    }

    /// Appends a row.
    #[inline]
    pub fn push(&mut self, row: &[u8]) {
        if self.count == 0 {
            self.size = row.len();
        } else if !self.offsets.is_empty() {
            self.offsets.push(self.data.len() as u64);
        } else if row.len() != self.size {
            self.write_down_offsets();
        }
        self.data.extend_from_slice(row);
        self.count += 1;
    }

    /// Writes down where the rows so far start, and the one to come.
    #[cold]
    fn write_down_offsets(&mut self) {
        let size = self.size as u64;
        self.offsets.extend((0..=self.count as u64).map(|index| index * size));
        assert_eq!(self.offsets.last(), Some(&(self.data.len() as u64)), "rows were of one size");
    }

    /// The list. `static_size` is the size of the row type's values, if they all have the same; it
    /// has no influence on the result and is only checked, since equal sizes are noticed anyway.
    ///
    /// # Panics
    /// If `static_size` is not the size of the rows: they are of another type.
    pub fn finish(self, static_size: Option<usize>) -> RowList {
        if self.count == 0 {
            return RowList::empty();
        }
        if let Some(size) = static_size {
            assert!(self.offsets.is_empty() && self.size == size, "rows have their type's size");
        }
        let hint = match u16::try_from(self.size) {
            Ok(size) if size > 0 && self.offsets.is_empty() => RowSizeHint::FixedSize(size),
            _ if self.offsets.is_empty() => {
                let size = self.size as u64;
                RowSizeHint::RowOffsets((0..self.count as u64).map(|index| index * size).collect())
            }
            _ => RowSizeHint::RowOffsets(self.offsets.into()),
        };
        RowList { hint, data: self.data.into() }
    }
}

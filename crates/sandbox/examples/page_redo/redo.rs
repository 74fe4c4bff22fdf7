//! Rebuilding a page: a base image and the records that were logged after it, oldest first.
//!
//! Records are of two kinds. *Simple* ones are ours: a few fixed fields, applied by whoever has the page. *Foreign* ones are programs
//! in somebody else's format, decoded by somebody else's code, which is what a worker is for. Runs of simple records are applied in
//! process, runs of foreign ones travel to the worker together with the page as it is then.
//!
//! ```text
//! request   has a base u8 | [base 8192 bytes] | records
//! record    bytes u16 | operations
//! operation 0 put    | offset u16 | bytes u16 | the bytes
//!           1 insert | offset u16 | bytes u16 | the bytes        shifts what follows, as far as the page reaches
//!           2 move   | from u16 | to u16 | bytes u16
//!           3 xor    | offset u16 | bytes u16 | with u8
//! ```

#![allow(dead_code, reason = "the example and the measurements each use a part")]

/// Bytes of a page.
pub const PAGE_BYTES: usize = 8_192;

/// A page.
pub type Page = [u8; PAGE_BYTES];

/// A change of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Sets bits, as a visibility map's.
    SetBits {
        /// Which byte.
        offset: u16,
        /// Which bits.
        bits: u8,
    },
    /// Clears a range, which may not reach beyond the page.
    Clear {
        /// The first byte.
        offset: u16,
        /// How many.
        bytes: u16,
    },
    /// What only the worker understands.
    Foreign(Vec<u8>),
}

/// Why a page could not be rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedoError<E> {
    /// There is nothing to apply.
    NoRecords,
    /// A simple record needs a page that is there.
    NoBase,
    /// A simple record reaches beyond the page.
    OutOfPage,
    /// The worker's failure.
    Worker(E),
}

/// Applies `records` to `base`. `redo` sends foreign records to a worker, which returns the page.
pub fn rebuild<E>(
    base: Option<&Page>,
    records: &[Record],
    mut redo: impl FnMut(Option<&Page>, &[Record]) -> Result<Box<Page>, E>,
) -> Result<Box<Page>, RedoError<E>> {
    let mut page = base.map(|base| Box::new(*base));
    for run in records.chunk_by(|left, right| is_foreign(left) == is_foreign(right)) {
        if is_foreign(&run[0]) {
            page = Some(redo(page.as_deref(), run).map_err(RedoError::Worker)?);
            continue;
        }
        let page = page.as_mut().ok_or(RedoError::NoBase)?;
        for record in run {
            apply_simple(page, record).ok_or(RedoError::OutOfPage)?;
        }
    }
    page.filter(|_| !records.is_empty()).ok_or(RedoError::NoRecords)
}

fn is_foreign(record: &Record) -> bool {
    matches!(record, Record::Foreign(_))
}

fn apply_simple(page: &mut Page, record: &Record) -> Option<()> {
    match record {
        Record::SetBits { offset, bits } => *page.get_mut(usize::from(*offset))? |= bits,
        Record::Clear { offset, bytes } => {
            let from = usize::from(*offset);
            page.get_mut(from..from + usize::from(*bytes))?.fill(0);
        }
        Record::Foreign(_) => unreachable!("runs are of one kind"),
    }
    Some(())
}

/// The pieces of the request that asks a worker to apply foreign records, in order.
pub fn request(base: Option<&Page>, records: &[Record], mut write: impl FnMut(&[u8])) {
    write(&[u8::from(base.is_some())]);
    if let Some(base) = base {
        write(base);
    }
    for record in records {
        let Record::Foreign(operations) = record else { continue };
        write(&(operations.len() as u16).to_le_bytes());
        write(operations);
    }
}

/// Length of that request.
pub fn request_bytes(base: Option<&Page>, records: &[Record]) -> usize {
    let mut total = 0;
    request(base, records, |piece| total += piece.len());
    total
}

/// The worker's part: applies the request to the page, which is the base or else zero. Checks everything, because a mistake of the
/// sender should be told from one of the worker.
pub fn apply(request: &[u8], page: &mut [u8]) -> Result<(), String> {
    let page: &mut Page = page.try_into().map_err(|_| "the page has another size".to_owned())?;
    let mut input = Input(request);
    match input.byte()? {
        0 => page.fill(0),
        _ => page.copy_from_slice(input.take(PAGE_BYTES)?),
    }
    while !input.0.is_empty() {
        let bytes = input.short()?;
        let mut operations = Input(input.take(bytes)?);
        while !operations.0.is_empty() {
            operate(page, &mut operations)?;
        }
    }
    Ok(())
}

fn operate(page: &mut Page, input: &mut Input<'_>) -> Result<(), String> {
    let outside = || "an operation reaches beyond the page".to_owned();
    match input.byte()? {
        0 => {
            let (offset, bytes) = (input.short()?, input.short()?);
            let source = input.take(bytes)?;
            page.get_mut(offset..offset + bytes).ok_or_else(outside)?.copy_from_slice(source);
        }
        1 => {
            let (offset, bytes) = (input.short()?, input.short()?);
            let source = input.take(bytes)?;
            let rest = PAGE_BYTES.checked_sub(offset + bytes).ok_or_else(outside)?;
            page.copy_within(offset..offset + rest, offset + bytes);
            page[offset..offset + bytes].copy_from_slice(source);
        }
        2 => {
            let (from, to, bytes) = (input.short()?, input.short()?, input.short()?);
            if from.max(to) + bytes > PAGE_BYTES {
                return Err(outside());
            }
            page.copy_within(from..from + bytes, to);
        }
        3 => {
            let (offset, bytes) = (input.short()?, input.short()?);
            let with = input.byte()?;
            page.get_mut(offset..offset + bytes).ok_or_else(outside)?.iter_mut().for_each(|byte| *byte ^= with);
        }
        other => return Err(format!("no operation {other}")),
    }
    Ok(())
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or("the request ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn short(&mut self) -> Result<usize, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]).into())
    }
}

/// Records like those of a busy table: small rows that are put or inserted, of so many request bytes in all with
/// this base.
pub fn workload(base: Option<&Page>, total_bytes: usize) -> Vec<Record> {
    /// Bytes of one insert: its fields and 32 bytes of a row.
    const INSERT_BYTES: usize = 5 + 32;
    let mut left = total_bytes - 1 - base.map_or(0, |base| base.len());
    let mut records = Vec::new();
    for number in 0u8.. {
        // The last record takes what is left, as one put.
        let is_last = left < 2 * (INSERT_BYTES + 2) + 7;
        let payload = if is_last { left - 2 - 5 } else { 32 };
        // Most rows go where there is room; now and then others must make it.
        let mut operations = vec![u8::from(!is_last && number % 16 == 0)];
        operations.extend_from_slice(&(u16::from(number) * 8).to_le_bytes());
        operations.extend_from_slice(&(payload as u16).to_le_bytes());
        operations.extend((0..payload).map(|position| (position as u8).wrapping_add(number)));
        left -= 2 + operations.len();
        records.push(Record::Foreign(operations));
        if is_last {
            break;
        }
        if number == u8::MAX {
            // Rows go to the front again.
            records.extend(workload(None, left + 1));
            break;
        }
    }
    records
}

//! Reading rows by key and in ranges.

use std::ops::Bound;

use bytes::Bytes;
use tine_tables::{IndexSchema, RowCursor, TableRead, TableSchema};
use tine_types::bsatn::{Reader, skip_value};
use tine_types::{AlgebraicType, ProductType};

use super::{LOCAL_BYTES_MAX, LOCAL_ROWS_MAX, LocalBound, LocalRead, LocalReply, RowForm, decode, encode, table};
use crate::CallFailure;
use crate::worker::table_failure;

/// Answers a read from one version.
pub(crate) fn read(
    tables: &(impl TableRead + ?Sized),
    form: RowForm,
    read: &LocalRead,
) -> Result<LocalReply, CallFailure> {
    match read {
        LocalRead::Get { table: name, index: wanted, key } => {
            let table = table(tables, name)?;
            let index = index(table, wanted.as_deref())?;
            let key = encode(form, &key_type(table, index, index.columns.len()), key, "key")?;
            let rows = tables.index_point(index.id, &key).map_err(|error| table_failure(&error))?;
            collect(form, table, rows, LOCAL_ROWS_MAX)
        }
        LocalRead::Scan { table: name, index: None, prefix, lower: None, upper: None, limit } if prefix.is_empty() => {
            let table = table(tables, name)?;
            collect(form, table, tables.scan(table.id), *limit)
        }
        LocalRead::Scan { table: name, index: wanted, prefix, lower, upper, limit } => {
            let table = table(tables, name)?;
            let index = index(table, wanted.as_deref())?;
            let (prefix, columns) = encode_prefix(form, table, index, prefix)?;
            let next = key_type(table, index, columns + 1);
            let lower = bound(form, &next, columns, lower.as_ref(), "lower bound")?;
            let upper = bound(form, &next, columns, upper.as_ref(), "upper bound")?;
            let rows = tables.index_range(index.id, &prefix, columns, as_slice(&lower), as_slice(&upper));
            collect(form, table, rows.map_err(|error| table_failure(&error))?, *limit)
        }
    }
}

/// An index by name, or the primary key.
pub(super) fn index<'t>(table: &'t TableSchema, name: Option<&str>) -> Result<&'t IndexSchema, CallFailure> {
    let found = match name {
        Some(name) => table.indexes.iter().find(|index| *index.name == *name || *index.accessor == *name),
        None => table.primary_key_index(),
    };
    found.ok_or_else(|| {
        CallFailure::BadArguments(match name {
            Some(name) => format!("table `{}` has no index `{name}`", table.name),
            None => format!("table `{}` has no primary key: name an index", table.name),
        })
    })
}

/// The type of the first `columns` values of an index, as a product.
pub(super) fn key_type(table: &TableSchema, index: &IndexSchema, columns: usize) -> AlgebraicType {
    let elements =
        table.index_types(index).take(columns).map(|ty| tine_types::ProductTypeElement { name: None, ty: ty.clone() });
    AlgebraicType::Product(ProductType { elements: elements.collect() })
}

/// The values of a prefix, and of how many columns.
fn encode_prefix(
    form: RowForm,
    table: &TableSchema,
    index: &IndexSchema,
    prefix: &Bytes,
) -> Result<(Bytes, usize), CallFailure> {
    let bad = |problem: String| CallFailure::BadArguments(format!("prefix: {problem}"));
    if prefix.is_empty() {
        return Ok((Bytes::new(), 0));
    }
    let columns = match form {
        RowForm::Json => {
            let values: Vec<serde_json::Value> =
                serde_json::from_slice(prefix).map_err(|error| bad(error.to_string()))?;
            values.len()
        }
        RowForm::Bsatn => {
            let (mut reader, mut columns) = (Reader::new(prefix), 0);
            let mut types = table.index_types(index);
            while reader.remaining() > 0 {
                let ty = types.next().ok_or_else(|| bad("more values than the index has columns".to_owned()))?;
                skip_value(ty, &mut reader).map_err(|error| bad(error.to_string()))?;
                columns += 1;
            }
            columns
        }
    };
    if columns > index.columns.len() {
        return Err(bad("more values than the index has columns".to_owned()));
    }
    Ok((encode(form, &key_type(table, index, columns), prefix, "prefix")?, columns))
}

/// One end of a range, encoded.
fn bound(
    form: RowForm,
    next: &AlgebraicType,
    columns: usize,
    given: Option<&LocalBound>,
    what: &str,
) -> Result<Bound<Bytes>, CallFailure> {
    let Some(given) = given else { return Ok(Bound::Unbounded) };
    let AlgebraicType::Product(product) = next else { unreachable!("keys are products") };
    let Some(column) = product.elements.get(columns) else {
        return Err(CallFailure::BadArguments(format!("{what}: the prefix has all of the index's columns")));
    };
    let value = encode(form, &column.ty, &given.value, what)?;
    Ok(if given.is_included { Bound::Included(value) } else { Bound::Excluded(value) })
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    match bound {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(value) => Bound::Included(value),
        Bound::Excluded(value) => Bound::Excluded(value),
    }
}

fn collect(
    form: RowForm,
    table: &TableSchema,
    mut rows: RowCursor<'_>,
    limit: usize,
) -> Result<LocalReply, CallFailure> {
    let (mut reply, mut bytes) = (LocalReply::default(), 0);
    let limit = limit.clamp(1, LOCAL_ROWS_MAX);
    while let Some(row) = rows.next().map_err(|error| table_failure(&error))? {
        if reply.rows.len() == limit || bytes >= LOCAL_BYTES_MAX {
            reply.has_more = true;
            break;
        }
        bytes += row.len();
        reply.rows.push(decode(form, table, row)?);
    }
    Ok(reply)
}

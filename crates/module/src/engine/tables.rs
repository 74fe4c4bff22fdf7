//! Table handles: `ctx.db.person.insert(...)` and its kin, natives that go straight to the open transaction.

use std::ops::Bound;

use tine_tables::{DatabaseSchema, IndexId, ReadSet, TableError, TableId};
use tine_types::ModuleDef;
use tine_types::bsatn::Reader;

use super::access::{OpenTables, Rows};
use super::decode::{DecodeFailure, decode, decode_product};
use super::encode::{EncodeError, encode, encode_product};
use super::errors::{self, ErrorClass};
use super::plan::{Plan, ProductPlan};
use super::raw::{Call, Cx, Exception, JsResult, Kind, Value};
use super::scan;
use crate::call::SyscallError;
use crate::isolation::IndexRange;

/// Most tables and most indexes of a module: natives get their number as sixteen bits.
const HANDLES_MAX: usize = u16::MAX as usize;

/// The tables and indexes of a module, in the order of their natives' numbers.
pub(super) struct Tables {
    pub(super) tables: Vec<TablePlan>,
    indexes: Vec<IndexPlan>,
}

pub(super) struct TablePlan {
    id: TableId,
    /// For messages.
    label: String,
    pub(super) row: ProductPlan,
    /// The columns that take a generated value when they are zero.
    sequences: Vec<usize>,
}

struct IndexPlan {
    id: IndexId,
    table: usize,
    label: String,
    columns: Vec<usize>,
}

/// Why handles cannot be made.
pub(super) enum BuildError {
    Exception,
    /// The database has another schema than the module.
    Mismatch(String),
}

impl From<Exception> for BuildError {
    fn from(_: Exception) -> BuildError {
        BuildError::Exception
    }
}

/// Makes the objects behind `ctx.db`, one for each module of the definition. The SDK freezes them.
pub(super) fn build<'js>(cx: Cx<'js>, def: &ModuleDef, schema: &DatabaseSchema) -> Result<Value<'js>, BuildError> {
    let mut tables = Tables { tables: Vec::new(), indexes: Vec::new() };
    let mut modules = Vec::new();
    for (prefix, module) in def.flatten() {
        modules.push(build_module(cx, &prefix, module, schema, &mut tables)?);
    }
    assert!(cx.state().tables.set(tables).is_ok(), "handles are made once");
    Ok(cx.array(modules)?)
}

/// Makes the handles of one module's tables, whose names in the schema begin with `prefix`.
fn build_module<'js>(
    cx: Cx<'js>,
    prefix: &str,
    def: &ModuleDef,
    schema: &DatabaseSchema,
    tables: &mut Tables,
) -> Result<Value<'js>, BuildError> {
    let null = cx.null();
    let db = cx.object_with_prototype(&null)?;
    for table_def in &def.tables {
        let accessor = &table_def.source_name;
        let name = &format!("{prefix}{accessor}");
        let mismatch =
            |what: &str| BuildError::Mismatch(format!("the database has no {what} `{name}` as the module defines it"));
        let table = schema.table_named(name).ok_or_else(|| mismatch("table"))?;
        let product = def.typespace.get(table_def.product_type_ref).and_then(|ty| ty.as_product());
        let row_type = product.and_then(|product| def.typespace.inline_product(product).ok());
        let row_type = row_type.filter(|row| row.elements.len() == table.columns.len());
        let row = ProductPlan::new(cx, &row_type.ok_or_else(|| mismatch("row type for table"))?)?;
        let position = tables.tables.len();
        let handle = cx.object_with_prototype(&null)?;
        define_table_functions(cx, &handle, number(position)?)?;
        for index_def in &table_def.indexes {
            let source_name = index_def.source_name.as_deref().unwrap_or_default();
            let (owner, index) =
                schema.index_named(&format!("{prefix}{source_name}")).ok_or_else(|| mismatch("index of table"))?;
            if owner.id != table.id {
                return Err(mismatch("index of table"));
            }
            let accessor = index_def.accessor_name.as_deref().unwrap_or(source_name);
            let magic = number(tables.indexes.len())?;
            let existing = handle.get_named(accessor)?;
            // Two indexes may share an accessor, such as a hash and a range index of one column.
            let index_handle = if existing.is_object() && !existing.is_function() {
                existing
            } else {
                cx.object_with_prototype(&null)?
            };
            define_index_functions(cx, &index_handle, magic, index.unique)?;
            handle.define_named(accessor, index_handle)?;
            tables.indexes.push(IndexPlan {
                id: index.id,
                table: position,
                label: format!("index `{accessor}` of table `{name}`"),
                columns: index.columns.iter().map(|column| column.position()).collect(),
            });
        }
        handle.freeze()?;
        db.define_named(accessor, handle)?;
        let mut sequences: Vec<usize> = table.sequences.iter().map(|sequence| sequence.column.position()).collect();
        sequences.sort_unstable();
        tables.tables.push(TablePlan { id: table.id, label: format!("table `{name}`"), row, sequences });
    }
    Ok(db)
}

fn number(position: usize) -> Result<u16, BuildError> {
    u16::try_from(position)
        .map_err(|_| BuildError::Mismatch(format!("a module has at most {HANDLES_MAX} tables and as many indexes")))
}

fn define_table_functions<'js>(cx: Cx<'js>, handle: &Value<'js>, magic: u16) -> JsResult<()> {
    let iter = cx.function("iter", 0, magic, table_iter)?;
    let symbol = cx.global().get_named("Symbol")?.get_named("iterator")?;
    handle.define_value(&symbol, iter.clone())?;
    handle.define_named("iter", iter)?;
    handle.define_named("insert", cx.function("insert", 1, magic, table_insert)?)?;
    handle.define_named("delete", cx.function("delete", 1, magic, table_delete)?)?;
    handle.define_named("count", cx.function("count", 0, magic, table_count)?)?;
    handle.define_named("clear", cx.function("clear", 0, magic, table_clear)?)
}

fn define_index_functions<'js>(cx: Cx<'js>, handle: &Value<'js>, magic: u16, unique: bool) -> JsResult<()> {
    if unique {
        handle.define_named("find", cx.function("find", 1, magic, index_find)?)?;
        handle.define_named("update", cx.function("update", 1, magic, index_update)?)?;
        handle.define_named("delete", cx.function("delete", 1, magic, index_delete_one)?)
    } else {
        handle.define_named("filter", cx.function("filter", 1, magic, index_filter)?)?;
        handle.define_named("delete", cx.function("delete", 1, magic, index_delete_many)?)
    }
}

#[inline]
fn tables<'js>(cx: Cx<'js>) -> &'js Tables {
    cx.state().tables.get().expect("handles exist only after their plans")
}

fn table_of<'js>(call: &Call<'js>) -> &'js TablePlan {
    &tables(call.cx).tables[usize::from(call.magic)]
}

fn index_of<'js>(call: &Call<'js>) -> (&'js IndexPlan, &'js TablePlan) {
    let tables = tables(call.cx);
    let index = &tables.indexes[usize::from(call.magic)];
    (index, &tables.tables[index.table])
}

/// Why an operation on the open transaction failed. Not yet thrown, because throwing runs JavaScript.
pub(super) enum TablesFailure {
    Table(TableError),
    /// No transaction is open.
    NoTransaction,
    /// A view wants to write.
    ReadOnly,
    /// The host failed earlier in the call.
    Fault,
    /// A host in another process refused it.
    Refused(SyscallError),
    /// A host in another process failed.
    Broken(String),
    /// The rows do not fit in the instance's memory.
    OutOfMemory,
}

impl From<TableError> for TablesFailure {
    fn from(error: TableError) -> TablesFailure {
        TablesFailure::Table(error)
    }
}

impl TablesFailure {
    #[cold]
    pub(super) fn throw(self, cx: Cx<'_>) -> Exception {
        match self {
            TablesFailure::Table(error) => errors::throw_table(cx, &error),
            TablesFailure::NoTransaction => {
                let problem = "tables can be used inside a reducer or withTx() only";
                errors::throw_host(cx, &SyscallError::new(SyscallError::NOT_IN_TRANSACTION, problem))
            }
            TablesFailure::ReadOnly => {
                let problem = "a view only reads: it cannot change tables";
                errors::throw_host(cx, &SyscallError::new(SyscallError::TRANSACTION_IS_READ_ONLY, problem))
            }
            TablesFailure::Fault => errors::throw_fault(cx, String::new()),
            TablesFailure::Refused(error) => errors::throw_host(cx, &error),
            TablesFailure::Broken(problem) => errors::throw_fault(cx, problem),
            TablesFailure::OutOfMemory => {
                // More than any heap has: from here on the call counts as out of memory.
                let is_there = cx.state().heap.charge(usize::MAX);
                assert!(!is_there, "no heap has so much room");
                super::rows::throw_collect(cx, &scan::CollectError::OutOfMemory)
            }
        }
    }
}

/// Runs an operation on the open transaction. Runs no JavaScript.
#[inline]
pub(super) fn try_tables<T>(
    cx: Cx<'_>,
    operate: impl FnOnce(&mut OpenTables<'_>) -> Result<T, TablesFailure>,
) -> Result<T, TablesFailure> {
    let state = cx.state();
    if state.has_fault() {
        return Err(TablesFailure::Fault);
    }
    let done = state.call.host.with(|host| {
        if let Some(tables) = host.tables() {
            return operate(&mut OpenTables::Here(tables));
        }
        match host.remote_tables() {
            Some(tables) => operate(&mut OpenTables::Away(tables)),
            None => Err(TablesFailure::NoTransaction),
        }
    });
    done.unwrap_or(Err(TablesFailure::NoTransaction))
}

/// Like [`try_tables`], for an operation that changes something.
#[inline]
pub(super) fn try_write<T>(
    cx: Cx<'_>,
    operate: impl FnOnce(&mut OpenTables<'_>) -> Result<T, TablesFailure>,
) -> Result<T, TablesFailure> {
    if cx.state().call.is_view.get() {
        return Err(TablesFailure::ReadOnly);
    }
    try_tables(cx, operate)
}

/// Notes what a view reads, inside an operation on the open transaction.
#[inline]
pub(super) fn note(
    cx: Cx<'_>,
    tables: &OpenTables<'_>,
    note: impl FnOnce(&mut ReadSet, &DatabaseSchema) -> Result<(), TableError>,
) -> Result<(), TableError> {
    let call = &cx.state().call;
    if call.is_view.get() { note(&mut call.reads.borrow_mut(), tables.schema()) } else { Ok(()) }
}

/// Notes that a view reads a whole table.
#[inline]
pub(super) fn note_table(cx: Cx<'_>, tables: &OpenTables<'_>, table: TableId) -> Result<(), TableError> {
    note(cx, tables, |reads, _| {
        reads.note_table(table);
        Ok(())
    })
}

/// Runs an operation that changes something; throws if it fails.
#[inline]
fn with_write<T>(cx: Cx<'_>, operate: impl FnOnce(&mut OpenTables<'_>) -> Result<T, TablesFailure>) -> JsResult<T> {
    try_write(cx, operate).map_err(|failure| failure.throw(cx))
}

/// Runs an operation on the open transaction; throws if it fails.
#[inline]
fn with_tables<T>(cx: Cx<'_>, operate: impl FnOnce(&mut OpenTables<'_>) -> Result<T, TablesFailure>) -> JsResult<T> {
    try_tables(cx, operate).map_err(|failure| failure.throw(cx))
}

/// Runs `body` with an empty buffer that is kept for the next call. Nested uses get a fresh one.
#[inline]
fn with_buffer<T>(cx: Cx<'_>, body: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let place = &cx.state().call.row;
    let mut buffer = place.take();
    buffer.clear();
    let result = body(&mut buffer);
    place.set(buffer);
    result
}

fn table_insert<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, table) = (call.cx, table_of(call));
    let row = call.arg(0);
    if !row.is_object() {
        return Err(errors::throw(cx, ErrorClass::Type, &format!("{}: insert() needs an object", table.label)));
    }
    let copy = cx.object()?;
    with_buffer(cx, |buffer| {
        encode_and_copy(&table.row, &row, &copy, buffer).map_err(|error| error.throw(cx, &table.label))?;
        write_row(cx, table, &copy, |tables, generated| tables.insert(table.id, buffer, generated))
    })?;
    Ok(copy)
}

/// Encodes a row and defines its columns on `copy`.
fn encode_and_copy<'js>(
    plan: &ProductPlan,
    row: &Value<'js>,
    copy: &Value<'js>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    for field in &plan.fields {
        let value = row.get(field.atom)?;
        encode(&field.plan, &value, out).map_err(|error| error.within(&field.name))?;
        copy.define(field.atom, value)?;
    }
    Ok(())
}

/// Runs a write and puts the values it generated into `row`.
fn write_row<'js>(
    cx: Cx<'js>,
    table: &TablePlan,
    row: &Value<'js>,
    write: impl FnOnce(&mut OpenTables<'_>, &mut Vec<u8>) -> Result<(), TablesFailure>,
) -> JsResult<()> {
    let mut generated = cx.state().call.generated.take();
    let written = with_write(cx, |tables| write(tables, &mut generated));
    let filled =
        written.and_then(|()| if generated.is_empty() { Ok(()) } else { fill_generated(cx, table, row, &generated) });
    cx.state().call.generated.set(generated);
    filled
}

/// Replaces the zeros of a row by the values that were generated for them.
fn fill_generated<'js>(cx: Cx<'js>, table: &TablePlan, row: &Value<'js>, generated: &[u8]) -> JsResult<()> {
    let mut reader = Reader::new(generated);
    for column in &table.sequences {
        let field = &table.row.fields[*column];
        if is_zero(&row.get(field.atom)?) {
            match decode(cx, &field.plan, &mut reader) {
                Ok(value) => row.define(field.atom, value)?,
                Err(DecodeFailure::Exception) => return Err(Exception),
                Err(DecodeFailure::Malformed(error)) => {
                    return Err(errors::throw_fault(cx, format!("a generated value cannot be decoded: {error}")));
                }
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value<'_>) -> bool {
    matches!(value.kind(), Kind::Int(0) | Kind::ShortBigInt(0))
        || matches!(value.kind(), Kind::Float(float) if float == 0.0)
}

fn table_delete<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, table) = (call.cx, table_of(call));
    let row = call.arg(0);
    if !row.is_object() {
        return Err(errors::throw(cx, ErrorClass::Type, &format!("{}: delete() needs an object", table.label)));
    }
    let deleted = with_buffer(cx, |buffer| {
        encode_product(&table.row, &row, buffer).map_err(|error| error.throw(cx, &table.label))?;
        with_write(cx, |tables| tables.delete_row(table.id, buffer))
    })?;
    Ok(cx.bool(deleted))
}

fn table_count<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let table = table_of(call);
    let cx = call.cx;
    cx.big_u64(with_tables(cx, |tables| {
        note_table(cx, tables, table.id)?;
        tables.row_count(table.id)
    })?)
}

fn table_clear<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let table = table_of(call);
    call.cx.big_u64(with_write(call.cx, |tables| tables.clear(table.id))?)
}

fn table_iter<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, table) = (call.cx, table_of(call));
    let rows = with_tables(cx, |tables| {
        note_table(cx, tables, table.id)?;
        Ok(scan::collect(cx.state(), &mut tables.scan(table.id)?))
    })?;
    super::rows::iterator(cx, usize::from(call.magic), rows)
}

/// Appends the values of all columns of an index. One column is given as it is, several as an array.
fn encode_point(index: &IndexPlan, table: &TablePlan, value: &Value<'_>, out: &mut Vec<u8>) -> JsResult<()> {
    let cx = value.cx();
    if let [column] = &*index.columns {
        return encode_column(index, table, *column, value, out);
    }
    let count = index.columns.len();
    if !value.is_array() || value.length()? != count as u64 {
        return Err(errors::throw(
            cx,
            ErrorClass::Type,
            &format!("{} is found by an array of {count} values", index.label),
        ));
    }
    for (position, column) in index.columns.iter().enumerate() {
        encode_column(index, table, *column, &value.get_index(position as u32)?, out)?;
    }
    Ok(())
}

fn encode_column(
    index: &IndexPlan,
    table: &TablePlan,
    column: usize,
    value: &Value<'_>,
    out: &mut Vec<u8>,
) -> JsResult<()> {
    let field = &table.row.fields[column];
    encode(&field.plan, value, out).map_err(|error| error.within(&field.name).throw(value.cx(), &index.label))
}

fn index_find<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, (index, table)) = (call.cx, index_of(call));
    with_buffer(cx, |buffer| {
        encode_point(index, table, &call.arg(0), buffer)?;
        let found = with_tables(cx, |tables| {
            note(cx, tables, |reads, schema| reads.note_point(schema, index.id, buffer))?;
            let mut cursor = tables.index_point(index.id, buffer)?;
            let row = cursor.next()?;
            Ok(row.map(|row| decode_product(cx, &table.row, &mut Reader::new(row))))
        })?;
        match found {
            None => Ok(cx.null()),
            Some(Ok(row)) => Ok(row),
            Some(Err(DecodeFailure::Exception)) => Err(Exception),
            Some(Err(DecodeFailure::Malformed(error))) => {
                Err(errors::throw_fault(cx, format!("a stored row of {} cannot be decoded: {error}", table.label)))
            }
        }
    })
}

fn index_update<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, (index, table)) = (call.cx, index_of(call));
    let row = call.arg(0);
    if !row.is_object() {
        return Err(errors::throw(cx, ErrorClass::Type, &format!("{}: update() needs an object", table.label)));
    }
    with_buffer(cx, |buffer| {
        encode_product(&table.row, &row, buffer).map_err(|error| error.throw(cx, &table.label))?;
        write_row(cx, table, &row, |tables, generated| tables.update(table.id, index.id, buffer, generated))
    })?;
    Ok(row.clone())
}

fn index_delete_one<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, (index, table)) = (call.cx, index_of(call));
    let deleted = with_buffer(cx, |buffer| {
        encode_point(index, table, &call.arg(0), buffer)?;
        with_write(cx, |tables| tables.delete_by_index_point(index.id, buffer))
    })?;
    Ok(cx.bool(deleted > 0))
}

/// Which entries of an index are meant.
enum Selection {
    Point(Vec<u8>),
    Range { prefix: Vec<u8>, prefix_columns: usize, start: Bound<Vec<u8>>, end: Bound<Vec<u8>> },
}

/// Reads the argument of `filter` and `delete`: a value or `Range` for an index of one column; for more an array of
/// values of the first columns, the last of which may be a `Range`.
fn selection(index: &IndexPlan, table: &TablePlan, value: &Value<'_>) -> JsResult<Selection> {
    let count = index.columns.len();
    if count == 1 {
        return match range_bounds(value)? {
            Some(bounds) => range(index, table, Vec::new(), 0, bounds),
            None => {
                let mut key = Vec::new();
                encode_point(index, table, value, &mut key)?;
                Ok(Selection::Point(key))
            }
        };
    }
    // One value alone is the first column.
    let given = if value.is_array() { value.length()? as usize } else { 1 };
    if given == 0 || given > count {
        let problem = format!("{} is scanned by one to {count} values", index.label);
        return Err(errors::throw(value.cx(), ErrorClass::Type, &problem));
    }
    let mut prefix = Vec::new();
    for (position, column) in index.columns.iter().enumerate().take(given) {
        let part = if value.is_array() { value.get_index(position as u32)? } else { value.clone() };
        if position + 1 == given
            && let Some(bounds) = range_bounds(&part)?
        {
            return range(index, table, prefix, position, bounds);
        }
        encode_column(index, table, *column, &part, &mut prefix)?;
    }
    if given == count {
        return Ok(Selection::Point(prefix));
    }
    Ok(Selection::Range { prefix, prefix_columns: given, start: Bound::Unbounded, end: Bound::Unbounded })
}

/// The bounds of a `Range` object as an array; `None` for other values.
fn range_bounds<'js>(value: &Value<'js>) -> JsResult<Option<Value<'js>>> {
    if !value.is_object() {
        return Ok(None);
    }
    let cx = value.cx();
    let bounds = cx.borrow(cx.state().boot().sdk().range_bounds).call(&cx.undefined(), &[value])?;
    Ok(bounds.is_object().then_some(bounds))
}

fn range(
    index: &IndexPlan,
    table: &TablePlan,
    prefix: Vec<u8>,
    prefix_columns: usize,
    bounds: Value<'_>,
) -> JsResult<Selection> {
    let bound = |position: u32| -> JsResult<Bound<Vec<u8>>> {
        let (cx, bound) = (bounds.cx(), bounds.get_index(position)?);
        let atoms = &cx.state().boot().atoms;
        let tag = bound.get(atoms.tag)?.to_text()?;
        if tag == "unbounded" {
            return Ok(Bound::Unbounded);
        }
        let mut value = Vec::new();
        encode_column(index, table, index.columns[prefix_columns], &bound.get(atoms.value)?, &mut value)?;
        match tag.as_str() {
            "included" => Ok(Bound::Included(value)),
            "excluded" => Ok(Bound::Excluded(value)),
            _ => {
                let problem = "the tag of a bound is included, excluded or unbounded";
                Err(errors::throw(cx, ErrorClass::Type, problem))
            }
        }
    };
    Ok(Selection::Range { prefix, prefix_columns, start: bound(0)?, end: bound(1)? })
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn index_filter<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, (index, table)) = (call.cx, index_of(call));
    let selection = selection(index, table, &call.arg(0))?;
    let rows = with_tables(cx, |tables| {
        let mut cursor: Rows<'_> = match &selection {
            Selection::Point(key) => {
                note(cx, tables, |reads, schema| reads.note_point(schema, index.id, key))?;
                tables.index_point(index.id, key)?
            }
            Selection::Range { prefix, prefix_columns, start, end } => {
                let (start, end) = (as_slice(start), as_slice(end));
                note(cx, tables, |reads, schema| {
                    reads.note_range(schema, index.id, prefix, *prefix_columns, start, end)
                })?;
                tables.index_range(index.id, IndexRange { prefix, prefix_columns: *prefix_columns, start, end })?
            }
        };
        Ok(scan::collect(cx.state(), &mut cursor))
    })?;
    super::rows::iterator(cx, index.table, rows)
}

fn index_delete_many<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, (index, table)) = (call.cx, index_of(call));
    let selection = selection(index, table, &call.arg(0))?;
    let deleted = with_write(cx, |tables| match &selection {
        Selection::Point(key) => tables.delete_by_index_point(index.id, key),
        Selection::Range { prefix, prefix_columns, start, end } => {
            let (start, end) = (as_slice(start), as_slice(end));
            tables.delete_by_index_range(index.id, IndexRange { prefix, prefix_columns: *prefix_columns, start, end })
        }
    })?;
    Ok(cx.number(deleted.into()))
}

/// A function's parameters.
pub(super) struct ParamsPlan {
    pub(super) plan: ProductPlan,
    /// Set if a few bytes can stand for very many values, so that arguments are checked before they are built.
    pub(super) check_first: bool,
}

impl ParamsPlan {
    pub(super) fn new(cx: Cx<'_>, product: &tine_types::ProductType) -> JsResult<ParamsPlan> {
        let plan = ProductPlan::new(cx, product)?;
        let check_first = plan.fields.iter().any(|field| has_empty_elements(&field.plan));
        Ok(ParamsPlan { plan, check_first })
    }
}

/// Whether a type has arrays whose elements take no bytes.
fn has_empty_elements(plan: &Plan) -> bool {
    match plan {
        Plan::Array(array) => array.element_size_min == 0 || has_empty_elements(&array.element),
        Plan::Option(some) => has_empty_elements(some),
        Plan::Result(plans) => has_empty_elements(&plans.0) || has_empty_elements(&plans.1),
        Plan::Product(product) => product.fields.iter().any(|field| has_empty_elements(&field.plan)),
        Plan::Sum(sum) => sum.variants.iter().any(|variant| has_empty_elements(&variant.plan)),
        _ => false,
    }
}

use std::sync::Arc;

use tine_store::ForkId;
use tine_types::bsatn::BsatnWrite;
use tine_types::module_def::{ColumnDefault, ModuleDef};
use tine_types::{AlgebraicType, ProductTypeElement};

use super::*;
use crate::testing::{Database, auto_increment, btree, build, primary_key, table, unique};
use crate::{TableRead, TableWriter};

const ROWS: u32 = 3000;

fn definition() -> ModuleDef {
    let mut def = ModuleDef::default();
    let columns = [("id", AlgebraicType::U32), ("half", AlgebraicType::U32), ("text", AlgebraicType::String)];
    let position = table(&mut def, "t", &columns);
    primary_key(&mut def.tables[position], 0);
    def.tables[position].sequences.push(auto_increment(0));
    def.tables[position].indexes.push(btree(&[2]));
    def
}

/// More rows than one batch holds; `half` has each value twice.
fn filled() -> Database {
    let database = Database::new(&definition());
    let mut writer = database.writer();
    let table = database.schema.table_named("t").unwrap().id;
    for number in 0..ROWS {
        let mut row = Vec::new();
        row.put_u32(0);
        row.put_u32(number / 2);
        row.put_str("same");
        writer.insert(table, &row, &mut Vec::new()).unwrap();
    }
    writer.commit(b"", 1).unwrap();
    drop(writer);
    database
}

#[test]
fn indexes_are_built_and_dropped_to_fit() {
    let database = filled();
    let mut def = definition();
    def.tables[0].indexes.pop();
    def.tables[0].indexes.push(btree(&[1]));
    def.tables[0].indexes.push(btree(&[1, 0]));
    def.tables[0].constraints.push(unique(&[0, 1]));
    table(&mut def, "extra", &[("a", AlgebraicType::U8)]);
    let next = Arc::new(build(&def, Some(&database.schema), &database.store).unwrap());
    let mut writer = database.store.writer(ForkId::MAIN).unwrap();
    let migration = migrate(&mut writer, &database.schema, &next).unwrap();
    let names = |names: &[Arc<str>]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&migration.tables_added), ["extra"]);
    assert_eq!(names(&migration.indexes_built), ["t_half_idx_btree", "t_half_id_idx_btree"]);
    assert_eq!(names(&migration.indexes_dropped), ["t_text_idx_btree"]);
    let dropped = database.schema.index_named("t_text_idx_btree").unwrap().1.id;
    assert_eq!(writer.len(dropped.keyspace()), 0);
    writer.commit(b"").unwrap();

    let writer = TableWriter::new(writer, Arc::clone(&next));
    let by_half = next.index_named("t_half_idx_btree").unwrap().1.id;
    let mut cursor = writer.index_point(by_half, &(ROWS / 2 - 1).to_le_bytes()).unwrap();
    let mut found = Vec::new();
    while let Some(row) = cursor.next().unwrap() {
        found.push(u32::from_le_bytes(row[..4].try_into().unwrap()));
    }
    assert_eq!(found, [ROWS - 1, ROWS]);
}

#[test]
fn rows_that_violate_a_new_constraint_refuse_it() {
    let database = filled();
    let mut def = definition();
    def.tables[0].indexes.pop();
    def.tables[0].indexes.push(btree(&[1]));
    def.tables[0].constraints.push(unique(&[1]));
    let next = build(&def, Some(&database.schema), &database.store).unwrap();
    let mut writer = database.store.writer(ForkId::MAIN).unwrap();
    let refused = migrate(&mut writer, &database.schema, &next).unwrap_err();
    assert_eq!(refused.code(), "TN0306");
    assert!(!writer.has_changes(), "the dropped index is back too");
}

#[test]
fn a_removed_sequence_forgets_its_state() {
    let database = filled();
    let mut def = definition();
    def.tables[0].sequences.clear();
    let next = build(&def, Some(&database.schema), &database.store).unwrap();
    let mut writer = database.store.writer(ForkId::MAIN).unwrap();
    assert_eq!(writer.len(next.sequences_keyspace()), 1);
    migrate(&mut writer, &database.schema, &next).unwrap();
    assert_eq!(writer.len(next.sequences_keyspace()), 0);
}

#[test]
fn erasing_leaves_nothing() {
    let database = filled();
    let mut writer = database.store.writer(ForkId::MAIN).unwrap();
    erase(&mut writer, &database.schema).unwrap();
    for keyspace in database.schema.keyspaces() {
        assert_eq!(writer.len(keyspace), 0);
    }
}

/// Appends a column to table `t` whose rows so far get `value`.
fn append_column(def: &mut ModuleDef, name: &str, ty: AlgebraicType, value: &[u8]) {
    let AlgebraicType::Product(row) = &mut def.typespace.0[0] else { panic!("rows are products") };
    let mut elements = row.elements.to_vec();
    let col_id = elements.len() as u16;
    elements.push(ProductTypeElement { name: Some(name.into()), ty });
    row.elements = elements.into();
    def.tables[0].default_values.push(ColumnDefault { col_id, value: value.into() });
}

fn rows(reader: &impl TableRead, schema: &DatabaseSchema) -> Vec<Vec<u8>> {
    let mut cursor = reader.scan(schema.table_named("t").unwrap().id);
    let mut rows = Vec::new();
    while let Some(row) = cursor.next().unwrap() {
        rows.push(row.to_vec());
    }
    rows
}

#[test]
fn rows_get_the_default_values_of_appended_columns() {
    let keyless = {
        let mut def = definition();
        def.tables[0].primary_key.clear();
        def
    };
    for def in [definition(), keyless] {
        let database = Database::new(&def);
        let mut writer = database.writer();
        let table = database.schema.table_named("t").unwrap().id;
        for number in 0..ROWS {
            let mut row = Vec::new();
            row.put_u32(0);
            row.put_u32(number / 2);
            row.put_str("same");
            writer.insert(table, &row, &mut Vec::new()).unwrap();
        }
        writer.commit(b"", 1).unwrap();
        drop(writer);
        let mut next = def.clone();
        append_column(&mut next, "age", AlgebraicType::U8, &[7]);
        append_column(&mut next, "note", AlgebraicType::String, &[2, 0, 0, 0, b'h', b'i']);
        next.tables[0].indexes.push(btree(&[3, 1]));
        let next = Arc::new(build(&next, Some(&database.schema), &database.store).unwrap());
        let mut before = rows(&database.snapshot(), &database.schema);
        let mut writer = database.store.writer(ForkId::MAIN).unwrap();
        let migration = migrate(&mut writer, &database.schema, &next).unwrap();
        let rewritten: Vec<(&str, u64)> =
            migration.tables_rewritten.iter().map(|(name, rows)| (&**name, *rows)).collect();
        assert_eq!(rewritten, [("t", u64::from(ROWS))]);
        writer.commit(b"").unwrap();

        // The set of rows is the old one with the defaults, and every index leads to them.
        let mut writer = TableWriter::new(writer, Arc::clone(&next));
        let mut after = rows(&writer, &next);
        before.iter_mut().for_each(|row| row.extend_from_slice(&[7, 2, 0, 0, 0, b'h', b'i']));
        before.sort();
        after.sort();
        assert!(before == after);
        for index in ["t_text_idx_btree", "t_age_half_idx_btree", "t_id_idx_btree"] {
            let index = next.index_named(index).unwrap().1.id;
            let mut cursor = writer.index_range(index, &[], 0, Bound::Unbounded, Bound::Unbounded).unwrap();
            let mut count = 0;
            while cursor.next().unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, ROWS);
        }
        assert!(writer.delete_row(table, &after[17]).unwrap(), "the row is found by its content");
        writer.commit(b"", 2).unwrap();
        assert_eq!(rows(&writer, &next).len(), after.len() - 1);
    }
}

#[test]
fn a_refused_migration_takes_rewritten_rows_back() {
    let database = filled();
    let mut def = definition();
    append_column(&mut def, "age", AlgebraicType::U8, &[7]);
    def.tables[0].indexes.push(btree(&[3]));
    def.tables[0].constraints.push(unique(&[3]));
    let next = build(&def, Some(&database.schema), &database.store).unwrap();
    let mut writer = database.store.writer(ForkId::MAIN).unwrap();
    let refused = migrate(&mut writer, &database.schema, &next).unwrap_err();
    assert_eq!(refused.code(), "TN0306", "every row got the same default");
    assert!(!writer.has_changes());
    drop(writer);
    let longest = rows(&database.snapshot(), &database.schema).iter().map(Vec::len).max();
    assert_eq!(longest, Some(16), "the rows are as they were");
}

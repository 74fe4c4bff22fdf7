//! What readers are told of, checked against what they would see.

use std::ops::Bound;

use proptest::prelude::*;
use tine_types::AlgebraicType;
use tine_types::bsatn::BsatnWrite;
use tine_types::module_def::ModuleDef;

use super::*;
use crate::testing::{Database, btree, primary_key, table};
use crate::{TableRead, TableWriter};

/// A table with a primary key, an index of one column and one of two.
fn database() -> Database {
    let mut def = ModuleDef::default();
    let place = table(
        &mut def,
        "thing",
        &[("id", AlgebraicType::U8), ("size", AlgebraicType::U8), ("kind", AlgebraicType::U8)],
    );
    primary_key(&mut def.tables[place], 0);
    def.tables[place].indexes.push(btree(&[1]));
    def.tables[place].indexes.push(btree(&[2, 1]));
    table(&mut def, "other", &[("id", AlgebraicType::U8)]);
    Database::new(&def)
}

#[derive(Clone, Debug)]
enum Reading {
    Table,
    Point(usize, Vec<u8>),
    Range(usize, Vec<u8>, Bound<u8>, Bound<u8>),
}

fn bytes(bound: &Bound<u8>) -> Bound<&[u8]> {
    bound.as_ref().map(std::slice::from_ref)
}

/// What the reading returns, and its note.
fn read(tables: &TableWriter, reading: &Reading, reads: &mut ReadSet) -> Vec<Vec<u8>> {
    let schema = tables.schema();
    let thing = schema.table_named("thing").unwrap();
    let mut cursor = match reading {
        Reading::Table => {
            reads.note_table(thing.id);
            tables.scan(thing.id)
        }
        Reading::Point(index, key) => {
            reads.note_point(schema, thing.indexes[*index].id, key).unwrap();
            tables.index_point(thing.indexes[*index].id, key).unwrap()
        }
        Reading::Range(index, prefix, start, end) => {
            let id = thing.indexes[*index].id;
            reads.note_range(schema, id, prefix, prefix.len(), bytes(start), bytes(end)).unwrap();
            tables.index_range(id, prefix, prefix.len(), bytes(start), bytes(end)).unwrap()
        }
    };
    let mut rows = Vec::new();
    while let Some(row) = cursor.next().unwrap() {
        rows.push(row.to_vec());
    }
    rows
}

fn bound() -> impl Strategy<Value = Bound<u8>> {
    prop_oneof![Just(Bound::Unbounded), (0..8u8).prop_map(Bound::Included), (0..8u8).prop_map(Bound::Excluded)]
}

fn reading() -> impl Strategy<Value = Reading> {
    let small = 0..8u8;
    prop_oneof![
        Just(Reading::Table),
        (0..2usize, small.clone()).prop_map(|(index, key)| Reading::Point(index, vec![key])),
        (small.clone(), small.clone()).prop_map(|(kind, size)| Reading::Point(2, vec![kind, size])),
        (0..3usize, bound(), bound()).prop_map(|(index, start, end)| Reading::Range(index, Vec::new(), start, end)),
        (small, bound(), bound()).prop_map(|(kind, start, end)| Reading::Range(2, vec![kind], start, end)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A reader whose rows have changed is always told; one that reads by key is not told of other keys.
    #[test]
    fn readers_whose_rows_changed_are_told(
        readings in proptest::collection::vec(reading(), 1..12),
        rows in proptest::collection::vec((0..8u8, 0..8u8, 0..8u8), 1..30),
    ) {
        let database = database();
        let mut tables = database.writer();
        let thing = database.schema.table_named("thing").unwrap().id;
        let (half, rest) = rows.split_at(rows.len() / 2);
        for (id, size, kind) in half {
            let _ = tables.insert(thing, &[*id, *size, *kind], &mut Vec::new());
        }
        tables.commit(b"", 1).unwrap();
        let mut readers = Readers::default();
        let mut before = Vec::new();
        for (number, reading) in readings.iter().enumerate() {
            let mut reads = ReadSet::default();
            before.push(read(&tables, reading, &mut reads));
            readers.add(number, &reads);
            prop_assert_eq!(reads.tables().collect::<Vec<_>>(), vec![thing]);
        }
        for (id, size, kind) in rest {
            let row = [*id, *size, *kind];
            if tables.insert(thing, &row, &mut Vec::new()).is_err() {
                let primary_key = database.schema.table(thing).unwrap().primary_key_index().unwrap().id;
                tables.update(thing, primary_key, &row, &mut Vec::new()).unwrap();
            }
        }
        let touched = readers.touched(&database.schema, tables.changes().rows()).unwrap();
        for (number, reading) in readings.iter().enumerate() {
            let mut reads = ReadSet::default();
            let after = read(&tables, reading, &mut reads);
            prop_assert!(after == before[number] || touched.contains(&number), "{reading:?}");
            if let Reading::Point(0, key) = reading {
                let concerned = tables.changes().rows().any(|(_, row)| row[0] == key[0]);
                prop_assert_eq!(touched.contains(&number), concerned, "{:?}", reading);
            }
            readers.remove(number, &reads);
        }
        prop_assert!(readers.tables.is_empty());
    }
}

#[test]
fn many_lookups_become_the_whole_table() {
    let database = database();
    let thing = database.schema.table_named("thing").unwrap();
    let index = thing.indexes.iter().find(|index| index.columns.len() == 2).unwrap().id;
    let mut reads = ReadSet::default();
    for number in 0..=READS_PER_TABLE_MAX as u32 {
        let mut key = Vec::new();
        key.put_u16(number as u16);
        reads.note_point(&database.schema, index, &key).unwrap();
    }
    let mut whole = ReadSet::default();
    whole.note_table(thing.id);
    assert_eq!(reads, whole);
    let mut readers = Readers::default();
    readers.add(7, &reads);
    let other = database.schema.table_named("other").unwrap().id;
    assert_eq!(readers.touched(&database.schema, [(other, &[1][..])].into_iter()).unwrap(), Vec::<i32>::new());
    assert_eq!(readers.touched(&database.schema, [(thing.id, &[1, 2, 3][..])].into_iter()).unwrap(), [7]);
}

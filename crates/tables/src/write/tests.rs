use std::ops::Bound;

use tine_store::{Durability, ForkId, ForkOptions};
use tine_types::bsatn::BsatnWrite;
use tine_types::module_def::{ModuleDef, ReducerDef, ScheduleDef, TableDef, Visibility};
use tine_types::{AlgebraicType, ProductType, ScheduleAt, TimeDuration};

use super::*;
use crate::testing::{Database, auto_increment, btree, hash, primary_key, table, unique_column};

/// `users`: id (primary key, sequence), name (unique), level (hash index), note.
fn users_definition() -> ModuleDef {
    let mut def = ModuleDef::default();
    let columns = [
        ("id", AlgebraicType::U8),
        ("name", AlgebraicType::String),
        ("level", AlgebraicType::I16),
        ("note", AlgebraicType::option(AlgebraicType::String)),
    ];
    let users = table(&mut def, "users", &columns);
    let users = &mut def.tables[users];
    primary_key(users, 0);
    unique_column(users, 1);
    users.sequences.push(auto_increment(0));
    users.indexes.push(hash(&[2]));
    users.indexes.push(btree(&[2, 1]));
    table(&mut def, "log", &[("line", AlgebraicType::String)]);
    def.tables[1].indexes.push(btree(&[0]));
    def
}

fn user(id: u8, name: &str, level: i16) -> Vec<u8> {
    let mut row = vec![id];
    row.put_str(name);
    row.put_i16(level);
    row.put_u8(1);
    row
}

fn line(text: &str) -> Vec<u8> {
    let mut row = Vec::new();
    row.put_str(text);
    row
}

fn table_id(database: &Database, name: &str) -> TableId {
    database.schema.table_named(name).unwrap().id
}

fn index_id(database: &Database, name: &str) -> IndexId {
    database.schema.index_named(name).unwrap().1.id
}

#[test]
fn refused_operations_say_why_and_leave_nothing() {
    type Attempt = fn(&mut TableWriter, &Database) -> Result<u64, TableError>;
    let cases: &[(Attempt, &str, Option<u16>)] = &[
        (|w, _| w.insert(TableId(9999), &user(1, "x", 1), &mut Vec::new()).map(|_| 0), "TN0301", Some(4)),
        (|w, d| w.insert(table_id(d, "users"), &[1], &mut Vec::new()).map(|_| 0), "TN0303", Some(3)),
        (
            |w, d| {
                let long = [user(1, "x", 1), vec![0]].concat();
                w.insert(table_id(d, "users"), &long, &mut Vec::new()).map(|_| 0)
            },
            "TN0303",
            Some(3),
        ),
        (
            |w, d| {
                let mut bad_text = user(1, "x", 1);
                bad_text[5] = 0xFF;
                w.insert(table_id(d, "users"), &bad_text, &mut Vec::new()).map(|_| 0)
            },
            "TN0303",
            Some(3),
        ),
        (|w, d| w.insert(table_id(d, "users"), &user(7, "x", 1), &mut Vec::new()).map(|_| 0), "TN0306", Some(12)),
        (|w, d| w.insert(table_id(d, "users"), &user(0, "ann", 1), &mut Vec::new()).map(|_| 0), "TN0306", Some(12)),
        (
            |w, d| {
                let index = index_id(d, "users_name_idx_btree");
                w.update(table_id(d, "users"), index, &user(1, "nobody", 1), &mut Vec::new()).map(|_| 0)
            },
            "TN0309",
            Some(15),
        ),
        (
            |w, d| {
                let index = index_id(d, "users_level_idx_hash");
                w.update(table_id(d, "users"), index, &user(7, "ann", 1), &mut Vec::new()).map(|_| 0)
            },
            "TN0308",
            Some(14),
        ),
        (
            |w, d| {
                let index = index_id(d, "users_id_idx_btree");
                w.update(table_id(d, "log"), index, &line("x"), &mut Vec::new()).map(|_| 0)
            },
            "TN0302",
            Some(5),
        ),
        (|w, _| w.delete_by_index_point(IndexId(9999), &[1]).map(u64::from), "TN0302", Some(5)),
        (|w, d| w.delete_by_index_point(index_id(d, "users_id_idx_btree"), &[]).map(u64::from), "TN0304", Some(3)),
        (|w, d| w.delete_by_index_point(index_id(d, "users_id_idx_btree"), &[1, 1]).map(u64::from), "TN0304", Some(3)),
        (
            |w, d| {
                let index = index_id(d, "users_level_idx_hash");
                w.delete_by_index_range(index, &[], 0, Bound::Unbounded, Bound::Unbounded).map(u64::from)
            },
            "TN0310",
            Some(10),
        ),
        (
            |w, d| {
                let index = index_id(d, "users_id_idx_btree");
                w.delete_by_index_range(index, &[1], 1, Bound::Included(&[1]), Bound::Unbounded).map(u64::from)
            },
            "TN0305",
            Some(3),
        ),
        (|w, d| w.delete_rows(table_id(d, "log"), &[2, 0, 0, 0, 0, 0, 0, 0]).map(u64::from), "TN0303", Some(3)),
        (
            |w, d| {
                let row = line(&"x".repeat(KEY_BYTES_MAX));
                w.insert(table_id(d, "log"), &row, &mut Vec::new()).map(|_| 0)
            },
            "TN0314",
            Some(1),
        ),
        (
            |w, d| {
                let row = line(&"x".repeat(ROW_BYTES_MAX));
                w.insert(table_id(d, "log"), &row, &mut Vec::new()).map(|_| 0)
            },
            "TN0313",
            Some(1),
        ),
    ];
    let database = Database::new(&users_definition());
    let mut writer = database.writer();
    writer.insert(table_id(&database, "users"), &user(7, "ann", 1), &mut Vec::new()).unwrap();
    writer.commit(b"", 1).unwrap();
    for (position, (attempt, code, syscall_code)) in cases.iter().enumerate() {
        let refused = attempt(&mut writer, &database).expect_err(code);
        assert_eq!((refused.code(), refused.syscall_code()), (*code, *syscall_code), "case {position}: {refused}");
        assert!(!writer.writer_mut().has_changes(), "case {position}");
        assert!(writer.changes().is_empty(), "case {position}");
    }
}

#[test]
fn a_violation_names_table_constraint_and_value() {
    let database = Database::new(&users_definition());
    let mut writer = database.writer();
    let users = table_id(&database, "users");
    let mut generated = Vec::new();
    writer.insert(users, &user(0, "ann", 1), &mut generated).unwrap();
    let refused = writer.insert(users, &user(0, "ann", 2), &mut generated).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "table `users` already has a row with name = \"ann\" (constraint `users_name_key`)"
    );
    assert!(generated.is_empty());
}

#[test]
fn generated_values_are_given_back_and_go_on_past_own_ones() {
    let database = Database::new(&users_definition());
    let mut writer = database.writer();
    let users = table_id(&database, "users");
    let mut take = |id, name: &str| {
        let mut generated = vec![99];
        let row = writer.insert(users, &user(id, name, 0), &mut generated).map(|row| row.row.to_vec());
        row.map(|row| {
            assert_eq!(row[1..], user(id, name, 0)[1..]);
            (row[0], generated)
        })
    };
    assert_eq!(take(0, "a").unwrap(), (1, vec![1]));
    assert_eq!(take(0, "b").unwrap(), (2, vec![2]));
    assert_eq!(take(3, "c").unwrap(), (3, vec![]));
    assert_eq!(take(200, "d").unwrap(), (200, vec![]));
    assert_eq!(take(0, "e").unwrap(), (201, vec![201]));
    assert_eq!(take(255, "f").unwrap(), (255, vec![]));
    for expected in 202..=254 {
        assert_eq!(take(0, &expected.to_string()).unwrap().0, expected);
    }
    for name in ["x", "y"] {
        let refused = take(0, name).unwrap_err();
        assert_eq!((refused.code(), refused.syscall_code()), ("TN0307", Some(16)));
    }
}

#[test]
fn a_falling_sequence_counts_down() {
    let mut def = ModuleDef::default();
    table(&mut def, "t", &[("id", AlgebraicType::I8)]);
    primary_key(&mut def.tables[0], 0);
    def.tables[0].sequences.push(auto_increment(0));
    def.tables[0].sequences[0].increment = -100;
    let database = Database::new(&def);
    let mut writer = database.writer();
    let mut generated = Vec::new();
    for expected in [-1i8, -101] {
        writer.insert(table_id(&database, "t"), &[0], &mut generated).unwrap();
        assert_eq!(generated, expected.to_le_bytes());
    }
    assert_eq!(writer.insert(table_id(&database, "t"), &[0], &mut generated).unwrap_err().code(), "TN0307");
}

#[test]
fn an_update_may_move_a_row_to_another_primary_key() {
    let database = Database::new(&users_definition());
    let mut writer = database.writer();
    let users = table_id(&database, "users");
    let (by_id, by_name) = (index_id(&database, "users_id_idx_btree"), index_id(&database, "users_name_idx_btree"));
    writer.insert(users, &user(1, "ann", 5), &mut Vec::new()).unwrap();
    writer.insert(users, &user(2, "bob", 5), &mut Vec::new()).unwrap();
    writer.commit(b"", 1).unwrap();
    let taken = writer.update(users, by_name, &user(2, "ann", 5), &mut Vec::new()).unwrap_err();
    assert_eq!(taken.code(), "TN0306");
    writer.update(users, by_name, &user(9, "ann", 5), &mut Vec::new()).unwrap();
    assert!(writer.index_point(by_id, &[1]).unwrap().next().unwrap().is_none());
    assert_eq!(writer.index_point(by_id, &[9]).unwrap().next().unwrap(), Some(&user(9, "ann", 5)[..]));
    let by_level = index_id(&database, "users_level_name_idx_btree");
    let mut cursor = writer.index_range(by_level, &5i16.to_le_bytes(), 1, Bound::Unbounded, Bound::Unbounded).unwrap();
    assert_eq!(cursor.next().unwrap(), Some(&user(9, "ann", 5)[..]));
    assert_eq!(cursor.next().unwrap(), Some(&user(2, "bob", 5)[..]));
    assert_eq!(cursor.next().unwrap(), None);
    drop(cursor);
    let (_, changes) = writer.commit(b"", 2).unwrap();
    assert_eq!(changes.tables.len(), 1);
    assert_eq!(changes.tables[0].deletes, [user(1, "ann", 5)]);
    assert_eq!(changes.tables[0].inserts, [user(9, "ann", 5)]);
}

#[test]
fn updating_a_row_to_itself_changes_nothing() {
    let database = Database::new(&users_definition());
    let mut writer = database.writer();
    let users = table_id(&database, "users");
    writer.insert(users, &user(1, "ann", 5), &mut Vec::new()).unwrap();
    writer.commit(b"", 1).unwrap();
    let by_id = index_id(&database, "users_id_idx_btree");
    let written = writer.update(users, by_id, &user(1, "ann", 5), &mut Vec::new()).unwrap();
    assert!(!written.changed);
    let (commit, changes) = writer.commit(b"", 2).unwrap();
    assert!(!commit.changed && changes.is_empty());
}

#[test]
fn a_row_of_a_table_without_key_is_there_once() {
    let database = Database::new(&users_definition());
    let mut writer = database.writer();
    let log = table_id(&database, "log");
    assert!(writer.insert(log, &line("a"), &mut Vec::new()).unwrap().changed);
    assert!(!writer.insert(log, &line("a"), &mut Vec::new()).unwrap().changed);
    assert!(writer.insert(log, &line("b"), &mut Vec::new()).unwrap().changed);
    assert_eq!(writer.row_count(log), 2);
    let mut array = 3u32.to_le_bytes().to_vec();
    for text in ["a", "c", "b"] {
        array.extend_from_slice(&line(text));
    }
    assert_eq!(writer.delete_rows(log, &array).unwrap(), 2);
    assert_eq!(writer.row_count(log), 0);
    let (_, changes) = writer.commit(b"", 1).unwrap();
    assert!(changes.is_empty());
}

#[test]
fn ranges_larger_than_a_batch_are_deleted_whole() {
    let database = Database::new(&users_definition());
    let mut writer = database.writer();
    let log = table_id(&database, "log");
    for number in 0..2500 {
        writer.insert(log, &line(&format!("{number:04}")), &mut Vec::new()).unwrap();
    }
    let by_line = index_id(&database, "log_line_idx_btree");
    let (start, end) = (line("0100"), line("2299"));
    let deleted =
        writer.delete_by_index_range(by_line, &[], 0, Bound::Included(&start), Bound::Included(&end)).unwrap();
    assert_eq!((deleted, writer.row_count(log)), (2200, 300));
    assert_eq!(writer.clear(log).unwrap(), 300);
}

#[test]
fn inverted_ranges_are_empty() {
    let database = Database::new(&users_definition());
    let mut writer = database.writer();
    writer.insert(table_id(&database, "users"), &user(5, "ann", 5), &mut Vec::new()).unwrap();
    let by_id = index_id(&database, "users_id_idx_btree");
    for (start, end) in [
        (Bound::Included(&[9][..]), Bound::Included(&[1][..])),
        (Bound::Excluded(&[5][..]), Bound::Excluded(&[5][..])),
        (Bound::Excluded(&[255][..]), Bound::Unbounded),
    ] {
        assert!(writer.index_range(by_id, &[], 0, start, end).unwrap().next().unwrap().is_none());
    }
}

#[test]
fn events_are_announced_and_not_stored() {
    let mut def = ModuleDef::default();
    table(&mut def, "hits", &[("id", AlgebraicType::U64), ("power", AlgebraicType::U8)]);
    primary_key(&mut def.tables[0], 0);
    def.tables[0].sequences.push(auto_increment(0));
    def.tables[0].is_event = true;
    let database = Database::new(&def);
    let mut writer = database.writer();
    let hits = table_id(&database, "hits");
    let mut row = 0u64.to_le_bytes().to_vec();
    row.push(3);
    writer.insert(hits, &row, &mut Vec::new()).unwrap();
    let savepoint = writer.savepoint();
    writer.insert(hits, &row, &mut Vec::new()).unwrap();
    writer.rollback_to(savepoint);
    assert_eq!(writer.row_count(hits), 0);
    assert_eq!(writer.clear(hits).unwrap(), 0);
    let (_, changes) = writer.commit(b"", 1).unwrap();
    row[0] = 1;
    assert_eq!(changes.tables.len(), 1);
    assert_eq!(changes.tables[0].inserts, [row]);
    assert!(changes.tables[0].deletes.is_empty());
}

#[test]
fn schedules_take_intervals_up_to_the_limit() {
    let mut def = ModuleDef::default();
    table(&mut def, "alarm", &[("id", AlgebraicType::U64), ("at", AlgebraicType::schedule_at())]);
    primary_key(&mut def.tables[0], 0);
    let TableDef { product_type_ref, .. } = def.tables[0];
    def.reducers.push(ReducerDef {
        source_name: "ring".into(),
        params: ProductType::named([("row", AlgebraicType::Ref(product_type_ref))]),
        visibility: Visibility::Private,
        ok_return_type: AlgebraicType::unit(),
        err_return_type: AlgebraicType::String,
    });
    def.schedules.push(ScheduleDef {
        source_name: None,
        table_name: "alarm".into(),
        schedule_at_col: 1,
        function_name: "ring".into(),
    });
    let database = Database::new(&def);
    let mut writer = database.writer();
    for (micros, code) in [
        (SCHEDULE_INTERVAL_MICROS_MAX, None),
        (SCHEDULE_INTERVAL_MICROS_MAX + 1, Some("TN0311")),
        (i64::MIN, Some("TN0311")),
        (i64::MAX, Some("TN0311")),
    ] {
        let mut row = 1u64.to_le_bytes().to_vec();
        row.put_schedule_at(ScheduleAt::Interval(TimeDuration::from_micros(micros)));
        let outcome = writer.insert(table_id(&database, "alarm"), &row, &mut Vec::new());
        assert_eq!(outcome.err().map(|error| error.code()), code, "{micros}");
    }
}

#[test]
fn a_reverted_checkpoint_is_the_inverse_change() {
    let database = Database::new(&users_definition());
    let mut writer = database.writer();
    let (users, log) = (table_id(&database, "users"), table_id(&database, "log"));
    let by_id = index_id(&database, "users_id_idx_btree");
    writer.insert(users, &user(1, "ann", 5), &mut Vec::new()).unwrap();
    writer.commit(b"", 1).unwrap();
    let checkpoint = writer.writer_mut().begin_checkpoint().unwrap();
    writer.update(users, by_id, &user(1, "ann", 6), &mut Vec::new()).unwrap();
    writer.insert(log, &line("a"), &mut Vec::new()).unwrap();
    let (_, changes) = writer.commit(b"", 2).unwrap();
    writer.insert(users, &user(0, "bob", 6), &mut Vec::new()).unwrap();
    writer.delete_by_index_point(index_id(&database, "users_name_idx_btree"), &line("bob")).unwrap();
    writer.commit(b"", 3).unwrap();
    let (_, reverted) = writer.writer_mut().revert_checkpoint(checkpoint, b"").unwrap();
    let reverted = ChangeSet::of_store_changes(&database.schema, &reverted);
    assert_eq!(reverted.tables.len(), 2);
    for undone in changes.inverse(|_| false).tables {
        assert_eq!(reverted.table(undone.table), Some(&undone));
    }
    assert_eq!(writer.index_point(by_id, &[1]).unwrap().next().unwrap(), Some(&user(1, "ann", 5)[..]));
}

#[test]
fn a_fork_goes_on_with_its_own_sequence() {
    let database = Database::new(&users_definition());
    let mut writer = database.writer();
    let users = table_id(&database, "users");
    writer.insert(users, &user(0, "ann", 5), &mut Vec::new()).unwrap();
    writer.commit(b"", 1).unwrap();
    writer.writer_mut().publish();
    let options =
        ForkOptions { name: "what-if".to_owned(), durability: Durability::Ephemeral, ..ForkOptions::default() };
    let (fork, _) = database.store.fork(ForkId::MAIN, options).unwrap();
    let mut forked = TableWriter::new(database.store.writer(fork.id).unwrap(), Arc::clone(&database.schema));
    let mut generated = Vec::new();
    for writer in [&mut forked, &mut writer] {
        writer.insert(users, &user(0, "bob", 5), &mut generated).unwrap();
        assert_eq!(generated, [2]);
        assert_eq!(writer.row_count(users), 2);
    }
}

#[test]
fn text_keys_are_found_behind_text_columns() {
    let mut def = ModuleDef::default();
    table(&mut def, "words", &[("word", AlgebraicType::String), ("kind", AlgebraicType::String)]);
    primary_key(&mut def.tables[0], 0);
    def.tables[0].indexes.push(btree(&[1]));
    let database = Database::new(&def);
    let mut writer = database.writer();
    let (words, by_kind) = (table_id(&database, "words"), index_id(&database, "words_kind_idx_btree"));
    let word = |word: &str, kind: &str| [line(word), line(kind)].concat();
    let rows = [word("", "a\0"), word("\0", "a\0"), word("b", "a\0"), word("b\0", "a"), word("c", "")];
    for row in &rows {
        writer.insert(words, row, &mut Vec::new()).unwrap();
    }
    let found = |writer: &TableWriter, kind: &str| {
        let mut cursor = writer.index_point(by_kind, &line(kind)).unwrap();
        let mut found = Vec::new();
        while let Some(row) = cursor.next().unwrap() {
            found.push(row.to_vec());
        }
        found
    };
    assert_eq!(found(&writer, "a\0"), rows[..3]);
    assert_eq!(found(&writer, "a"), rows[3..4]);
    assert_eq!(writer.delete_by_index_point(by_kind, &line("a\0")).unwrap(), 3);
    assert_eq!(writer.row_count(words), 2);
    assert_eq!(found(&writer, ""), rows[4..]);
}

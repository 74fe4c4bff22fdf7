use tine_tables::TableRead;
use tine_types::AlgebraicValue as V;

use super::{OWNER, STRANGER, World, game, message};
use crate::{Modified, SelectLimits, Setting, modify, names_of, select, writes};

fn run(world: &mut World, sql: &str) -> Modified {
    assert!(writes(sql), "{sql}");
    modify(sql, &OWNER(), &mut world.tables, SelectLimits::default()).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn count(world: &World, sql: &str) -> usize {
    select(sql, &world.schema, &OWNER(), &world.tables, SelectLimits::default()).expect(sql).rows.len()
}

#[test]
fn rows_are_inserted_updated_and_deleted() {
    let mut world = game();
    let inserted = run(&mut world, "INSERT INTO team VALUES (10, 'ten', TRUE), (11, 'it''s', FALSE)");
    assert_eq!(inserted, Modified { inserted: 2, ..Modified::default() });
    let listed = run(&mut world, "INSERT INTO team (open, title, id) VALUES (TRUE, 'twelve', 0x0c)");
    assert_eq!(listed.inserted, 1);
    assert_eq!(count(&world, "SELECT * FROM team WHERE open AND id >= 10"), 2);
    assert_eq!(run(&mut world, "UPDATE team SET title = 'both', open = FALSE WHERE id > 10").updated, 2);
    assert_eq!(count(&world, "SELECT * FROM team WHERE title = 'both' AND NOT (open)"), 2);
    assert_eq!(run(&mut world, "DELETE FROM team WHERE title = 'both'").deleted, 2);
    assert_eq!(run(&mut world, "UPDATE team SET title = 'nobody' WHERE id = 99"), Modified::default());
    assert_eq!(run(&mut world, "DELETE FROM chatMessage").deleted, 4);
    let changes = world.commit();
    assert_eq!(changes.tables.len(), 2);
    let messages = changes.table(world.table("chat_message")).expect("they are gone");
    assert_eq!((messages.inserts.len(), messages.deletes.len()), (0, 4));
}

#[test]
fn a_set_without_effect_changes_nothing() {
    let mut world = game();
    assert_eq!(run(&mut world, "UPDATE team SET open = TRUE WHERE open").updated, 2);
    assert!(world.commit().is_empty());
    world.insert("untidy", vec![V::U32(7), V::U32(7)]);
    assert_eq!(run(&mut world, "INSERT INTO untidy VALUES (7, 7)"), Modified::default(), "rows are a set");
}

#[test]
fn keys_change_and_rows_that_become_equal_are_one() {
    let mut world = game();
    assert_eq!(run(&mut world, "UPDATE team SET id = 50 WHERE id = 0").updated, 1);
    assert_eq!(count(&world, "SELECT * FROM team WHERE id = 50"), 1);
    assert_eq!(run(&mut world, "UPDATE untidy SET a = 1, b = 1").updated, 3);
    assert_eq!(world.tables.row_count(world.table("untidy")), 1);
    let clash = modify("UPDATE team SET id = 9", &OWNER(), &mut world.tables, SelectLimits::default());
    assert_eq!(clash.expect_err("two teams cannot share an id").code(), "TN0417");
}

#[test]
fn statements_are_refused_with_code() {
    let mut world = game();
    let cases = [
        ("INSERT INTO nobody VALUES (1)", "TN0407"),
        ("INSERT INTO team VALUES (1, 'x')", "TN0410"),
        ("INSERT INTO team (id, title) VALUES (1, 'x')", "TN0410"),
        ("INSERT INTO team (id, title, nope) VALUES (1, 'x', 2)", "TN0408"),
        ("INSERT INTO team (id, id, open) VALUES (1, 1, TRUE)", "TN0409"),
        ("INSERT INTO team VALUES ('x', 'x', TRUE)", "TN0410"),
        ("INSERT INTO team VALUES (-1, 'x', TRUE)", "TN0411"),
        ("INSERT INTO team VALUES (0, 'taken', TRUE)", "TN0417"),
        ("UPDATE team SET nope = 1", "TN0408"),
        ("UPDATE team SET id = 1, id = 2", "TN0409"),
        ("UPDATE team SET id = 1 WHERE player.id = 1", "TN0407"),
        ("DELETE FROM team WHERE nope = 1", "TN0408"),
    ];
    for (sql, code) in cases {
        let savepoint = world.tables.savepoint();
        let error = modify(sql, &OWNER(), &mut world.tables, SelectLimits::default()).expect_err(sql);
        world.tables.rollback_to(savepoint);
        assert_eq!(error.code(), code, "{sql}: {error}");
        let stranger = modify(sql, &STRANGER(), &mut world.tables, SelectLimits::default()).expect_err(sql);
        assert_eq!(stranger.code(), "TN0416", "{sql}: {stranger}");
    }
    world.insert("chatMessage", message(9, 9));
    let limits = SelectLimits { scanned_max: 2, ..SelectLimits::default() };
    let error = modify("DELETE FROM chatMessage WHERE id >= 0", &OWNER(), &mut world.tables, limits);
    assert_eq!(error.expect_err("too much to look at").code(), "TN0414");
}

#[test]
fn what_a_statement_does_is_told_before_it_runs() {
    assert_eq!(Setting::parse("SET row_limit TO 10").unwrap(), Some(Setting::SetRowLimit(10)));
    assert_eq!(Setting::parse("SET row_limit = 0x10").unwrap(), Some(Setting::SetRowLimit(16)));
    assert_eq!(Setting::parse("SHOW row_limit;").unwrap(), Some(Setting::ShowRowLimit));
    assert_eq!(Setting::parse("SELECT * FROM a").unwrap(), None);
    assert_eq!(Setting::parse("SET row_limit TO 'many'").unwrap_err().code(), "TN0410");
    assert_eq!(Setting::parse("SHOW other").unwrap_err().code(), "TN0405");
    assert!(writes("SET row_limit TO 10"));
    assert!(!writes("SELECT * FROM a") && !writes("nonsense") && !writes("SHOW row_limit"));
    let names = |sql: &str| names_of(sql).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(names("SELECT a.* FROM a JOIN b c ON a.x = c.x"), "a b");
    assert_eq!(names("DELETE FROM a"), "a");
    assert_eq!(names("nonsense"), "");
}

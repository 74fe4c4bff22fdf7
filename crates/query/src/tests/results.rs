use tine_tables::{ColumnId, IndexSchema};
use tine_types::AlgebraicType;
use tine_types::bsatn::{Reader, validate_product};

use super::{OWNER, STRANGER, World, game, identity};
use crate::access::AccessPath;
use crate::ast::Statement;
use crate::{Caller, SelectLimits, compile_subscription, compile_subscription_set, one_off, parse_statement, select};

/// The first columns, which are integers, of the rows of a one-off query, sorted.
fn ids(world: &World, sql: &str, caller: &Caller) -> Vec<u64> {
    let result = one_off(sql, &world.schema, caller, &world.tables).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let [table] = result.tables.as_slice() else { panic!("one table for one query") };
    let schema = world.schema.table_named(&table.table).expect("a table of the schema");
    let mut ids: Vec<u64> = table.rows.rows().map(|row| first_integer(&schema.columns[0].ty, row)).collect();
    ids.sort_unstable();
    ids
}

fn first_integer(ty: &AlgebraicType, row: &[u8]) -> u64 {
    let mut reader = Reader::new(row);
    match ty {
        AlgebraicType::U32 => u64::from(reader.u32().expect("a stored row")),
        AlgebraicType::U64 => reader.u64().expect("a stored row"),
        other => panic!("{other:?} is not what the tests select"),
    }
}

#[test]
fn filters_select_rows() {
    let world = game();
    let cases: &[(&str, &[u64])] = &[
        ("SELECT * FROM player", &[0, 1, 2, 3, 4, 5]),
        ("SELECT p.* FROM player p WHERE p.id = 3", &[3]),
        ("SELECT * FROM player WHERE 3 = id", &[3]),
        ("SELECT * FROM player WHERE id = 0x3", &[3]),
        ("SELECT * FROM player WHERE id = 30e-1", &[3]),
        ("SELECT * FROM player WHERE id = 99", &[]),
        ("SELECT * FROM player WHERE id = 1 OR id = 4 OR id = 1 OR id = 77", &[1, 4]),
        ("SELECT * FROM player WHERE id = 1 AND id = 4", &[]),
        ("SELECT * FROM player WHERE 2 < id AND id <= 4", &[3, 4]),
        ("SELECT * FROM player WHERE id > 4 AND id < 2", &[]),
        ("SELECT * FROM player WHERE id >= 4 AND id > 4", &[5]),
        ("SELECT * FROM player WHERE NOT (id > 2 OR id = 0)", &[1, 2]),
        ("SELECT * FROM player WHERE nick_name = 'p2'", &[2]),
        ("SELECT * FROM player WHERE nickName >= 'p4'", &[4, 5]),
        ("SELECT * FROM player WHERE team = 1 AND score > 0", &[4]),
        ("SELECT * FROM player WHERE team = 1 AND score = -10", &[1]),
        ("SELECT * FROM player WHERE score < -5", &[0, 1]),
        ("SELECT * FROM player WHERE alive", &[0, 2, 4]),
        ("SELECT * FROM player WHERE NOT alive AND alive = FALSE", &[1, 3, 5]),
        ("SELECT * FROM player WHERE x = 0", &[1, 2]),
        ("SELECT * FROM player WHERE x = -0.0", &[1, 2]),
        ("SELECT * FROM player WHERE x < 0", &[0]),
        ("SELECT * FROM player WHERE x <= 0", &[0, 1, 2]),
        ("SELECT * FROM player WHERE x > 0", &[3, 4]),
        ("SELECT * FROM player WHERE x >= .5", &[3, 4]),
        ("SELECT * FROM player WHERE NOT (x >= 0)", &[0, 5]),
        ("SELECT * FROM player WHERE x <> 0", &[0, 3, 4, 5]),
        ("SELECT * FROM player WHERE x = x", &[0, 1, 2, 3, 4]),
        ("SELECT * FROM player WHERE badge = X'04FF'", &[4]),
        ("SELECT * FROM player WHERE badge > 0x0400", &[4, 5]),
        ("SELECT * FROM player WHERE mood = 'Sad'", &[1, 3, 5]),
        ("SELECT * FROM player WHERE mood <> 'Sad'", &[0, 2, 4]),
        ("SELECT * FROM player WHERE joined = '1970-01-01T00:00:03Z'", &[3]),
        ("SELECT * FROM player WHERE joined > 3999999", &[4, 5]),
        ("SELECT * FROM player WHERE huge = 4", &[4]),
        ("SELECT * FROM player WHERE huge < 2", &[0, 1]),
        ("SELECT * FROM player WHERE owner = 0x0202020202020202020202020202020202020202020202020202020202020202", &[2]),
        ("SELECT * FROM player WHERE owner = :sender", &[2]),
        ("SELECT * FROM player WHERE TRUE AND (id = 1 OR FALSE)", &[1]),
        ("SELECT * FROM player WHERE id = 1 AND FALSE", &[]),
        ("SELECT * FROM \"chatMessage\" WHERE \"text\" = 'hello' AND team = 1", &[1, 3]),
        ("SELECT * FROM team WHERE title = 'it''s' AND open", &[0, 2]),
        ("SELECT * FROM damage", &[]),
        ("SELECT * FROM untidy WHERE a = b", &[1]),
        ("SELECT * FROM untidy WHERE b > a", &[0, 2]),
    ];
    for (sql, expected) in cases {
        assert_eq!(ids(&world, sql, &STRANGER()), *expected, "{sql}");
    }
    assert_eq!(ids(&world, "SELECT * FROM secret", &OWNER()), [7]);
}

#[test]
fn literals_longer_than_any_key_find_nothing() {
    let world = game();
    let long = "x".repeat(20_000);
    for operator in ["=", ">"] {
        let sql = format!("SELECT * FROM player WHERE nick_name {operator} '{long}'");
        assert!(ids(&world, &sql, &STRANGER()).is_empty(), "{operator}");
    }
    let sql = format!("SELECT * FROM player WHERE nick_name < '{long}' AND id < 2");
    assert_eq!(ids(&world, &sql, &STRANGER()), [0, 1]);
}

#[test]
fn joins_return_each_row_of_one_side_once() {
    let world = game();
    let cases: &[(&str, &[u64])] = &[
        ("SELECT t.* FROM team t JOIN player p ON t.id = p.team", &[0, 1, 2]),
        ("SELECT p.* FROM team t JOIN player p ON p.team = t.id WHERE t.open", &[0, 2, 3, 5]),
        ("SELECT p.* FROM player p JOIN team t ON p.team = t.id WHERE NOT t.open AND p.id > 1", &[4]),
        ("SELECT team.* FROM team JOIN chat_message ON team.id = chat_message.team", &[0, 1]),
        ("SELECT m.* FROM chatMessage m JOIN player p ON m.team = p.team WHERE p.id = 4", &[1, 3]),
        ("SELECT m.* FROM chatMessage m JOIN player p ON m.team = p.team WHERE p.id < m.id", &[2, 3]),
        ("SELECT m.* FROM player p JOIN chatMessage m ON m.team = p.team WHERE p.id = m.id OR p.id = 3", &[0, 1, 2]),
        ("SELECT a.* FROM player a JOIN player b ON a.team = b.team WHERE a.id < b.id", &[0, 1, 2]),
        ("SELECT a.* FROM player a JOIN player b ON a.id = b.id WHERE b.score > 0 AND FALSE", &[]),
        ("SELECT p.* FROM player p JOIN untidy u ON p.team = u.a WHERE u.b = 9", &[2, 5]),
        ("SELECT u.* FROM untidy u JOIN player p ON p.team = u.b", &[0, 1]),
        ("SELECT u.* FROM untidy u JOIN untidy v ON u.a = v.b WHERE u.b <= v.a", &[1]),
        ("SELECT d.* FROM damage d JOIN player p ON d.player = p.id", &[]),
    ];
    for (sql, expected) in cases {
        assert_eq!(ids(&world, sql, &STRANGER()), *expected, "{sql}");
    }
}

#[test]
fn all_tables_means_the_visible_ones() {
    let world = game();
    let names = |caller: &Caller| -> Vec<String> {
        let plans = compile_subscription_set("SELECT * FROM *", &world.schema, caller).expect("always valid");
        plans.iter().map(|plan| plan.table_name().to_string()).collect()
    };
    assert_eq!(names(&STRANGER()), ["player", "team", "chat_message", "damage", "untidy"]);
    assert_eq!(names(&OWNER()).len(), 6);
    let rows = one_off("SELECT * FROM *", &world.schema, &STRANGER(), &world.tables).expect("always valid");
    assert_eq!(rows.tables.iter().map(|table| table.rows.len()).collect::<Vec<_>>(), [6, 3, 4, 0, 3]);
}

#[test]
fn conditions_choose_indexes() {
    let world = game();
    let cases = [
        ("SELECT * FROM player WHERE id = 3", "player_id points 1"),
        ("SELECT * FROM player WHERE id = 3 OR id = 4", "player_id points 2"),
        ("SELECT * FROM player WHERE (id = 3 OR id = 4) AND team = 1", "player_id points 2"),
        ("SELECT * FROM player WHERE team = 1 AND nick_name = 'x'", "player_nick_name points 1"),
        ("SELECT * FROM player WHERE team = 1", "player_team_score range 1 0"),
        ("SELECT * FROM player WHERE team = 1 AND score = 2", "player_team_score points 1"),
        ("SELECT * FROM player WHERE score > 2 AND team = 1", "player_team_score range 1 1"),
        ("SELECT * FROM player WHERE team > 1", "player_team_score range 0 1"),
        ("SELECT * FROM player WHERE score = 2", "scan"),
        ("SELECT * FROM player WHERE x = 0", "player_x range 0 2"),
        ("SELECT * FROM player WHERE NOT (x > 0)", "scan"),
        ("SELECT * FROM player WHERE NOT (id > 3)", "player_id range 0 1"),
        ("SELECT * FROM player WHERE id <> 3", "scan"),
        ("SELECT * FROM player WHERE id = 3 OR team = 1", "scan"),
        ("SELECT * FROM player WHERE id > 3 AND id < 2", "nothing"),
        ("SELECT * FROM player WHERE id > 3 AND id <= 3", "nothing"),
        ("SELECT * FROM player WHERE id = 3 AND FALSE", "nothing"),
        ("SELECT * FROM untidy WHERE a = 3", "scan"),
        ("SELECT * FROM damage WHERE player = 3", "nothing"),
    ];
    for (sql, expected) in cases {
        let plan = compile_subscription(sql, &world.schema, &STRANGER()).unwrap_or_else(|error| panic!("{error}"));
        let side = plan.sides().next().expect("a plan has a side");
        assert_eq!(describe(&world, &side.access), expected, "{sql}");
    }
}

fn describe(world: &World, access: &AccessPath) -> String {
    let name = |index: &IndexSchema, columns: &[ColumnId]| {
        let (table, _) = world.schema.index(index.id).expect("an index of the schema");
        let columns = columns.iter().map(|column| &*table.columns[column.position()].name);
        [&*table.name].into_iter().chain(columns).collect::<Vec<_>>().join("_")
    };
    let index = |id| world.schema.index(id).expect("an index of the schema").1;
    match access {
        AccessPath::Nothing => "nothing".to_owned(),
        AccessPath::Scan(_) => "scan".to_owned(),
        AccessPath::Points { index: id, keys, .. } => {
            format!("{} points {}", name(index(*id), &index(*id).columns), keys.len())
        }
        AccessPath::Range { index: id, prefix_columns, start, end, .. } => {
            let bounds = [start, end].iter().filter(|bound| !matches!(bound, std::ops::Bound::Unbounded)).count();
            format!("{} range {prefix_columns} {bounds}", name(index(*id), &index(*id).columns))
        }
    }
}

/// The rows of an HTTP query as sorted text, and its column names.
fn http(world: &World, sql: &str) -> (Vec<String>, Vec<String>) {
    let result = select(sql, &world.schema, &STRANGER(), &world.tables, SelectLimits::default())
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let ty = AlgebraicType::Product(result.columns.clone());
    let mut rows: Vec<String> = Vec::new();
    for row in &result.rows {
        validate_product(&result.columns, row).expect("rows have the type of the result");
        let value = tine_types::json::bsatn_to_sql_json(&ty, &mut Reader::new(row)).expect("a valid row");
        rows.push(value.to_string());
    }
    rows.sort();
    let names = result.columns.elements.iter().map(|element| element.name().unwrap_or("?").to_owned());
    (names.collect(), rows)
}

#[test]
fn http_selects_columns_counts_and_joins() {
    let world = game();
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("SELECT id, nickName FROM player WHERE id < 2", &["id", "nick_name"], &["[0,\"p0\"]", "[1,\"p1\"]"]),
        ("SELECT nick_name AS n, p.id i FROM player p WHERE id = 4", &["n", "i"], &["[\"p4\",4]"]),
        ("SELECT path, id FROM player WHERE id = 2", &["path", "id"], &["[[1,1],2]"]),
        ("SELECT COUNT(*) AS n FROM player", &["n"], &["[6]"]),
        ("SELECT COUNT(*) FROM player WHERE alive", &["count"], &["[3]"]),
        ("SELECT COUNT(*) AS n FROM player WHERE id = 99", &["n"], &["[0]"]),
        ("SELECT COUNT(*) AS n FROM damage", &["n"], &["[0]"]),
        ("SELECT * FROM untidy WHERE a = 2", &["a", "b"], &["[2,9]"]),
        ("SELECT * FROM untidy LIMIT 0", &["a", "b"], &[]),
        (
            "SELECT u.a, v.a FROM untidy u JOIN untidy v ON u.b = v.b",
            &["a", "a"],
            &["[0,0]", "[0,1]", "[1,0]", "[1,1]", "[2,2]"],
        ),
        (
            "SELECT t.id, p.id, m.id FROM team t JOIN player p ON p.team = t.id JOIN chat_message m ON m.team = t.id \
             WHERE m.id > p.id AND t.open",
            &["id", "id", "id"],
            &["[0,0,2]"],
        ),
        (
            "SELECT COUNT(*) AS n FROM untidy u JOIN player p ON p.team = u.a JOIN team t ON t.id = p.team",
            &["n"],
            &["[6]"],
        ),
        ("SELECT u.* FROM untidy u JOIN team t ON t.id = u.b", &["a", "b"], &["[0,1]", "[1,1]"]),
        (
            "SELECT * FROM team t JOIN untidy u ON u.a = t.id WHERE u.b = 9",
            &["id", "title", "open", "a", "b"],
            &["[2,\"it's\",true,2,9]"],
        ),
    ];
    for (sql, names, rows) in cases {
        let (actual_names, actual_rows) = http(&world, sql);
        assert_eq!(actual_names, *names, "{sql}");
        assert_eq!(actual_rows, *rows, "{sql}");
    }
    assert_eq!(http(&world, "SELECT id FROM player LIMIT 2").1.len(), 2);
}

#[test]
fn http_looks_at_few_rows() {
    let world = game();
    let scanned = |sql| {
        let result = select(sql, &world.schema, &STRANGER(), &world.tables, SelectLimits::default());
        result.unwrap_or_else(|error| panic!("{sql}: {error}")).scanned
    };
    assert_eq!(scanned("SELECT COUNT(*) FROM player"), 0);
    assert_eq!(scanned("SELECT * FROM player WHERE id = 3"), 1);
    assert_eq!(scanned("SELECT * FROM player LIMIT 2"), 2);
    // Starts at the one player although the other table stands first.
    assert_eq!(scanned("SELECT * FROM team t JOIN player p ON p.team = t.id WHERE p.id = 3"), 2);
}

#[test]
fn keys_are_equal_for_equal_queries_only() {
    let world = game();
    let key = |sql: &str, caller: Caller| {
        compile_subscription(sql, &world.schema, &caller).unwrap_or_else(|error| panic!("{sql}: {error}")).key().clone()
    };
    let same = [
        "SELECT * FROM player WHERE id = 1 AND alive",
        "select p.* from \"player\" AS p where ((p.id = 0x01)) and (p.alive = true)",
        "SELECT player.* FROM player WHERE 1 = id AND NOT NOT alive;",
    ];
    for sql in same {
        assert_eq!(key(sql, STRANGER()), key(same[0], OWNER()), "{sql}");
    }
    let different = [
        "SELECT * FROM player WHERE id = 2 AND alive",
        "SELECT * FROM player WHERE id = 1 OR alive",
        "SELECT * FROM player WHERE team = 1 AND alive",
        "SELECT * FROM player WHERE id = 1 AND NOT alive",
        "SELECT a.* FROM player a JOIN player b ON a.id = b.id",
        "SELECT b.* FROM player a JOIN player b ON a.id = b.id",
    ];
    for (position, sql) in different.iter().enumerate() {
        assert_ne!(key(sql, STRANGER()), key(same[0], STRANGER()), "{sql}");
        for other in &different[..position] {
            assert_ne!(key(sql, STRANGER()), key(other, STRANGER()), "{sql} and {other}");
        }
    }
    let own = "SELECT * FROM player WHERE owner = :sender";
    assert_ne!(key(own, OWNER()), key(own, STRANGER()));
    let spelt = format!("SELECT * FROM player WHERE owner = 0x{}", identity(2).to_hex());
    assert_eq!(key(own, STRANGER()), key(&spelt, OWNER()));
}

#[test]
fn update_statements_keep_their_parts() {
    let Ok(Statement::Update(update)) = parse_statement("UPDATE t SET a = -1, b = 'x' WHERE c = 2") else {
        panic!("an UPDATE")
    };
    assert_eq!(update.assignments.len(), 2);
    assert!(update.filter.is_some());
}

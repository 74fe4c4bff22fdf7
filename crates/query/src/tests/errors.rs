use tine_types::{AlgebraicType, AlgebraicValue};

use super::{Draft, OWNER, STRANGER, World, game};
use crate::{SelectLimits, compile_subscription, one_off, select};

#[test]
fn subscriptions_are_refused_with_code_and_place() {
    let world = game();
    let refused = [
        ("SELECT * FROM nobody", "TN0407", 15),
        ("SELECT * FROM Player", "TN0407", 15),
        ("SELECT * FROM secret", "TN0407", 15),
        ("SELECT * FROM player JOIN secret ON player.id = secret.id", "TN0407", 27),
        ("SELECT team.* FROM player", "TN0407", 8),
        ("SELECT * FROM player AS p WHERE player.id = 1", "TN0407", 33),
        ("SELECT * FROM player WHERE nick = 'x'", "TN0408", 28),
        ("SELECT * FROM player WHERE player.nope = 1", "TN0408", 35),
        ("SELECT p.* FROM player p JOIN chat_message p ON p.id = p.id", "TN0409", 44),
        ("SELECT player.* FROM player JOIN player ON player.id = player.id", "TN0409", 34),
        ("SELECT p.* FROM player p JOIN chat_message m ON p.id = m.id WHERE team = 1", "TN0409", 67),
        ("SELECT * FROM player WHERE id = 'one'", "TN0410", 33),
        ("SELECT * FROM player WHERE alive = 1", "TN0410", 36),
        ("SELECT * FROM player WHERE nick_name = 5", "TN0410", 40),
        ("SELECT * FROM player WHERE path = 5", "TN0410", 28),
        ("SELECT * FROM player WHERE id = score", "TN0410", 31),
        ("SELECT * FROM player WHERE id", "TN0410", 28),
        ("SELECT * FROM player WHERE 1 = 1", "TN0410", 30),
        ("SELECT * FROM player WHERE mood < 'Sad'", "TN0410", 28),
        ("SELECT * FROM player WHERE id = :sender", "TN0410", 33),
        ("SELECT * FROM player WHERE id = 18446744073709551616", "TN0411", 33),
        ("SELECT * FROM player WHERE id = -1", "TN0411", 33),
        ("SELECT * FROM player WHERE id = 1.5", "TN0411", 33),
        ("SELECT * FROM player WHERE score = 2147483648", "TN0411", 36),
        ("SELECT * FROM player WHERE owner = 0x01", "TN0411", 36),
        ("SELECT * FROM player WHERE badge = 0x012", "TN0411", 36),
        ("SELECT * FROM player WHERE mood = 'Angry'", "TN0411", 35),
        ("SELECT * FROM player WHERE joined = 'yesterday'", "TN0411", 37),
        ("SELECT * FROM player WHERE x = 1e999", "TN0411", 32),
        ("SELECT * FROM player WHERE huge = 1e99", "TN0411", 35),
        ("SELECT p.* FROM player p JOIN team t ON p.score = t.id", "TN0410", 41),
        ("SELECT p.* FROM player p JOIN untidy u ON p.team = u.a", "TN0412", 43),
        ("SELECT u.* FROM untidy u JOIN team t ON t.id = u.b", "TN0412", 41),
        ("SELECT p.* FROM player p JOIN player q ON p.x = q.x", "TN0405", 43),
        ("SELECT p.* FROM player p JOIN team t ON p.team = p.id", "TN0405", 41),
        ("SELECT p.* FROM player p JOIN damage d ON p.id = d.player", "TN0405", 43),
        ("SELECT * FROM player p JOIN team t ON p.team = t.id", "TN0405", 8),
        ("SELECT id FROM player", "TN0405", 8),
        ("SELECT COUNT(*) AS n FROM player", "TN0405", 8),
        ("SELECT * FROM player LIMIT 1", "TN0405", 22),
        ("DELETE FROM player", "TN0405", 13),
        ("SHOW row_limit", "TN0405", 6),
        ("SELECT p.* FROM player p JOIN team t ON p.team = t.id JOIN chat_message m ON m.team = t.id", "TN0405", 60),
    ];
    for (sql, code, column) in refused {
        let error = compile_subscription(sql, &world.schema, &STRANGER()).expect_err(sql);
        assert_eq!(error.code(), code, "{sql}: {error}");
        assert_eq!(error.detail().expect(sql).position.column, column, "{sql}: {error}");
    }
}

#[test]
fn private_and_missing_tables_look_alike_to_strangers() {
    let world = game();
    let text = |sql| compile_subscription(sql, &world.schema, &STRANGER()).unwrap_err().to_string();
    assert_eq!(text("SELECT * FROM secret"), text("SELECT * FROM absent").replace("absent", "secret"));
    assert!(compile_subscription("SELECT * FROM secret", &world.schema, &OWNER()).is_ok());
}

#[test]
fn joins_without_index_are_for_one_off_queries() {
    let world = game();
    let sql = "SELECT p.* FROM player p JOIN untidy u ON p.team = u.a";
    assert!(compile_subscription(sql, &world.schema, &STRANGER()).is_err());
    assert!(one_off(sql, &world.schema, &STRANGER(), &world.tables).is_ok());
}

#[test]
fn http_refuses_what_it_cannot_run() {
    let world = game();
    let limits = SelectLimits { rows_max: 3, scanned_max: 20, bytes_max: 400 };
    let refused = [
        ("INSERT INTO player VALUES (1)", "TN0413"),
        ("UPDATE player SET id = 1", "TN0413"),
        ("DELETE FROM player", "TN0413"),
        ("SELECT id FROM player", "TN0414"),
        ("SELECT * FROM team JOIN player ON team.id = player.team", "TN0414"),
        ("SELECT COUNT(*) FROM player a JOIN player b ON a.team = b.team JOIN player c ON c.team = b.team", "TN0414"),
        ("SELECT * FROM secret", "TN0407"),
        ("SELECT * FROM *", "TN0413"),
    ];
    for (sql, code) in refused {
        let error = select(sql, &world.schema, &STRANGER(), &world.tables, limits).expect_err(sql);
        assert_eq!(error.code(), code, "{sql}: {error}");
    }
    assert!(select("SELECT id FROM player LIMIT 3", &world.schema, &STRANGER(), &world.tables, limits).is_ok());
}

#[test]
fn a_join_of_all_pairs_ends_with_an_error() {
    const ROWS: u32 = 100;
    let columns = vec![("id", AlgebraicType::U32), ("same", AlgebraicType::U8)];
    let mut world = World::new(&[Draft::new("t", columns).primary_key(0).index(&[1])]);
    for id in 0..ROWS {
        world.insert("t", vec![AlgebraicValue::U32(id), AlgebraicValue::U8(0)]);
    }
    let changes = world.commit();
    // No row finds a match among all the others.
    let sql = "SELECT a.* FROM t a JOIN t b ON a.same = b.same WHERE a.id = b.id AND a.id <> b.id";
    let run = |steps_max: u64| {
        let plan = compile_subscription(sql, &world.schema, &STRANGER()).expect("a valid query");
        let plan = plan.with_join_steps_max(steps_max);
        let evaluated = plan.evaluate_rows(&world.tables).map(|_| ());
        let delta = plan.delta(&world.tables, &changes).map(|_| ());
        [evaluated, delta].map(|result| result.map_err(|error| error.code()))
    };
    let pairs = u64::from(ROWS * ROWS);
    assert_eq!(run(pairs / 2), [Err("TN0414"), Err("TN0414")]);
    assert_eq!(run(pairs * 8), [Ok(()), Ok(())]);
}

use proptest::prelude::*;

use crate::ast::{Expression, LiteralValue, Operand, Projection, Statement};
use crate::{NESTING_MAX, QueryError, TERMS_MAX, TEXT_BYTES_MAX, parse_statement};

#[test]
fn accepts_the_statements_of_both_dialects() {
    let accepted = [
        "SELECT * FROM t",
        "select t.* from t;",
        "SELECT * FROM \"t\" WHERE (\"t\".\"c\" = 5) AND (NOT (\"t\".\"d\" <> 'x'))",
        "SELECT r.* FROM l AS a INNER JOIN r ON a.x = r.y WHERE a.z >= -1.5e3 OR r.b",
        "SELECT \"r\".* FROM \"l\" JOIN \"r\" ON (\"l\".\"x\" = \"r\".\"y\")",
        "SELECT a, t.b AS c, d e FROM t LIMIT 10",
        "SELECT COUNT(*) AS n FROM a JOIN b ON a.x = b.x JOIN c ON c.y = b.y WHERE TRUE",
        "SELECT * FROM order WHERE limit = 1 -- and so on",
        "SELECT * FROM /* two\nlines */ user WHERE not = 1 AND NOT NOT not.x = 2",
        "SELECT * FROM t WHERE id = 0xc200 OR id = X'00ff' OR owner = :sender",
        "SELECT count FROM t",
        "SELECT * FROM *",
        "INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')",
        "INSERT INTO t VALUES (TRUE)",
        "UPDATE t SET a = 1, b = 'x' WHERE c = 2",
        "DELETE FROM t",
        "DELETE FROM t WHERE a < 3;;",
        "SET row_limit TO 5",
        "SET row_limit = 5",
        "SHOW row_limit",
    ];
    for sql in accepted {
        parse_statement(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

#[test]
fn refuses_with_code_and_place() {
    let refused = [
        ("", "TN0402", 0),
        (" -- nothing", "TN0402", 0),
        ("SELEC * FROM t", "TN0403", 1),
        ("SELECT * FROM", "TN0403", 14),
        ("SELECT * FORM t", "TN0403", 10),
        ("SELECT * FROM t WHERE a = 'x", "TN0403", 27),
        ("SELECT * FROM t WHERE a = 5a", "TN0403", 27),
        ("SELECT * FROM t WHERE a = 0x", "TN0403", 27),
        ("SELECT * FROM t WHERE (a = 5", "TN0403", 29),
        ("SELECT * FROM t WHERE 5", "TN0403", 24),
        ("SELECT * FROM t LIMIT x", "TN0403", 23),
        ("SELECT * FROM t LIMIT 1.5", "TN0411", 23),
        ("SELECT * FROM a JOIN b", "TN0403", 23),
        ("SELECT * FROM t /* open", "TN0403", 17),
        ("SELECT * FROM t WHERE a = 1 ORDER BY a", "TN0405", 29),
        ("SELECT * FROM t GROUP BY a", "TN0405", 17),
        ("SELECT DISTINCT a FROM t", "TN0405", 8),
        ("SELECT SUM(a) FROM t", "TN0405", 8),
        ("SELECT a, COUNT(*) FROM t", "TN0405", 11),
        ("SELECT * FROM a, b", "TN0405", 16),
        ("SELECT * FROM a LEFT JOIN b ON a.x = b.x", "TN0405", 17),
        ("SELECT * FROM a JOIN b ON a.x < b.x", "TN0405", 31),
        ("SELECT * FROM t WHERE a + 1 = 2", "TN0405", 25),
        ("SELECT * FROM t WHERE a = 1 + 2", "TN0405", 29),
        ("SELECT * FROM t WHERE a IN (1, 2)", "TN0405", 25),
        ("SELECT * FROM t WHERE a IS NULL", "TN0405", 25),
        ("SELECT * FROM t WHERE lower(a) = 'x'", "TN0405", 23),
        ("SELECT * FROM t WHERE a = (SELECT 1)", "TN0403", 27),
        ("SELECT * FROM t WHERE a = :name", "TN0405", 27),
        ("SELECT * FROM t; SELECT * FROM u", "TN0406", 18),
    ];
    for (sql, code, column) in refused {
        let error = parse_statement(sql).expect_err(sql);
        assert_eq!(error.code(), code, "{sql}: {error}");
        assert_eq!(error.detail().map_or(0, |detail| detail.position.column), column, "{sql}: {error}");
    }
}

#[test]
fn places_count_lines_and_characters() {
    let error = parse_statement("SELECT *\n  FROM t\n WHERE 'ünï' ?").expect_err("`?` is no operator");
    let position = error.detail().expect("an error about the text").position;
    assert_eq!((position.line, position.column, position.offset), (3, 14, 33));
    assert!(error.to_string().contains("line 3, column 14"), "{error}");
}

#[test]
fn bounds_hold_on_both_sides() {
    let nested = |depth: u32| {
        let (open, close) = ("(".repeat(depth as usize), ")".repeat(depth as usize));
        format!("SELECT * FROM t WHERE {open}a = 1{close}")
    };
    assert!(parse_statement(&nested(NESTING_MAX - 1)).is_ok());
    assert_eq!(parse_statement(&nested(NESTING_MAX)).unwrap_err().code(), "TN0404");
    assert_eq!(parse_statement(&nested(20_000)).unwrap_err().code(), "TN0404");

    let listed = |terms: u32| format!("SELECT * FROM t WHERE {}", vec!["a=1"; terms as usize].join(" OR "));
    assert!(parse_statement(&listed(TERMS_MAX)).is_ok());
    assert_eq!(parse_statement(&listed(TERMS_MAX + 1)).unwrap_err().code(), "TN0404");

    let joined = |joins: usize| format!("SELECT * FROM t {}", "JOIN t ON a = b ".repeat(joins));
    assert!(parse_statement(&joined(15)).is_ok());
    assert_eq!(parse_statement(&joined(16)).unwrap_err().code(), "TN0404");

    let long = |bytes: usize| format!("{:bytes$}", "SELECT * FROM t");
    assert!(parse_statement(&long(TEXT_BYTES_MAX)).is_ok());
    assert_eq!(parse_statement(&long(TEXT_BYTES_MAX + 1)).unwrap_err().code(), "TN0401");

    let negations = format!("SELECT * FROM t WHERE {} a = 1", "NOT ".repeat(10_001));
    assert!(matches!(where_of(&negations), Expression::Not(_)));
}

#[test]
fn and_binds_stronger_than_or_and_not_strongest() {
    let Expression::Or(parts) = where_of("SELECT * FROM t WHERE a = 1 OR NOT b = 2 AND c") else {
        panic!("OR is outermost")
    };
    let [Expression::Compare { .. }, Expression::And(inner)] = parts.as_slice() else { panic!("{parts:?}") };
    assert!(matches!(inner.as_slice(), [Expression::Not(_), Expression::Column(_)]), "{inner:?}");
}

#[test]
fn strings_and_names_unescape() {
    let sql = r#"SELECT "a""b" FROM t WHERE c = 'it''s'"#;
    let Ok(Statement::Select(select)) = parse_statement(sql) else { panic!("a SELECT") };
    let Projection::Columns(items) = &select.projection else { panic!("a column list") };
    assert_eq!(&*items[0].column.column.text, "a\"b");
    let Some(Expression::Compare { right: Operand::Literal(literal), .. }) = &select.filter else { panic!("c = …") };
    assert_eq!(literal.value, LiteralValue::Text("it's".into()));
}

fn where_of(sql: &str) -> Expression {
    match parse_statement(sql) {
        Ok(Statement::Select(select)) => select.filter.expect("a WHERE clause"),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn never_panics_on_any_text(text in any::<String>()) {
        let _ = parse_statement(&text);
        let _ = parse_statement(&format!("SELECT * FROM t WHERE {text}"));
    }

    /// Random words of the language get further than random characters.
    #[test]
    fn never_panics_on_any_words(words in prop::collection::vec(prop::sample::select(&[
        "SELECT", "*", "FROM", "t", "JOIN", "ON", "a", ".", "b", "=", "WHERE", "AND", "OR", "NOT", "(", ")", "'x'",
        "5", "-", "0x1f", ",", "LIMIT", "COUNT", ";", "AS", "INSERT", "INTO", "VALUES", "UPDATE", "SET", "DELETE",
        "\"q\"", "<", "<>", "TRUE", ":sender", "1e5", "1.5", "SHOW", "TO", "INNER", "é", "--", "/*", "'", "\"",
    ][..]), 0..24)) {
        for separator in [" ", ""] {
            if let Err(error) = parse_statement(&words.join(separator)) {
                prop_assert!(!error.to_string().is_empty());
                prop_assert!(!matches!(error, QueryError::Tables(_)));
            }
        }
    }
}

#[test]
fn namespaces_belong_to_the_name_of_a_table() {
    let dotted = [
        r#"SELECT * FROM "lib"."thing" WHERE "lib"."thing"."id" = 5"#,
        "SELECT lib.thing.* FROM lib.thing WHERE lib.thing.id = 5",
        r#"SELECT "lib.thing".* FROM "lib.thing" WHERE id = 5"#,
        "SELECT lib.thing.id, id FROM lib.thing",
        "DELETE FROM lib.thing WHERE id = 1",
        "UPDATE lib.thing SET id = 1",
        "INSERT INTO lib.thing VALUES (1)",
        "SELECT a.* FROM lib.thing AS a",
    ];
    for sql in dotted {
        assert!(crate::parse_statement(sql).is_ok(), "{sql}");
        assert_eq!(crate::names_of(sql), ["lib.thing".into()], "{sql}");
    }
    let crate::ast::Statement::Select(select) = crate::parse_statement(dotted[1]).unwrap() else { panic!("a select") };
    let crate::ast::Projection::TableStar(name) = select.projection else { panic!("a star") };
    assert_eq!(&*name.text, "lib.thing");
}

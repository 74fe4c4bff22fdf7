//! Row-level security, against an oracle that first drops the rows that a caller may not see and then runs the query.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tine_types::AlgebraicValue;
use tine_types::protocol::RowListBuilder;

use super::deltas::{Condition, Model, Query, Row, apply_update, as_set, conditions, operations, queries, world};
use super::{OWNER, STRANGER, World, game, identity, player};
use crate::{
    Caller, Catalog, RowRules, SelectLimits, SubscriptionIndex, compile_subscription, compile_subscription_set,
    one_off, select,
};

fn rules(world: &World, texts: &[&str]) -> RowRules {
    RowRules::compile(texts.iter().map(|text| ("", *text)), &world.schema)
        .unwrap_or_else(|error| panic!("{texts:?}: {error}"))
}

fn ids(world: &World, rules: &RowRules, caller: &Caller, sql: &str) -> Vec<u64> {
    let catalog = Catalog { rules, ..Catalog::from(&world.schema) };
    let rows = one_off(sql, catalog, caller, &world.tables).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let ids = rows.tables[0].rows.rows().map(|row| u64::from_le_bytes(row[..8].try_into().expect("an id")));
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    ids
}

#[test]
fn callers_see_their_own_rows_and_the_owner_all() {
    let world = game();
    let third = Caller { identity: identity(3), is_owner: false };
    let all = "SELECT * FROM player";
    let own = rules(&world, &["SELECT * FROM player WHERE owner = :sender"]);
    assert_eq!(ids(&world, &own, &third, all), [3]);
    assert_eq!(ids(&world, &own, &third, "SELECT p.* FROM player p WHERE p.team < 9"), [3]);
    assert_eq!(ids(&world, &own, &OWNER(), all), [0, 1, 2, 3, 4, 5]);
    let several =
        rules(&world, &["SELECT * FROM player WHERE owner = :sender", "SELECT * FROM player WHERE score > 20"]);
    assert_eq!(ids(&world, &several, &third, all), [3, 5]);
    // Teams 0 and 2 are open: their players are seen, and the messages to the teams of players who are seen.
    let chain = rules(
        &world,
        &[
            "SELECT p.* FROM player p JOIN team t ON p.team = t.id WHERE t.open",
            "SELECT m.* FROM chat_message m JOIN player p ON m.team = p.team WHERE p.alive",
        ],
    );
    assert_eq!(ids(&world, &chain, &STRANGER(), all), [0, 2, 3, 5]);
    assert_eq!(ids(&world, &chain, &STRANGER(), "SELECT * FROM chat_message"), [0, 2]);
    let joined = "SELECT t.* FROM team t JOIN player p ON p.team = t.id WHERE p.id = 4";
    let nobody = compile_subscription(joined, Catalog { rules: &chain, ..Catalog::from(&world.schema) }, &STRANGER());
    let rows = nobody.expect("a valid query").evaluate_rows(&world.tables).expect("healthy tables");
    assert!(rows.rows.is_empty(), "a hidden player must not be found out through a join");
}

#[test]
fn counts_columns_and_everything_at_once_are_guarded_too() {
    let world = game();
    let chain = rules(&world, &["SELECT p.* FROM player p JOIN team t ON p.team = t.id WHERE t.open"]);
    let catalog = Catalog { rules: &chain, ..Catalog::from(&world.schema) };
    let run = |sql: &str, caller: &Caller| {
        select(sql, catalog, caller, &world.tables, SelectLimits::default()).expect("a valid query").rows
    };
    assert_eq!(&*run("SELECT COUNT(*) FROM player", &STRANGER())[0], 4u64.to_le_bytes());
    assert_eq!(&*run("SELECT COUNT(*) FROM player", &OWNER())[0], 6u64.to_le_bytes());
    assert_eq!(run("SELECT id FROM player", &STRANGER()).len(), 4);
    let plans = compile_subscription_set("SELECT * FROM *", catalog, &STRANGER()).expect("a valid query");
    let players = plans.iter().find(|plan| &**plan.table_name() == "player").expect("players are public");
    assert_eq!(players.evaluate_rows(&world.tables).expect("healthy tables").rows.len(), 4);
}

#[test]
fn rules_that_are_none_are_refused() {
    let world = game();
    let cases: [(&[&str], &str); 8] = [
        (&["SELECT id FROM player"], "TN0405"),
        (&["SELECT COUNT(*) FROM player"], "TN0405"),
        (&["SELECT * FROM player LIMIT 1"], "TN0405"),
        (&["DELETE FROM player"], "TN0405"),
        (&["SELECT * FROM nobody"], "TN0407"),
        (&["SELECT p.* FROM player p JOIN untidy u ON p.team = u.a"], "TN0412"),
        (&["SELECT a.* FROM player a JOIN player b ON a.team = b.team"], "TN0412"),
        (
            &[
                "SELECT p.* FROM player p JOIN team t ON p.team = t.id",
                "SELECT t.* FROM team t JOIN player p ON p.team = t.id",
            ],
            "TN0404",
        ),
    ];
    for (texts, code) in cases {
        let error = RowRules::compile(texts.iter().map(|text| ("", *text)), &world.schema).expect_err(texts[0]);
        assert_eq!(error.code(), code, "{texts:?}: {error}");
    }
    let private = rules(&world, &["SELECT p.* FROM player p JOIN secret s ON p.id = s.id"]);
    assert!(ids(&world, &private, &STRANGER(), "SELECT * FROM player").is_empty(), "the secret 7 is no player");
}

#[test]
fn callers_share_plans_only_when_they_see_the_same() {
    let mut world = game();
    let own = rules(&world, &["SELECT * FROM player WHERE owner = :sender"]);
    let catalog = Catalog { rules: &own, ..Catalog::from(&world.schema) };
    let mut index = SubscriptionIndex::new();
    for (number, seed) in [3, 3, 77].into_iter().enumerate() {
        let caller = Caller { identity: identity(seed), is_owner: false };
        index.add(number, vec![compile_subscription("SELECT * FROM player", catalog, &caller).expect("a valid query")]);
    }
    assert_eq!(index.plan_count(), 2);
    let mut row = player(50);
    row[6] = identity(77).to_value();
    world.insert("player", row);
    let changes = world.commit();
    let mut told = Vec::new();
    index.affected(&changes, &world.tables, &mut |number, _| told.push(number), &mut |_, error| panic!("{error}"));
    assert_eq!(told, [2]);
}

/// Rules for table `a`, some joined with `b`, and rules for `b` alone.
fn rule_sets() -> impl Strategy<Value = (Vec<Query>, Vec<Query>)> {
    let alone = |table: usize| {
        conditions().prop_map(move |condition| Query { tables: vec![table], returned: 0, edge: [0, 0], condition })
    };
    let joined =
        (any::<bool>(), 0..3usize, 0..2usize, conditions()).prop_map(
            |(flipped, of_a, of_b, condition)| match flipped {
                false => Query { tables: vec![0, 1], returned: 0, edge: [of_a, of_b], condition },
                true => Query { tables: vec![1, 0], returned: 1, edge: [of_b, of_a], condition },
            },
        );
    let of_a = prop::collection::vec(prop_oneof![1 => alone(0), 3 => joined], 0..3);
    (of_a, prop::collection::vec(alone(1), 0..2))
}

/// What a stranger sees.
fn visible(model: &Model, of_a: &[Query], of_b: &[Query]) -> Model {
    let shown = |rules: &[Query], from: &Model, table: usize| -> BTreeSet<Row> {
        match rules {
            [] => from.rows[table].clone(),
            rules => rules.iter().flat_map(|rule| rule.combinations(from)).collect(),
        }
    };
    let b = shown(of_b, model, 1);
    let with_b = Model { rows: [model.rows[0].clone(), b.clone()] };
    Model { rows: [shown(of_a, &with_b, 0), b] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn guarded_queries_and_their_deltas_agree_with_the_oracle(
        (of_a, of_b) in rule_sets(),
        queries in prop::collection::vec(queries(), 1..5),
        transactions in prop::collection::vec(prop::collection::vec(operations(), 1..10), 1..6),
    ) {
        let mut world = world();
        let texts: Vec<String> = of_a.iter().chain(&of_b).map(Query::sql).collect();
        let rules = RowRules::compile(texts.iter().map(|text| ("", text.as_str())), &world.schema).expect("valid rules");
        let schema = world.schema.clone();
        let catalog = Catalog { rules: &rules, ..Catalog::from(&schema) };
        let mut model = Model::default();
        let plans: Vec<_> = queries
            .iter()
            .map(|query| compile_subscription(&query.sql(), catalog, &STRANGER()).expect("a valid query"))
            .collect();
        let mut index = SubscriptionIndex::new();
        for (number, plan) in plans.iter().enumerate() {
            index.add(number, vec![plan.clone()]);
        }
        let mut live = vec![BTreeSet::new(); plans.len()];
        for transaction in transactions {
            for operation in transaction {
                model.apply(operation, &mut world);
            }
            let changes = world.commit();
            let seen = visible(&model, &of_a, &of_b);
            let mut deliver = |number: usize, updates: Vec<std::sync::Arc<tine_types::protocol::TableUpdate>>| {
                updates.iter().for_each(|update| apply_update(&mut live[number], update));
            };
            index.affected(&changes, &world.tables, &mut deliver, &mut |_, error| panic!("{error}"));
            for ((query, plan), live) in queries.iter().zip(&plans).zip(&live) {
                let mut builder = RowListBuilder::new();
                plan.evaluate(&world.tables, &mut builder).expect("healthy tables");
                let evaluated = as_set(&builder.finish(plan.table().static_row_size));
                prop_assert_eq!(&evaluated, &query.expected(&seen), "{} under {:?}", query.sql(), &texts);
                prop_assert_eq!(live, &evaluated, "live {} under {:?}", query.sql(), &texts);
                let limits = SelectLimits::default();
                let found = select(&query.sql(), catalog, &STRANGER(), &world.tables, limits).expect("a valid query");
                prop_assert_eq!(found.rows.len(), query.combinations(&seen).len(), "http {}", query.sql());
            }
        }
        for number in 0..plans.len() {
            index.remove(number);
        }
        prop_assert_eq!((index.plan_count(), index.watched_tables()), (0, 0));
    }
}

#[test]
fn a_condition_that_always_holds_is_no_rule_at_all() {
    let mut world = world();
    let rules =
        rules(&world, &[&Query { tables: vec![0], returned: 0, edge: [0, 0], condition: Condition::True }.sql()]);
    world.insert(
        "a",
        vec![AlgebraicValue::string(""), AlgebraicValue::U8(1), AlgebraicValue::U8(2), AlgebraicValue::U8(3)],
    );
    let catalog = Catalog { rules: &rules, ..Catalog::from(&world.schema) };
    let guarded = compile_subscription("SELECT * FROM a", catalog, &STRANGER()).expect("a valid query");
    let plain = compile_subscription("SELECT * FROM a", &world.schema, &STRANGER()).expect("a valid query");
    assert_eq!(guarded.key(), plain.key());
}

use std::ops::Bound;
use std::sync::Arc;

use tine_store::Read;
use tine_tables::{ChangeSet, DatabaseSchema, IndexId, RowCursor, TableError, TableRead};
use tine_types::AlgebraicValue;
use tine_types::protocol::{TableUpdate, TableUpdateRows};

use super::{STRANGER, World, game, message, player, team};
use crate::{SubscriptionIndex, SubscriptionPlan, compile_subscription};

fn plan(world: &World, sql: &str) -> Arc<SubscriptionPlan> {
    compile_subscription(sql, &world.schema, &STRANGER()).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

type Delivered = Vec<(u32, Vec<Arc<TableUpdate>>)>;

fn affected(index: &SubscriptionIndex<u32>, changes: &ChangeSet, world: &World) -> Delivered {
    let mut delivered = Vec::new();
    let mut deliver = |subscriber, updates| delivered.push((subscriber, updates));
    index.affected(changes, &world.tables, &mut deliver, &mut |_, error| panic!("{error}"));
    delivered
}

/// Inserted and deleted rows.
fn counts(update: &TableUpdate) -> (usize, usize) {
    match &update.rows {
        TableUpdateRows::Persistent { inserts, deletes } => (inserts.len(), deletes.len()),
        TableUpdateRows::Event { events } => panic!("{} events", events.len()),
    }
}

#[test]
fn equal_queries_are_evaluated_once_and_share_the_update() {
    let mut world = game();
    let mut index = SubscriptionIndex::new();
    for subscriber in 0..100 {
        let sql = if subscriber % 2 == 0 { "SELECT * FROM player" } else { "SELECT p.* FROM player AS p;" };
        assert!(index.add(subscriber, vec![plan(&world, sql)]));
    }
    assert_eq!(index.plan_count(), 1);
    world.insert("player", player(9));
    let changes = world.commit();
    let delivered = affected(&index, &changes, &world);
    assert_eq!(delivered.iter().map(|(subscriber, _)| *subscriber).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    assert!(delivered.iter().all(|(_, updates)| Arc::ptr_eq(&updates[0], &delivered[0].1[0])));
    assert_eq!(counts(&delivered[0].1[0]), (1, 0));
    assert_eq!((index.counters().evaluated, index.counters().unchanged), (1, 0));
}

#[test]
fn ten_thousand_parameterised_queries_cost_nothing_for_other_rows() {
    let mut world = game();
    let mut index = SubscriptionIndex::new();
    for id in 0..10_000u32 {
        let sql = format!("SELECT * FROM player WHERE id = {id} AND nick_name <> ''");
        assert!(index.add(id, vec![plan(&world, &sql)]));
    }
    assert_eq!(index.plan_count(), 10_000);
    world.insert("player", player(20_000));
    let changes = world.commit();
    assert!(affected(&index, &changes, &world).is_empty());
    assert_eq!((index.counters().evaluated, index.counters().pruned), (0, 10_000));

    world.insert("player", player(4_321));
    world.delete("player", player(5));
    let changes = world.commit();
    let delivered = affected(&index, &changes, &world);
    let seen: Vec<_> = delivered.iter().map(|(subscriber, updates)| (*subscriber, counts(&updates[0]))).collect();
    assert_eq!(seen, [(5, (0, 1)), (4_321, (1, 0))]);
    assert_eq!((index.counters().evaluated, index.counters().pruned), (2, 19_998));

    for id in 0..10_000u32 {
        assert_eq!(index.remove(id).len(), 1);
    }
    assert_eq!((index.plan_count(), index.subscriber_count(), index.watched_tables()), (0, 0, 0));
}

#[test]
fn several_values_of_one_query_are_watched_and_forgotten_together() {
    let mut world = game();
    let mut index = SubscriptionIndex::new();
    let sql = "SELECT * FROM player WHERE team = 1 AND (id = 11 OR id = 12 OR id = 13)";
    index.add(1, vec![plan(&world, sql)]);
    for id in [11, 13, 14] {
        world.insert("player", player(id));
    }
    let changes = world.commit();
    let delivered = affected(&index, &changes, &world);
    assert_eq!(delivered.len(), 1);
    assert_eq!(counts(&delivered[0].1[0]), (1, 0), "of 11 and 13 only 13 is in team 1");
    assert_eq!((index.counters().evaluated, index.counters().pruned), (1, 0));
    index.remove(1);
    assert_eq!(index.watched_tables(), 0);
}

#[test]
fn a_subscriber_is_called_once_with_all_its_tables() {
    let mut world = game();
    let mut index = SubscriptionIndex::new();
    let (players, teams) = (plan(&world, "SELECT * FROM player"), plan(&world, "SELECT * FROM team"));
    let mine = plan(&world, "SELECT * FROM player WHERE id = 10");
    index.add(3, vec![players.clone(), teams.clone(), players.clone()]);
    index.add(1, vec![teams.clone(), mine.clone()]);
    index.add(2, vec![plan(&world, "SELECT * FROM chat_message")]);
    assert!(!index.add(2, vec![players]), "a subscriber is added once");
    assert_eq!((index.plan_count(), index.plans_of(3).count(), index.plans_of(9).count()), (4, 2, 0));
    assert!(index.contains(3) && !index.contains(9));
    world.insert("player", player(10));
    world.insert("team", team(8, true));
    let changes = world.commit();
    let delivered = affected(&index, &changes, &world);
    let tables = |updates: &[Arc<TableUpdate>]| {
        let mut names: Vec<_> = updates.iter().map(|update| update.table.to_string()).collect();
        names.sort();
        names.join(" ")
    };
    let seen: Vec<_> = delivered.iter().map(|(subscriber, updates)| (*subscriber, tables(updates))).collect();
    assert_eq!(seen, [(1, "player team".to_owned()), (3, "player team".to_owned())]);
    assert_eq!(index.remove(3).len(), 2);
    assert!(index.remove(3).is_empty());
    assert_eq!(index.plan_count(), 3, "the plan of all players went with its last subscriber");
}

#[test]
fn joins_follow_both_tables_and_are_pruned_on_either() {
    let mut world = game();
    let mut index = SubscriptionIndex::new();
    let sql = "SELECT m.* FROM chat_message m JOIN player p ON m.team = p.team WHERE p.id = 77";
    index.add(1, vec![plan(&world, sql)]);
    let step = |world: &mut World, change: &dyn Fn(&mut World)| -> Option<(usize, usize)> {
        change(world);
        let changes = world.commit();
        let delivered = affected(&index, &changes, world);
        delivered.first().map(|(_, updates)| counts(&updates[0]))
    };
    let in_team = |team: u32| {
        let mut row = player(77);
        row[2] = AlgebraicValue::U32(team);
        row
    };
    assert_eq!(step(&mut world, &|world| world.insert("player", in_team(1))), Some((2, 0)));
    assert_eq!(step(&mut world, &|world| world.insert("chatMessage", message(50, 1))), Some((1, 0)));
    assert_eq!(step(&mut world, &|world| world.insert("chatMessage", message(51, 2))), None);
    assert_eq!(step(&mut world, &|world| world.insert("player", player(78))), None);
    let moves = |world: &mut World| {
        world.delete("player", in_team(1));
        world.insert("player", in_team(2));
        world.delete("chatMessage", message(50, 1));
        world.insert("chatMessage", message(52, 2));
    };
    assert_eq!(step(&mut world, &moves), Some((2, 3)));
    assert_eq!(step(&mut world, &|world| world.delete("player", in_team(2))), Some((0, 2)));
    assert_eq!(index.counters().pruned, 1, "player 78 is not the one watched");
}

#[test]
fn events_reach_subscribers_and_are_not_kept() {
    let mut world = game();
    let mut index = SubscriptionIndex::new();
    index.add(1, vec![plan(&world, "SELECT * FROM damage WHERE amount > 5")]);
    index.add(2, vec![plan(&world, "SELECT d.* FROM damage d JOIN player p ON d.player = p.id WHERE p.alive")]);
    let damage = |player, amount| vec![AlgebraicValue::U64(player), AlgebraicValue::U32(amount)];
    for (player, amount) in [(2, 4), (3, 9), (4, 9), (4, 9), (99, 9)] {
        world.insert("damage", damage(player, amount));
    }
    let changes = world.commit();
    let delivered = affected(&index, &changes, &world);
    let events: Vec<_> = delivered
        .iter()
        .map(|(subscriber, updates)| match &updates[0].rows {
            TableUpdateRows::Event { events } => (*subscriber, events.len()),
            TableUpdateRows::Persistent { .. } => panic!("events are not rows of a table that keeps them"),
        })
        .collect();
    assert_eq!(events, [(1, 4), (2, 3)]);
    let rows = plan(&world, "SELECT * FROM damage").evaluate_rows(&world.tables).expect("healthy tables");
    assert!(rows.rows.is_empty());
}

/// Tables whose indexes cannot be read.
struct Damaged<'a>(&'a World);

impl TableRead for Damaged<'_> {
    fn schema(&self) -> &Arc<DatabaseSchema> {
        &self.0.schema
    }

    fn store(&self) -> &dyn Read {
        self.0.tables.store()
    }

    fn index_point(&self, _: IndexId, _: &[u8]) -> Result<RowCursor<'_>, TableError> {
        Err(TableError::NoSuchIndex)
    }

    fn index_range(
        &self,
        _: IndexId,
        _: &[u8],
        _: usize,
        _: Bound<&[u8]>,
        _: Bound<&[u8]>,
    ) -> Result<RowCursor<'_>, TableError> {
        Err(TableError::NoSuchIndex)
    }
}

#[test]
fn a_failing_plan_fails_its_subscribers_only() {
    let mut world = game();
    let mut index = SubscriptionIndex::new();
    let all = plan(&world, "SELECT * FROM player");
    let joined = plan(&world, "SELECT p.* FROM player p JOIN team t ON p.team = t.id");
    index.add(1, vec![all.clone()]);
    index.add(2, vec![all.clone(), joined.clone()]);
    index.add(3, vec![joined]);
    index.add(4, vec![all]);
    world.insert("player", player(30));
    let changes = world.commit();
    let log = std::cell::RefCell::new(Vec::new());
    index.affected(
        &changes,
        &Damaged(&world),
        &mut |subscriber: u32, updates| log.borrow_mut().push((subscriber, format!("{} updates", updates.len()))),
        &mut |subscriber, error| log.borrow_mut().push((subscriber, error.code().to_owned())),
    );
    let expected = [(2, "TN0415"), (3, "TN0415"), (1, "1 updates"), (4, "1 updates")];
    assert_eq!(log.into_inner(), expected.map(|(subscriber, what)| (subscriber, what.to_owned())));
}

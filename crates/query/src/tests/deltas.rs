//! Random queries over random transactions, against an oracle that knows nothing of plans: the
//! result before, changed by the delta, must be the result after, and both must be what evaluating
//! the condition on every (pair of) rows gives.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tine_types::protocol::{RowList, RowListBuilder, TableUpdate, TableUpdateRows};
use tine_types::{AlgebraicType, AlgebraicValue};

use super::{Draft, OWNER, World, encode};
use crate::ast::Operator;
use crate::{SelectLimits, SubscriptionIndex, SubscriptionPlan, compile_subscription, one_off, select};

/// Table 0 is `a (name, id, k, v)`, table 1 is `b (k, v, w)`; rows of the model hold the numbers.
pub(super) type Row = [u8; 3];
const TABLES: [&str; 2] = ["a", "b"];
const COLUMNS: [[&str; 3]; 2] = [["id", "k", "v"], ["k", "v", "w"]];
/// Columns that an index starts with.
const INDEXED: [&[usize]; 2] = [&[0, 1, 2], &[0, 1]];
const OPERATORS: [Operator; 6] = [
    Operator::Equal,
    Operator::NotEqual,
    Operator::Less,
    Operator::LessEqual,
    Operator::Greater,
    Operator::GreaterEqual,
];

#[derive(Debug, Clone)]
pub(super) struct Query {
    /// Table by slot: one or two.
    pub(super) tables: Vec<usize>,
    pub(super) returned: usize,
    /// Columns joined, by slot.
    pub(super) edge: [usize; 2],
    pub(super) condition: Condition,
}

#[derive(Debug, Clone)]
pub(super) enum Condition {
    Value { slot: usize, column: usize, operator: Operator, value: u8 },
    Columns { left: (usize, usize), operator: Operator, right: (usize, usize) },
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    True,
}

fn compare(operator: Operator, left: u8, right: u8) -> bool {
    match operator {
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::Less => left < right,
        Operator::LessEqual => left <= right,
        Operator::Greater => left > right,
        Operator::GreaterEqual => left >= right,
    }
}

impl Condition {
    /// Slots are taken modulo the number of tables, so that any condition fits any query.
    fn holds(&self, rows: &[Row]) -> bool {
        let slots = rows.len();
        match self {
            Condition::Value { slot, column, operator, value } => {
                compare(*operator, rows[slot % slots][*column], *value)
            }
            Condition::Columns { left, operator, right } => {
                compare(*operator, rows[left.0 % slots][left.1], rows[right.0 % slots][right.1])
            }
            Condition::And(parts) => parts.iter().all(|part| part.holds(rows)),
            Condition::Or(parts) => parts.iter().any(|part| part.holds(rows)),
            Condition::Not(inner) => !inner.holds(rows),
            Condition::True => true,
        }
    }

    fn sql(&self, tables: &[usize]) -> String {
        let column = |slot: usize, column: usize| {
            let slot = slot % tables.len();
            format!("s{slot}.{}", COLUMNS[tables[slot]][column])
        };
        let list = |parts: &[Condition], word: &str| {
            let parts: Vec<_> = parts.iter().map(|part| format!("({})", part.sql(tables))).collect();
            parts.join(word)
        };
        match self {
            Condition::Value { slot, column: c, operator, value } => {
                format!("{} {} {value}", column(*slot, *c), operator.as_text())
            }
            Condition::Columns { left, operator, right } => {
                format!("{} {} {}", column(left.0, left.1), operator.as_text(), column(right.0, right.1))
            }
            Condition::And(parts) => list(parts, " AND "),
            Condition::Or(parts) => list(parts, " OR "),
            Condition::Not(inner) => format!("NOT ({})", inner.sql(tables)),
            Condition::True => "TRUE".to_owned(),
        }
    }
}

impl Query {
    fn source_and_condition(&self) -> String {
        let mut sql = format!("FROM {} s0", TABLES[self.tables[0]]);
        if let [left, right] = *self.tables.as_slice() {
            let (left_column, right_column) = (COLUMNS[left][self.edge[0]], COLUMNS[right][self.edge[1]]);
            sql.push_str(&format!(" JOIN {} s1 ON s0.{left_column} = s1.{right_column}", TABLES[right]));
        }
        sql + " WHERE " + &self.condition.sql(&self.tables)
    }

    pub(super) fn sql(&self) -> String {
        format!("SELECT s{}.* {}", self.returned, self.source_and_condition())
    }

    /// The matching combinations, one entry per combination: the row returned.
    pub(super) fn combinations(&self, model: &Model) -> Vec<Row> {
        let rows = |slot: usize| model.rows[self.tables[slot]].iter().copied();
        match self.tables.len() {
            1 => rows(0).filter(|row| self.condition.holds(&[*row])).collect(),
            _ => rows(0)
                .flat_map(|left| rows(1).map(move |right| [left, right]))
                .filter(|pair| pair[0][self.edge[0]] == pair[1][self.edge[1]] && self.condition.holds(pair))
                .map(|pair| pair[self.returned])
                .collect(),
        }
    }

    /// The result as encoded rows.
    pub(super) fn expected(&self, model: &Model) -> BTreeSet<Vec<u8>> {
        let table = self.tables[self.returned];
        self.combinations(model).into_iter().map(|row| encode(values(table, row))).collect()
    }
}

pub(super) fn values(table: usize, row: Row) -> Vec<AlgebraicValue> {
    let numbers = row.into_iter().map(AlgebraicValue::U8);
    match table {
        // A column of variable size in front moves the others about.
        0 => [AlgebraicValue::string(&"n".repeat(usize::from(row[0])))].into_iter().chain(numbers).collect(),
        _ => numbers.collect(),
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    Insert(usize, Row),
    /// Deletes the row at this position, modulo the number of rows.
    Delete(usize, usize),
    /// Deletes a row of `a` and inserts it with other values.
    Update(usize, u8, u8),
}

/// What the tables hold.
#[derive(Default)]
pub(super) struct Model {
    pub(super) rows: [BTreeSet<Row>; 2],
}

impl Model {
    pub(super) fn apply(&mut self, operation: Operation, world: &mut World) {
        match operation {
            Operation::Insert(table, row) => {
                let taken = table == 0 && self.rows[0].iter().any(|other| other[0] == row[0]);
                if !taken && self.rows[table].insert(row) {
                    world.insert(TABLES[table], values(table, row));
                }
            }
            Operation::Delete(table, position) => {
                let count = self.rows[table].len().max(1);
                if let Some(row) = self.rows[table].iter().nth(position % count).copied() {
                    self.rows[table].remove(&row);
                    world.delete(TABLES[table], values(table, row));
                }
            }
            Operation::Update(position, k, v) => {
                let count = self.rows[0].len().max(1);
                if let Some(row) = self.rows[0].iter().nth(position % count).copied() {
                    self.apply(Operation::Delete(0, position), world);
                    self.apply(Operation::Insert(0, [row[0], k, v]), world);
                }
            }
        }
    }
}

pub(super) fn world() -> World {
    let number = |name| (name, AlgebraicType::U8);
    let a = vec![("name", AlgebraicType::String), number("id"), number("k"), number("v")];
    World::new(&[
        Draft::new("a", a).primary_key(1).index(&[2]).index(&[3, 2]),
        Draft::new("b", vec![number("k"), number("v"), number("w")]).index(&[0]).index(&[1, 2]),
    ])
}

pub(super) fn evaluated(plan: &SubscriptionPlan, world: &World) -> BTreeSet<Vec<u8>> {
    let mut builder = RowListBuilder::new();
    plan.evaluate(&world.tables, &mut builder).expect("healthy tables");
    as_set(&builder.finish(plan.table().static_row_size))
}

pub(super) fn as_set(rows: &RowList) -> BTreeSet<Vec<u8>> {
    let set: BTreeSet<Vec<u8>> = rows.rows().map(<[u8]>::to_vec).collect();
    assert_eq!(set.len(), rows.len(), "a row came twice");
    set
}

pub(super) fn apply_update(rows: &mut BTreeSet<Vec<u8>>, update: &TableUpdate) {
    let TableUpdateRows::Persistent { inserts, deletes } = &update.rows else { panic!("rows are stored") };
    for row in as_set(deletes) {
        assert!(rows.remove(&row), "a row was deleted that was not there");
    }
    for row in as_set(inserts) {
        assert!(rows.insert(row), "a row was inserted that was there");
    }
}

pub(super) fn conditions() -> impl Strategy<Value = Condition> {
    let operator = || prop::sample::select(&OPERATORS[..]);
    let value = (0..2usize, 0..3usize, operator(), 0..4u8)
        .prop_map(|(slot, column, operator, value)| Condition::Value { slot, column, operator, value });
    let equal = (0..2usize, 0..3usize, 0..4u8).prop_map(|(slot, column, value)| Condition::Value {
        slot,
        column,
        operator: Operator::Equal,
        value,
    });
    let columns = ((0..2usize, 0..3usize), operator(), (0..2usize, 0..3usize))
        .prop_map(|(left, operator, right)| Condition::Columns { left, operator, right });
    let leaf = prop_oneof![3 => value, 3 => equal, 1 => columns, 1 => Just(Condition::True)];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 2..4).prop_map(Condition::And),
            2 => prop::collection::vec(inner.clone(), 2..4).prop_map(Condition::Or),
            1 => inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

pub(super) fn queries() -> impl Strategy<Value = Query> {
    let tables = prop_oneof![1 => prop::collection::vec(0..2usize, 1), 3 => prop::collection::vec(0..2usize, 2)];
    (tables, 0..2usize, 0..6usize, 0..6usize, conditions()).prop_map(|(tables, returned, left, right, condition)| {
        let column = |slot: usize, pick: usize| {
            let indexed = INDEXED[tables[slot % tables.len()]];
            indexed[pick % indexed.len()]
        };
        let edge = [column(0, left), column(1, right)];
        Query { returned: returned % tables.len(), edge, condition, tables }
    })
}

pub(super) fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..2usize, 0..6u8, 0..4u8, 0..4u8).prop_map(|(table, x, y, z)| Operation::Insert(table, [x % 6, y, z])),
        2 => (0..2usize, 0..32usize).prop_map(|(table, position)| Operation::Delete(table, position)),
        2 => (0..32usize, 0..4u8, 0..4u8).prop_map(|(position, k, v)| Operation::Update(position, k, v)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn deltas_lead_from_result_to_result(
        queries in prop::collection::vec(queries(), 1..8),
        transactions in prop::collection::vec(prop::collection::vec(operations(), 1..10), 1..8),
    ) {
        let mut world = world();
        let mut model = Model::default();
        let mut index = SubscriptionIndex::new();
        let mut plans = Vec::new();
        for (number, query) in queries.iter().enumerate() {
            let plan = compile_subscription(&query.sql(), &world.schema, &OWNER())
                .unwrap_or_else(|error| panic!("{}: {error}", query.sql()));
            prop_assert!(index.add(number, vec![plan.clone()]));
            plans.push(plan);
        }
        let mut results = vec![BTreeSet::new(); queries.len()];
        let mut live = results.clone();
        for transaction in transactions {
            for operation in transaction {
                model.apply(operation, &mut world);
            }
            let changes = world.commit();
            for ((query, plan), result) in queries.iter().zip(&plans).zip(&mut results) {
                if let Some(update) = plan.delta(&world.tables, &changes).expect("healthy tables") {
                    apply_update(result, &update);
                }
                prop_assert_eq!(&*result, &query.expected(&model), "delta of {}", query.sql());
                prop_assert_eq!(&*result, &evaluated(plan, &world), "evaluation of {}", query.sql());
            }
            let mut deliver = |number: usize, updates: Vec<std::sync::Arc<TableUpdate>>| {
                updates.iter().for_each(|update| apply_update(&mut live[number], update));
            };
            index.affected(&changes, &world.tables, &mut deliver, &mut |_, error| panic!("{error}"));
            prop_assert_eq!(&live, &results, "live results of {:?}", queries.iter().map(Query::sql).collect::<Vec<_>>());
        }
        for (number, _) in queries.iter().enumerate() {
            prop_assert_eq!(index.remove(number).len(), 1);
        }
        prop_assert_eq!((index.plan_count(), index.subscriber_count(), index.watched_tables()), (0, 0, 0));
    }

    #[test]
    fn one_off_and_http_agree_with_the_oracle(
        queries in prop::collection::vec(queries(), 1..12),
        unindexed in prop::collection::vec((0..3usize, 0..3usize), 12),
        operations in prop::collection::vec(operations(), 0..30),
    ) {
        let mut world = world();
        let mut model = Model::default();
        for operation in operations {
            model.apply(operation, &mut world);
        }
        for (mut query, edge) in queries.into_iter().zip(unindexed) {
            query.edge = [edge.0, edge.1];
            let rows = one_off(&query.sql(), &world.schema, &OWNER(), &world.tables).expect("a valid query");
            prop_assert_eq!(&as_set(&rows.tables[0].rows), &query.expected(&model), "one-off {}", query.sql());
            let limits = SelectLimits::default();
            let found = select(&query.sql(), &world.schema, &OWNER(), &world.tables, limits).expect("a valid query");
            let table = query.tables[query.returned];
            let mut found: Vec<Vec<u8>> = found.rows.iter().map(|row| row.to_vec()).collect();
            found.sort();
            let combinations = query.combinations(&model).into_iter();
            let mut expected: Vec<Vec<u8>> = combinations.map(|row| encode(values(table, row))).collect();
            expected.sort();
            prop_assert_eq!(&found, &expected, "http {}", query.sql());
            let sql = format!("SELECT COUNT(*) AS n {}", query.source_and_condition());
            let count = select(&sql, &world.schema, &OWNER(), &world.tables, limits).expect("a valid query");
            prop_assert_eq!(&*count.rows[0], &(expected.len() as u64).to_le_bytes()[..], "{}", sql);
        }
    }
}

//! The tables as plain lists of rows, and what each call does to them.

use std::collections::BTreeSet;

use crate::schema::{Action, Call, Row, Schema, Table, Value};

#[derive(Clone, Default)]
struct Rows {
    rows: Vec<Row>,
    /// The last number that was generated.
    last: i64,
}

pub struct Model {
    tables: Vec<Rows>,
}

impl Model {
    pub fn new(schema: &Schema) -> Model {
        Model { tables: vec![Rows::default(); schema.tables.len()] }
    }

    pub fn rows(&self, table: usize) -> &[Row] {
        &self.tables[table].rows
    }

    /// Does what a call does and says whether it succeeds; one that fails changes nothing.
    pub fn apply(&mut self, schema: &Schema, call: &Call) -> bool {
        let table = &schema.tables[call.table];
        let mut after = self.tables[call.table].clone();
        let is_ok = match &call.action {
            Action::Insert(row) => after.insert(table, row),
            Action::Remove(row) => after.delete(|other| other == row),
            Action::Clear => {
                after.rows.clear();
                true
            }
            Action::Undo(_) => false,
            Action::Twice(row, other) => after.insert(table, row) && after.insert(table, other),
            Action::Either(row, other) => after.insert(table, row) || after.insert(table, other),
            Action::Update(row) => after.update(table, row),
            Action::Erase(key) => after.delete(|row| row[0] == *key),
            Action::Drop(key) => {
                let column = table.index.expect("only tables with an index are asked").column;
                after.delete(|row| row[column] == *key)
            }
        };
        if is_ok {
            self.tables[call.table] = after;
        }
        is_ok
    }

    /// Tables and views by name, with their rows as BSATN.
    pub fn relations(&self, schema: &Schema) -> Vec<(String, BTreeSet<Vec<u8>>)> {
        let mut relations = Vec::new();
        for (place, (table, rows)) in schema.tables.iter().zip(&self.tables).enumerate() {
            let (column, value) = &table.watched;
            let encoded = |keep: &dyn Fn(&Row) -> bool| {
                rows.rows.iter().filter(|row| keep(row)).map(|row| table.encode(row)).collect()
            };
            relations.push((format!("t{place}"), encoded(&|_| true)));
            relations.push((format!("rows_t{place}"), encoded(&|row| row[*column] != *value)));
            relations.push((format!("query_t{place}"), encoded(&|row| row[*column] == *value)));
        }
        relations
    }
}

impl Rows {
    /// Puts a generated number in the place of a zero. The number is only kept if the row is.
    fn generate(&self, table: &Table, row: &Row) -> (Row, i64) {
        if table.counts && row[0] == Value::Number(0) {
            let mut row = row.clone();
            row[0] = Value::Number(self.last + 1);
            return (row, self.last + 1);
        }
        (row.clone(), self.last)
    }

    /// Whether another row has the same value in a unique column.
    fn collides(&self, table: &Table, row: &Row, replaced: Option<usize>) -> bool {
        let columns = table.has_key.then_some(0).into_iter().chain(table.unique);
        let mut others = self.rows.iter().enumerate().filter(|(place, _)| Some(*place) != replaced);
        let columns: Vec<usize> = columns.collect();
        others.any(|(_, other)| columns.iter().any(|column| other[*column] == row[*column]))
    }

    fn insert(&mut self, table: &Table, row: &Row) -> bool {
        let (row, last) = self.generate(table, row);
        if !table.has_key && self.rows.contains(&row) {
            return true;
        }
        if self.collides(table, &row, None) {
            return false;
        }
        self.rows.push(row);
        self.last = last;
        true
    }

    fn update(&mut self, table: &Table, row: &Row) -> bool {
        let (row, last) = self.generate(table, row);
        let Some(place) = self.rows.iter().position(|other| other[0] == row[0]) else { return false };
        if self.collides(table, &row, Some(place)) {
            return false;
        }
        self.rows[place] = row;
        self.last = last;
        true
    }

    fn delete(&mut self, is_meant: impl Fn(&Row) -> bool) -> bool {
        let before = self.rows.len();
        self.rows.retain(|row| !is_meant(row));
        self.rows.len() < before
    }
}

//! A random schema, its module as source, and random calls of it.

use std::fmt::Write;

use tine_types::bsatn::BsatnWrite;

use crate::model::Model;

/// Splitmix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    U8,
    I16,
    U32,
    I64,
    U64,
    Bool,
    Text,
    Option,
    Identity,
}

/// A value of a column; which type it has is the column's affair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Number(i64),
    Text(&'static str),
    Option(Option<u32>),
    Identity(u8),
}

pub type Row = Vec<Value>;

const TEXTS: [&str; 6] = ["", "a", "ab", "b", "\u{e9}'\"", "longer than the others"];

impl Type {
    fn source(self) -> &'static str {
        match self {
            Type::U8 => "t.u8()",
            Type::I16 => "t.i16()",
            Type::U32 => "t.u32()",
            Type::I64 => "t.i64()",
            Type::U64 => "t.u64()",
            Type::Bool => "t.bool()",
            Type::Text => "t.string()",
            Type::Option => "t.option(t.u32())",
            Type::Identity => "t.identity()",
        }
    }

    /// A value of a small domain, so that rows meet one another.
    pub fn random(self, random: &mut Random) -> Value {
        match self {
            Type::I16 | Type::I64 => Value::Number(random.below(9) as i64 - 4),
            Type::U8 | Type::U32 | Type::U64 => Value::Number(random.below(12) as i64),
            Type::Bool => Value::Number(random.below(2) as i64),
            Type::Text => Value::Text(random.of(&TEXTS)),
            Type::Option => Value::Option(random.chance(70).then(|| random.below(3) as u32)),
            Type::Identity => Value::Identity(random.below(5) as u8),
        }
    }

    pub fn encode(self, value: &Value, out: &mut Vec<u8>) {
        match (self, value) {
            (Type::U8 | Type::Bool, Value::Number(number)) => out.put_u8(*number as u8),
            (Type::I16, Value::Number(number)) => out.put_i16(*number as i16),
            (Type::U32, Value::Number(number)) => out.put_u32(*number as u32),
            (Type::I64, Value::Number(number)) => out.put_i64(*number),
            (Type::U64, Value::Number(number)) => out.put_u64(*number as u64),
            (Type::Text, Value::Text(text)) => out.put_str(text),
            (Type::Option, Value::Option(Some(number))) => {
                out.put_u8(0);
                out.put_u32(*number);
            }
            (Type::Option, Value::Option(None)) => out.put_u8(1),
            (Type::Identity, Value::Identity(byte)) => out.extend_from_slice(&[*byte; 32]),
            _ => panic!("{value:?} is no {self:?}"),
        }
    }

    /// The value in the module's source; `None` where a query has no literal for it.
    fn literal(self, value: &Value) -> Option<String> {
        match (self, value) {
            (Type::Bool, Value::Number(number)) => Some((*number == 1).to_string()),
            (Type::I64 | Type::U64, Value::Number(number)) => Some(format!("{number}n")),
            (_, Value::Number(number)) => Some(number.to_string()),
            (_, Value::Text(text)) => Some(format!("{text:?}")),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    pub column: usize,
    is_hash: bool,
}

/// The columns are named `c0`, `c1` and so on.
#[derive(Clone, Debug)]
pub struct Table {
    pub types: Vec<Type>,
    /// The first column.
    pub has_key: bool,
    /// Zeros of the key are replaced.
    pub counts: bool,
    pub unique: Option<usize>,
    pub index: Option<Index>,
    /// An index of two columns, which nothing but its upkeep concerns.
    pair: Option<(usize, usize)>,
    /// What the views compare with.
    pub watched: (usize, Value),
}

impl Table {
    fn random(random: &mut Random) -> Table {
        let keys = [Type::U8, Type::U32, Type::U64, Type::Text, Type::Identity];
        let simple = [Type::U8, Type::I16, Type::U32, Type::I64, Type::U64, Type::Bool, Type::Text];
        let all = [simple.as_slice(), &[Type::Option, Type::Identity]].concat();
        let has_key = random.chance(75);
        // The second column always has literals, for the views.
        let mut types = vec![random.of(&keys), random.of(&simple)];
        types.extend((0..1 + random.below(4)).map(|_| random.of(&all)));
        let counts = has_key && matches!(types[0], Type::U32 | Type::U64) && random.chance(60);
        let last = types.len() - 1;
        let indexable = |column: usize| types[column] != Type::Option;
        let unique = (random.chance(30) && indexable(last)).then_some(last);
        let column = 1 + random.below(last);
        let index = (random.chance(70) && indexable(column) && unique != Some(column))
            .then(|| Index { column, is_hash: random.chance(40) });
        let pair = (random.chance(50) && indexable(last)).then_some((1, last)).filter(|(first, last)| first != last);
        let watched = (1, types[1].random(random));
        Table { types, has_key, counts, unique, index, pair, watched }
    }

    pub fn encode(&self, row: &Row) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.types.iter().zip(row).for_each(|(ty, value)| ty.encode(value, &mut bytes));
        bytes
    }

    fn random_row(&self, random: &mut Random, model: &[Row]) -> Row {
        // Half of the rows are near one that is there.
        match model.is_empty() || random.chance(50) {
            true => self.types.iter().map(|ty| ty.random(random)).collect(),
            false => {
                let mut row = model[random.below(model.len())].clone();
                if random.chance(80) {
                    let column = random.below(row.len());
                    row[column] = self.types[column].random(random);
                }
                row
            }
        }
    }

    fn source(&self, name: &str, out: &mut String) {
        let column = |(position, ty): (usize, &Type)| {
            let mut text = ty.source().to_owned();
            if position == 0 && self.has_key {
                text.push_str(".primaryKey()");
            }
            if position == 0 && self.counts {
                text.push_str(".autoInc()");
            }
            if self.unique == Some(position) {
                text.push_str(".unique()");
            }
            if let Some(index) = self.index.filter(|index| index.column == position) {
                text.push_str(if index.is_hash { ".index(\"hash\")" } else { ".index(\"btree\")" });
            }
            format!("c{position}: {text}")
        };
        let columns: Vec<String> = self.types.iter().enumerate().map(column).collect();
        let pair = self.pair.map_or(String::new(), |(first, second)| {
            format!(
                ", indexes: [{{ accessor: \"both\", algorithm: \"btree\", columns: [\"c{first}\", \"c{second}\"] }}]"
            )
        });
        writeln!(out, "const {name} = table({{ public: true{pair} }}, {{ {} }});", columns.join(", ")).expect("text");
    }

    fn functions(&self, name: &str, out: &mut String) {
        let row = format!("row: {name}.rowType");
        let db = format!("ctx.db.{name}");
        let mut reducer = |function: &str, params: &str, body: &str| {
            let names: Vec<&str> = params.split(", ").filter_map(|param| Some(param.split_once(':')?.0)).collect();
            writeln!(
                out,
                "export const {function}_{name} = db.reducer({{ {params} }}, (ctx, {{ {} }}) => {{ {body} }});",
                names.join(", ")
            )
            .expect("text");
        };
        reducer("insert", &row, &format!("{db}.insert(row);"));
        reducer("remove", &row, &format!("if (!{db}.delete(row)) throw new SenderError(\"none\");"));
        reducer("clear", "", &format!("{db}.clear();"));
        reducer("undo", &row, &format!("{db}.insert(row); throw new SenderError(\"undo\");"));
        let two = format!("{row}, other: {name}.rowType");
        reducer("twice", &two, &format!("{db}.insert(row); {db}.insert(other);"));
        reducer("either", &two, &format!("try {{ {db}.insert(row); }} catch {{ {db}.insert(other); }}"));
        if self.has_key {
            let key = format!("key: {}", self.types[0].source());
            reducer("update", &row, &format!("{db}.c0.update(row);"));
            reducer("erase", &key, &format!("if (!{db}.c0.delete(key)) throw new SenderError(\"none\");"));
        }
        if let Some(Index { column, .. }) = self.index {
            let key = format!("key: {}", self.types[column].source());
            let body = format!(
                "const found = [...{db}.c{column}.filter(key)].length; if ({db}.c{column}.delete(key) !== found || found === 0) throw new SenderError(\"none\");"
            );
            reducer("drop", &key, &body);
        }
        let (column, value) = &self.watched;
        let literal = self.types[*column].literal(value).expect("the second column is simple");
        let rows = format!("t.array({name}.rowType)");
        writeln!(
            out,
            "export const rows_{name} = db.anonymousView({{ public: true }}, {rows}, ctx => [...ctx.db.{name}.iter()].filter(row => row.c{column} !== {literal}));\n\
             export const query_{name} = db.anonymousView({{ public: true }}, {rows}, ctx => ctx.from.{name}.where(row => row.c{column}.eq({literal})));"
        )
        .expect("text");
    }
}

#[derive(Clone, Debug)]
pub struct Schema {
    pub tables: Vec<Table>,
}

/// One call: of which table, and what.
#[derive(Clone, Debug)]
pub struct Call {
    pub table: usize,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub enum Action {
    Insert(Row),
    Remove(Row),
    Clear,
    Undo(Row),
    Twice(Row, Row),
    Either(Row, Row),
    Update(Row),
    Erase(Value),
    Drop(Value),
}

impl Schema {
    pub fn random(random: &mut Random) -> Schema {
        Schema { tables: (0..2 + random.below(3)).map(|_| Table::random(random)).collect() }
    }

    pub fn source(&self) -> String {
        let mut text = "import { SenderError, schema, t, table } from \"spacetimedb/server\";\n".to_owned();
        let names: Vec<String> = (0..self.tables.len()).map(|place| format!("t{place}")).collect();
        self.tables.iter().zip(&names).for_each(|(table, name)| table.source(name, &mut text));
        writeln!(
            text,
            "const db = schema({{ {} }}, {{ CASE_CONVERSION_POLICY: {{ tag: \"None\" }} }});\nexport default db;",
            names.join(", ")
        )
        .expect("text");
        self.tables.iter().zip(&names).for_each(|(table, name)| table.functions(name, &mut text));
        text
    }

    pub fn random_call(&self, random: &mut Random, model: &Model) -> Call {
        let place = random.below(self.tables.len());
        let (table, rows) = (&self.tables[place], model.rows(place));
        let mut row = || table.random_row(random, rows);
        let rows = [row(), row()];
        let [first, second] = rows;
        let action = match random.below(100) {
            0 => Action::Clear,
            1..=30 => Action::Insert(first),
            31..=40 => Action::Remove(first),
            41..=46 => Action::Undo(first),
            47..=54 => Action::Twice(first, second),
            55..=62 => Action::Either(first, second),
            63..=76 if table.has_key => Action::Update(first),
            77..=88 if table.has_key => Action::Erase(first[0].clone()),
            89..=99 if table.index.is_some() => Action::Drop(first[table.index.expect("it has one").column].clone()),
            _ => Action::Insert(first),
        };
        Call { table: place, action }
    }

    /// Name and arguments of a call.
    pub fn encode(&self, call: &Call) -> (String, Vec<u8>) {
        let table = &self.tables[call.table];
        let both = |row: &Row, other: &Row| [table.encode(row), table.encode(other)].concat();
        let key = |column: usize, value: &Value| {
            let mut bytes = Vec::new();
            table.types[column].encode(value, &mut bytes);
            bytes
        };
        let (function, arguments) = match &call.action {
            Action::Insert(row) => ("insert", table.encode(row)),
            Action::Remove(row) => ("remove", table.encode(row)),
            Action::Clear => ("clear", Vec::new()),
            Action::Undo(row) => ("undo", table.encode(row)),
            Action::Twice(row, other) => ("twice", both(row, other)),
            Action::Either(row, other) => ("either", both(row, other)),
            Action::Update(row) => ("update", table.encode(row)),
            Action::Erase(value) => ("erase", key(0, value)),
            Action::Drop(value) => ("drop", key(table.index.expect("it has one").column, value)),
        };
        (format!("{function}_t{}", call.table), arguments)
    }

    /// The names that a client follows.
    pub fn relations(&self) -> Vec<String> {
        let names = (0..self.tables.len())
            .map(|place| [format!("t{place}"), format!("rows_t{place}"), format!("query_t{place}")]);
        names.flatten().collect()
    }
}

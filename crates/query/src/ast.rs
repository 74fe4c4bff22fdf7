//! Statements as written, before names and types are known.
//!
//! One tree serves both dialects; what a dialect does not have is refused when the tree is bound to
//! a schema, where the error can say which dialect has it.

use crate::error::Position;

/// A name and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    /// The name, unquoted.
    pub text: Box<str>,
    /// Where it stands.
    pub position: Position,
}

/// One statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// `SELECT … FROM …`
    Select(Select),
    /// `SELECT * FROM *`: one whole-table query per table the caller may see.
    SelectAllTables,
    /// `INSERT INTO …`
    Insert(Insert),
    /// `UPDATE … SET …`
    Update(Update),
    /// `DELETE FROM …`
    Delete(Delete),
    /// `SET name TO value` or `SET name = value`
    Set {
        /// The setting.
        name: Name,
        /// Its new value.
        value: Literal,
    },
    /// `SHOW name`
    Show {
        /// The setting.
        name: Name,
    },
}

/// `SELECT projection FROM from joins WHERE filter LIMIT limit`
#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    /// What is returned.
    pub projection: Projection,
    /// The first table.
    pub from: TableName,
    /// The joined tables, in the order written.
    pub joins: Vec<Join>,
    /// The `WHERE` clause.
    pub filter: Option<Expression>,
    /// The `LIMIT` clause and where it stands.
    pub limit: Option<(u64, Position)>,
}

impl Select {
    /// `SELECT * FROM "name"`
    pub(crate) fn whole_table(name: &str) -> Select {
        let position = Position::default();
        Select {
            projection: Projection::Star(position),
            from: TableName { name: Name { text: name.into(), position }, alias: None },
            joins: Vec::new(),
            filter: None,
            limit: None,
        }
    }
}

/// What a `SELECT` returns.
#[derive(Debug, Clone, PartialEq)]
pub enum Projection {
    /// `*`
    Star(Position),
    /// `t.*`
    TableStar(Name),
    /// `a, t.b AS c`
    Columns(Vec<ColumnItem>),
    /// `COUNT(*) AS n`
    Count {
        /// The name of the only column.
        alias: Option<Name>,
        /// Where `COUNT` stands.
        position: Position,
    },
}

/// A column of a column list.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnItem {
    /// The column.
    pub column: ColumnName,
    /// The name it is returned under.
    pub alias: Option<Name>,
}

/// A table in `FROM` or `JOIN`.
#[derive(Debug, Clone, PartialEq)]
pub struct TableName {
    /// The name of the table.
    pub name: Name,
    /// What the rest of the statement calls it.
    pub alias: Option<Name>,
}

impl TableName {
    /// Puts `prefix` before the table's name; the rest of the statement goes on calling it what it did.
    pub(crate) fn qualify(&mut self, prefix: &str) {
        if !prefix.is_empty() {
            self.alias.get_or_insert_with(|| self.name.clone());
            self.name.text = format!("{prefix}{}", self.name.text).into();
        }
    }
}

/// `JOIN table ON left = right`
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// The table.
    pub table: TableName,
    /// One side of the condition.
    pub left: ColumnName,
    /// The other side.
    pub right: ColumnName,
}

/// `column` or `table.column`
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnName {
    /// The table or its alias.
    pub table: Option<Name>,
    /// The column.
    pub column: Name,
}

impl ColumnName {
    /// Where the reference starts.
    pub fn position(&self) -> Position {
        self.table.as_ref().unwrap_or(&self.column).position
    }
}

/// A condition. `And` and `Or` are flat and hold at least two parts.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// All parts hold.
    And(Vec<Expression>),
    /// At least one part holds.
    Or(Vec<Expression>),
    /// The part does not hold.
    Not(Box<Expression>),
    /// A comparison.
    Compare {
        /// The left side.
        left: Operand,
        /// The operator.
        operator: Operator,
        /// The right side.
        right: Operand,
        /// Where the operator stands.
        position: Position,
    },
    /// A column of type bool standing for itself.
    Column(ColumnName),
    /// `TRUE` or `FALSE`
    Constant(bool),
}

/// A side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A column.
    Column(ColumnName),
    /// A literal.
    Literal(Literal),
}

impl Operand {
    /// Where the operand starts.
    pub fn position(&self) -> Position {
        match self {
            Operand::Column(column) => column.position(),
            Operand::Literal(literal) => literal.position,
        }
    }
}

/// A literal; its type comes from the other side of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Literal {
    /// What was written.
    pub value: LiteralValue,
    /// Where it starts.
    pub position: Position,
}

/// What was written for a literal.
#[derive(Debug, Clone, PartialEq)]
pub enum LiteralValue {
    /// A number with its sign, as written.
    Number(Box<str>),
    /// A string, unescaped.
    Text(Box<str>),
    /// Hexadecimal digits.
    Hex(Box<str>),
    /// `TRUE` or `FALSE`
    Bool(bool),
    /// `:sender`: the identity of the caller.
    Sender,
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `=`
    Equal,
    /// `<>` or `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
}

impl Operator {
    /// The operator that holds exactly when this one does not, for types in which every two values
    /// compare (so not for floats).
    pub(crate) fn negated(self) -> Operator {
        match self {
            Operator::Equal => Operator::NotEqual,
            Operator::NotEqual => Operator::Equal,
            Operator::Less => Operator::GreaterEqual,
            Operator::LessEqual => Operator::Greater,
            Operator::Greater => Operator::LessEqual,
            Operator::GreaterEqual => Operator::Less,
        }
    }

    /// The operator with its sides swapped.
    pub(crate) fn mirrored(self) -> Operator {
        match self {
            Operator::Equal | Operator::NotEqual => self,
            Operator::Less => Operator::Greater,
            Operator::LessEqual => Operator::GreaterEqual,
            Operator::Greater => Operator::Less,
            Operator::GreaterEqual => Operator::LessEqual,
        }
    }

    /// The operator as written.
    pub fn as_text(self) -> &'static str {
        match self {
            Operator::Equal => "=",
            Operator::NotEqual => "<>",
            Operator::Less => "<",
            Operator::LessEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterEqual => ">=",
        }
    }
}

/// `INSERT INTO table (columns) VALUES (…), (…)`
#[derive(Debug, Clone, PartialEq)]
pub struct Insert {
    /// The table.
    pub table: Name,
    /// The columns listed; empty means all in order.
    pub columns: Vec<Name>,
    /// The rows, each with one literal per column.
    pub rows: Vec<Vec<Literal>>,
}

/// `UPDATE table SET column = literal, … WHERE filter`
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The table.
    pub table: Name,
    /// The columns set.
    pub assignments: Vec<(Name, Literal)>,
    /// Which rows; none means all.
    pub filter: Option<Expression>,
}

/// `DELETE FROM table WHERE filter`
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    /// The table.
    pub table: Name,
    /// Which rows; none means all.
    pub filter: Option<Expression>,
}

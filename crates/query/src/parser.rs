//! Tokens to statements: recursive descent, one function per rule.
//!
//! Bounds, so that no text can hurt: the text has at most [`TEXT_BYTES_MAX`] bytes, conditions nest
//! at most [`NESTING_MAX`] deep (the recursion here and in every later walk over the tree), hold at
//! most [`TERMS_MAX`] terms, and a statement names at most [`TABLES_MAX`] tables.
//!
//! Keywords are not reserved except where an alias may stand, so tables called `user` or `order`
//! need no quotes.

mod expression;

use crate::ast::{
    ColumnItem, ColumnName, Delete, Insert, Join, Literal, LiteralValue, Name, Projection, Select, Statement,
    TableName, Update,
};
use crate::error::{Detail, Position, QueryError};
use crate::lexer::{Symbol, Token, TokenKind, tokenize};

/// Longest statement text, in bytes: the limit of the protocol's reference.
pub const TEXT_BYTES_MAX: usize = 50_000;

/// Deepest nesting of conditions. Query builders nest one level per chained `and`, people far less;
/// 100 levels of recursion fit the smallest thread stacks in use.
pub const NESTING_MAX: u32 = 100;

/// Most comparisons in one statement. Each costs time per row looked at; more belong in a table
/// to join with.
pub const TERMS_MAX: u32 = 4_096;

/// Most tables in one statement: a join keeps one row per table on the stack.
pub const TABLES_MAX: usize = 16;

/// Words that cannot be an alias without `AS`, because something else may start there.
const NOT_AN_ALIAS: &[&str] = &[
    "AS",
    "JOIN",
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "CROSS",
    "NATURAL",
    "OUTER",
    "ON",
    "USING",
    "WHERE",
    "LIMIT",
    "OFFSET",
    "ORDER",
    "GROUP",
    "HAVING",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "FROM",
    "SET",
    "VALUES",
];

/// Parses one statement, which may end with a semicolon.
///
/// # Errors
/// Every error names its place; see [`QueryError`].
pub fn parse_statement(sql: &str) -> Result<Statement, QueryError> {
    if sql.len() > TEXT_BYTES_MAX {
        return Err(QueryError::TooLong { bytes: sql.len(), max: TEXT_BYTES_MAX });
    }
    let mut parser = Parser { tokens: tokenize(sql)?, next: 0, nesting: 0, terms: 0 };
    if parser.peek().kind == TokenKind::End {
        return Err(QueryError::Empty);
    }
    let statement = parser.statement()?;
    parser.end()?;
    Ok(statement)
}

fn dotted(before: &Name, last: &Name) -> Name {
    Name { text: format!("{}.{}", before.text, last.text).into(), position: before.position }
}

struct Parser {
    /// Ends with [`TokenKind::End`], which is never consumed.
    tokens: Vec<Token>,
    next: usize,
    nesting: u32,
    terms: u32,
}

impl Parser {
    fn statement(&mut self) -> Result<Statement, QueryError> {
        let position = self.position();
        if self.take_word("SELECT") {
            return self.select();
        }
        if self.take_word("INSERT") {
            return self.insert();
        }
        if self.take_word("UPDATE") {
            return self.update();
        }
        if self.take_word("DELETE") {
            self.expect_word("FROM")?;
            let table = self.dotted_table()?;
            return Ok(Statement::Delete(Delete { table, filter: self.filter()? }));
        }
        if self.take_word("SET") {
            let name = self.name("a setting")?;
            if !self.take_symbol(Symbol::Equal) {
                self.expect_word("TO")?;
            }
            return Ok(Statement::Set { name, value: self.literal()? });
        }
        if self.take_word("SHOW") {
            return Ok(Statement::Show { name: self.name("a setting")? });
        }
        Err(QueryError::Syntax(Detail::with_hint(
            format!("{} does not start a statement", self.peek().kind.describe()),
            position,
            "statements start with SELECT, INSERT, UPDATE, DELETE, SET or SHOW",
        )))
    }

    fn end(&mut self) -> Result<(), QueryError> {
        if self.take_symbol(Symbol::Semicolon) {
            while self.take_symbol(Symbol::Semicolon) {}
            let position = self.position();
            return match self.peek().kind {
                TokenKind::End => Ok(()),
                _ => Err(QueryError::MultipleStatements(Detail::new("a second statement starts here", position))),
            };
        }
        let position = self.position();
        if let TokenKind::Word(word) = &self.peek().kind {
            let hint = match word.to_ascii_uppercase().as_str() {
                "ORDER" | "GROUP" | "HAVING" | "OFFSET" => "sort, group and page in the client",
                "UNION" | "EXCEPT" | "INTERSECT" => "send several queries",
                "LEFT" | "RIGHT" | "FULL" | "CROSS" | "NATURAL" | "OUTER" => "only [INNER] JOIN … ON a.x = b.y exists",
                "WHERE" | "JOIN" | "INNER" => "the order is SELECT, FROM, JOIN, WHERE, LIMIT",
                _ => "",
            };
            if !hint.is_empty() {
                return Err(QueryError::Unsupported(Detail::with_hint(format!("`{word}` here"), position, hint)));
            }
        }
        match &self.peek().kind {
            TokenKind::End => Ok(()),
            TokenKind::Symbol(Symbol::Plus | Symbol::Minus | Symbol::Star | Symbol::Other('/' | '%' | '|')) => {
                Err(QueryError::Unsupported(Detail::new("arithmetic", position)))
            }
            _ => Err(self.unexpected("the end of the query")),
        }
    }

    fn select(&mut self) -> Result<Statement, QueryError> {
        if matches!(&self.peek().kind, TokenKind::Word(word) if word.eq_ignore_ascii_case("DISTINCT"))
            && !matches!(self.peek_at(1), TokenKind::Symbol(Symbol::Comma | Symbol::Dot))
        {
            let position = self.position();
            return Err(QueryError::Unsupported(Detail::with_hint("DISTINCT", position, "rows are a set already")));
        }
        let projection = self.projection()?;
        self.expect_word("FROM")?;
        let star = self.position();
        if self.take_symbol(Symbol::Star) {
            return match projection {
                Projection::Star(_) => Ok(Statement::SelectAllTables),
                _ => Err(QueryError::Syntax(Detail::with_hint("`FROM *` needs `SELECT *`", star, "name the table"))),
            };
        }
        let from = self.table_name()?;
        let joins = self.joins()?;
        let filter = self.filter()?;
        let position = self.position();
        let limit = match self.take_word("LIMIT") {
            true => Some((self.row_count()?, position)),
            false => None,
        };
        Ok(Statement::Select(Select { projection, from, joins, filter, limit }))
    }

    fn projection(&mut self) -> Result<Projection, QueryError> {
        let position = self.position();
        if self.take_symbol(Symbol::Star) {
            return Ok(Projection::Star(position));
        }
        if self.is_call() {
            return self.count();
        }
        let mut items = Vec::new();
        loop {
            if self.is_call() {
                return Err(QueryError::Unsupported(Detail::new("a function among columns", self.position())));
            }
            let mut column = ColumnName { table: None, column: self.name("a column, `*` or COUNT(*)")? };
            while self.take_symbol(Symbol::Dot) {
                let before = match &column.table {
                    Some(table) => dotted(table, &column.column),
                    None => column.column,
                };
                if self.take_symbol(Symbol::Star) {
                    let listed = !items.is_empty() || self.peek().kind == TokenKind::Symbol(Symbol::Comma);
                    if listed {
                        return Err(QueryError::Unsupported(Detail::new("`t.*` among other columns", before.position)));
                    }
                    return Ok(Projection::TableStar(before));
                }
                column = ColumnName { table: Some(before), column: self.name("a column")? };
            }
            items.push(ColumnItem { column, alias: self.alias()? });
            if !self.take_symbol(Symbol::Comma) {
                return Ok(Projection::Columns(items));
            }
        }
    }

    fn is_call(&self) -> bool {
        matches!(self.peek().kind, TokenKind::Word(_)) && *self.peek_at(1) == TokenKind::Symbol(Symbol::Open)
    }

    fn count(&mut self) -> Result<Projection, QueryError> {
        let function = self.name("a function")?;
        let star = matches!(self.peek_at(1), TokenKind::Symbol(Symbol::Star))
            && matches!(self.peek_at(2), TokenKind::Symbol(Symbol::Close));
        if !function.text.eq_ignore_ascii_case("COUNT") || !star {
            return Err(QueryError::Unsupported(Detail::with_hint(
                format!("the function {}", function.text),
                function.position,
                "the only function is COUNT(*)",
            )));
        }
        self.next += 3;
        let alias = self.alias()?;
        if self.peek().kind == TokenKind::Symbol(Symbol::Comma) {
            return Err(QueryError::Unsupported(Detail::new("COUNT(*) among other columns", self.position())));
        }
        Ok(Projection::Count { alias, position: function.position })
    }

    fn joins(&mut self) -> Result<Vec<Join>, QueryError> {
        let mut joins = Vec::new();
        loop {
            let position = self.position();
            if self.take_word("INNER") {
                self.expect_word("JOIN")?;
            } else if !self.take_word("JOIN") {
                return match self.peek().kind {
                    TokenKind::Symbol(Symbol::Comma) => Err(QueryError::Unsupported(Detail::with_hint(
                        "several tables in FROM",
                        position,
                        "write JOIN … ON a.x = b.y",
                    ))),
                    _ => Ok(joins),
                };
            }
            if joins.len() + 2 > TABLES_MAX {
                let message = format!("more than {TABLES_MAX} tables");
                return Err(QueryError::TooComplex(Detail::new(message, position)));
            }
            joins.push(self.join()?);
        }
    }

    fn join(&mut self) -> Result<Join, QueryError> {
        let table = self.table_name()?;
        if !self.take_word("ON") {
            return Err(QueryError::Syntax(Detail::with_hint(
                format!("JOIN without ON: found {}", self.peek().kind.describe()),
                self.position(),
                "write JOIN b ON a.x = b.y",
            )));
        }
        let nested = self.take_symbol(Symbol::Open);
        let left = self.column_name()?;
        let position = self.position();
        if !self.take_symbol(Symbol::Equal) {
            return Err(QueryError::Unsupported(Detail::with_hint(
                "a join condition other than `=` between two columns",
                position,
                "put other conditions into WHERE",
            )));
        }
        let right = self.column_name()?;
        if nested {
            self.expect_symbol(Symbol::Close)?;
        }
        let position = self.position();
        if self.is_word("AND") || self.is_word("OR") {
            return Err(QueryError::Unsupported(Detail::with_hint(
                "a join condition of several parts",
                position,
                "put other conditions into WHERE",
            )));
        }
        Ok(Join { table, left, right })
    }

    fn filter(&mut self) -> Result<Option<crate::ast::Expression>, QueryError> {
        match self.take_word("WHERE") {
            true => self.expression().map(Some),
            false => Ok(None),
        }
    }

    fn insert(&mut self) -> Result<Statement, QueryError> {
        self.expect_word("INTO")?;
        let table = self.dotted_table()?;
        let mut columns = Vec::new();
        if self.take_symbol(Symbol::Open) {
            loop {
                columns.push(self.name("a column")?);
                if !self.take_symbol(Symbol::Comma) {
                    break;
                }
            }
            self.expect_symbol(Symbol::Close)?;
        }
        self.expect_word("VALUES")?;
        let mut rows = Vec::new();
        loop {
            self.expect_symbol(Symbol::Open)?;
            let mut row = Vec::new();
            loop {
                row.push(self.literal()?);
                if !self.take_symbol(Symbol::Comma) {
                    break;
                }
            }
            self.expect_symbol(Symbol::Close)?;
            rows.push(row);
            if !self.take_symbol(Symbol::Comma) {
                return Ok(Statement::Insert(Insert { table, columns, rows }));
            }
        }
    }

    fn update(&mut self) -> Result<Statement, QueryError> {
        let table = self.dotted_table()?;
        self.expect_word("SET")?;
        let mut assignments = Vec::new();
        loop {
            let column = self.name("a column")?;
            self.expect_symbol(Symbol::Equal)?;
            assignments.push((column, self.literal()?));
            if !self.take_symbol(Symbol::Comma) {
                return Ok(Statement::Update(Update { table, assignments, filter: self.filter()? }));
            }
        }
    }

    fn table_name(&mut self) -> Result<TableName, QueryError> {
        let name = self.dotted_table()?;
        Ok(TableName { name, alias: self.alias()? })
    }

    /// The name of a table, with the namespaces of submodules before it: `library.book` is one name.
    fn dotted_table(&mut self) -> Result<Name, QueryError> {
        let mut name = self.name("a table")?;
        while self.take_symbol(Symbol::Dot) {
            name = dotted(&name, &self.name("a table")?);
        }
        Ok(name)
    }

    fn column_name(&mut self) -> Result<ColumnName, QueryError> {
        let mut column = self.name("a column")?;
        let mut table: Option<Name> = None;
        while self.take_symbol(Symbol::Dot) {
            table = Some(table.map_or_else(|| column.clone(), |table| dotted(&table, &column)));
            column = self.name("a column")?;
        }
        Ok(ColumnName { table, column })
    }

    fn alias(&mut self) -> Result<Option<Name>, QueryError> {
        if self.take_word("AS") {
            return self.name("an alias").map(Some);
        }
        match &self.peek().kind {
            TokenKind::Word(word) if NOT_AN_ALIAS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword)) => Ok(None),
            TokenKind::Word(_) | TokenKind::Quoted(_) => self.name("an alias").map(Some),
            _ => Ok(None),
        }
    }

    fn row_count(&mut self) -> Result<u64, QueryError> {
        let position = self.position();
        let TokenKind::Number(digits) = &self.peek().kind else {
            return Err(self.unexpected("a number of rows"));
        };
        let Ok(count) = digits.parse() else {
            return Err(QueryError::BadLiteral(Detail::new(format!("LIMIT {digits}"), position)));
        };
        self.next += 1;
        Ok(count)
    }

    fn literal(&mut self) -> Result<Literal, QueryError> {
        match self.try_literal()? {
            Some(literal) => Ok(literal),
            None => Err(self.unexpected("a literal")),
        }
    }

    fn try_literal(&mut self) -> Result<Option<Literal>, QueryError> {
        let position = self.position();
        let value = match &self.peek().kind {
            TokenKind::Text(text) => LiteralValue::Text(text.clone()),
            TokenKind::Hex(digits) => LiteralValue::Hex(digits.clone()),
            TokenKind::Number(digits) => LiteralValue::Number(digits.clone()),
            TokenKind::Symbol(sign @ (Symbol::Minus | Symbol::Plus)) => {
                let TokenKind::Number(digits) = self.peek_at(1) else {
                    return Err(QueryError::Unsupported(Detail::new("arithmetic", position)));
                };
                let sign = if *sign == Symbol::Minus { "-" } else { "" };
                let value = LiteralValue::Number(format!("{sign}{digits}").into());
                self.next += 1;
                value
            }
            TokenKind::Word(word) if word.eq_ignore_ascii_case("TRUE") => LiteralValue::Bool(true),
            TokenKind::Word(word) if word.eq_ignore_ascii_case("FALSE") => LiteralValue::Bool(false),
            TokenKind::Word(word) if word.eq_ignore_ascii_case("NULL") => {
                return Err(QueryError::Unsupported(Detail::new("NULL", position)));
            }
            TokenKind::Parameter(name) if &**name == "sender" => LiteralValue::Sender,
            TokenKind::Parameter(name) => {
                return Err(QueryError::Unsupported(Detail::with_hint(
                    format!("the parameter :{name}"),
                    position,
                    "the only parameter is :sender, the caller's identity",
                )));
            }
            _ => return Ok(None),
        };
        self.next += 1;
        Ok(Some(Literal { value, position }))
    }

    fn name(&mut self, what: &str) -> Result<Name, QueryError> {
        let token = self.peek();
        let (TokenKind::Word(text) | TokenKind::Quoted(text)) = &token.kind else {
            return Err(self.unexpected(what));
        };
        let name = Name { text: text.clone(), position: token.position };
        self.next += 1;
        Ok(name)
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.next]
    }

    fn peek_at(&self, ahead: usize) -> &TokenKind {
        &self.tokens[(self.next + ahead).min(self.tokens.len() - 1)].kind
    }

    fn position(&self) -> Position {
        self.peek().position
    }

    fn is_word(&self, keyword: &str) -> bool {
        matches!(&self.peek().kind, TokenKind::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn take_word(&mut self, keyword: &str) -> bool {
        let hit = self.is_word(keyword);
        self.next += usize::from(hit);
        hit
    }

    fn expect_word(&mut self, keyword: &str) -> Result<(), QueryError> {
        match self.take_word(keyword) {
            true => Ok(()),
            false => Err(self.unexpected(keyword)),
        }
    }

    fn take_symbol(&mut self, symbol: Symbol) -> bool {
        let hit = self.peek().kind == TokenKind::Symbol(symbol);
        self.next += usize::from(hit);
        hit
    }

    fn expect_symbol(&mut self, symbol: Symbol) -> Result<(), QueryError> {
        match self.take_symbol(symbol) {
            true => Ok(()),
            false => Err(self.unexpected(&TokenKind::Symbol(symbol).describe())),
        }
    }

    fn unexpected(&self, wanted: &str) -> QueryError {
        let token = self.peek();
        let message = format!("expected {wanted}, found {}", token.kind.describe());
        QueryError::Syntax(Detail::new(message, token.position))
    }
}

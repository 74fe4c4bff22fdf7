//! Conditions: `OR` binds weakest, then `AND`, then `NOT`, then comparisons.

use super::{NESTING_MAX, Parser, TERMS_MAX};
use crate::ast::{Expression, Operand, Operator};
use crate::error::{Detail, QueryError};
use crate::lexer::{Symbol, TokenKind};

/// Words that would continue a comparison in full SQL.
const OTHER_OPERATORS: &[&str] = &["IN", "LIKE", "ILIKE", "BETWEEN", "IS", "SIMILAR", "REGEXP", "GLOB"];

impl Parser {
    pub(super) fn expression(&mut self) -> Result<Expression, QueryError> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            let message = format!("conditions nest deeper than {NESTING_MAX}");
            return Err(QueryError::TooComplex(Detail::new(message, self.position())));
        }
        let expression = self.list("OR", Self::conjunction, Expression::Or)?;
        self.nesting -= 1;
        Ok(expression)
    }

    fn conjunction(&mut self) -> Result<Expression, QueryError> {
        self.list("AND", Self::negation, Expression::And)
    }

    fn list(
        &mut self,
        keyword: &str,
        part: fn(&mut Self) -> Result<Expression, QueryError>,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression, QueryError> {
        let first = part(self)?;
        if !self.is_word(keyword) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take_word(keyword) {
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn negation(&mut self) -> Result<Expression, QueryError> {
        // Pairs of NOT cancel, so a run of them needs no recursion.
        let mut negate = false;
        while self.is_word("NOT") && !self.starts_column() {
            self.next += 1;
            negate = !negate;
        }
        let inner = self.primary()?;
        Ok(if negate { Expression::Not(Box::new(inner)) } else { inner })
    }

    /// Whether the word ahead is a column called like a keyword: `not = 1`, `not.x = 1`.
    fn starts_column(&self) -> bool {
        matches!(
            self.peek_at(1),
            TokenKind::Symbol(
                Symbol::Dot
                    | Symbol::Equal
                    | Symbol::NotEqual
                    | Symbol::Less
                    | Symbol::LessEqual
                    | Symbol::Greater
                    | Symbol::GreaterEqual
            )
        )
    }

    fn primary(&mut self) -> Result<Expression, QueryError> {
        self.terms += 1;
        if self.terms > TERMS_MAX {
            let message = format!("more than {TERMS_MAX} terms");
            return Err(QueryError::TooComplex(Detail::new(message, self.position())));
        }
        if self.take_symbol(Symbol::Open) {
            if self.is_word("SELECT") {
                return Err(QueryError::Unsupported(Detail::new("a subquery", self.position())));
            }
            let inner = self.expression()?;
            self.expect_symbol(Symbol::Close)?;
            return Ok(inner);
        }
        let left = self.operand()?;
        let position = self.position();
        let Some(operator) = self.operator() else { return self.without_operator(left) };
        let right = self.operand()?;
        if let TokenKind::Symbol(Symbol::Plus | Symbol::Minus | Symbol::Star | Symbol::Other('/' | '%')) =
            self.peek().kind
        {
            return Err(QueryError::Unsupported(Detail::new("arithmetic", self.position())));
        }
        Ok(Expression::Compare { left, operator, right, position })
    }

    fn operator(&mut self) -> Option<Operator> {
        let TokenKind::Symbol(symbol) = &self.peek().kind else { return None };
        let operator = match symbol {
            Symbol::Equal => Operator::Equal,
            Symbol::NotEqual => Operator::NotEqual,
            Symbol::Less => Operator::Less,
            Symbol::LessEqual => Operator::LessEqual,
            Symbol::Greater => Operator::Greater,
            Symbol::GreaterEqual => Operator::GreaterEqual,
            _ => return None,
        };
        self.next += 1;
        Some(operator)
    }

    fn operand(&mut self) -> Result<Operand, QueryError> {
        // `true.x` and `true = 1` with a column called `true` need quotes; nothing else is lost.
        if let Some(literal) = self.try_literal()? {
            return Ok(Operand::Literal(literal));
        }
        if self.is_call() {
            return Err(QueryError::Unsupported(Detail::new("a function in a condition", self.position())));
        }
        match self.peek().kind {
            TokenKind::Word(_) | TokenKind::Quoted(_) => Ok(Operand::Column(self.column_name()?)),
            _ => Err(self.unexpected("a column or a literal")),
        }
    }

    fn without_operator(&mut self, left: Operand) -> Result<Expression, QueryError> {
        let position = self.position();
        match &self.peek().kind {
            TokenKind::Word(word) if OTHER_OPERATORS.iter().any(|other| word.eq_ignore_ascii_case(other)) => {
                Err(QueryError::Unsupported(Detail::with_hint(
                    format!("the operator {}", word.to_ascii_uppercase()),
                    position,
                    "compare with = <> < <= > >= and combine with AND, OR, NOT",
                )))
            }
            TokenKind::Symbol(Symbol::Plus | Symbol::Minus | Symbol::Star | Symbol::Other(_)) => {
                Err(QueryError::Unsupported(Detail::new("arithmetic and other operators", position)))
            }
            _ => match left {
                Operand::Column(column) => Ok(Expression::Column(column)),
                Operand::Literal(literal) => match literal.value {
                    crate::ast::LiteralValue::Bool(value) => Ok(Expression::Constant(value)),
                    _ => Err(self.unexpected("a comparison")),
                },
            },
        }
    }
}

//! Conditions with names and types known, evaluated on encoded rows.
//!
//! Normal form, made by the constructors: `And` and `Or` are flat, hold at least two parts and no
//! constants; `Not` stands only before comparisons of floats (elsewhere it is absorbed by the
//! operator); a constant stands only alone. Tables are named by their slot, the position in the
//! statement; a predicate is evaluated on a slice with one row per slot, and slots it does not
//! mention may hold anything.

use std::cmp::Ordering;
use std::fmt::Write;

use tine_tables::ColumnId;

use crate::ast::Operator;
use crate::column::{ColumnAccess, ScalarKind};

#[derive(Debug, Clone)]
pub(crate) enum Predicate {
    Constant(bool),
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
    /// Column against constant.
    Value(ValueTest),
    /// Column against column of the same type.
    Columns(ColumnsTest),
}

/// `column operator constant`
#[derive(Debug, Clone)]
pub(crate) struct ValueTest {
    pub column: ColumnSlot,
    pub kind: ScalarKind,
    pub operator: Operator,
    /// BSATN of the column's type.
    pub value: Box<[u8]>,
}

/// `left operator right`
#[derive(Debug, Clone)]
pub(crate) struct ColumnsTest {
    pub left: ColumnSlot,
    pub right: ColumnSlot,
    pub kind: ScalarKind,
    pub operator: Operator,
}

/// A column of the table in a slot.
#[derive(Debug, Clone)]
pub(crate) struct ColumnSlot {
    pub slot: usize,
    pub column: ColumnId,
    pub access: ColumnAccess,
}

impl ColumnSlot {
    #[inline]
    pub fn get<'a>(&self, rows: &[&'a [u8]]) -> &'a [u8] {
        self.access.get(rows[self.slot])
    }
}

impl Predicate {
    pub fn and(parts: impl IntoIterator<Item = Predicate>) -> Predicate {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Predicate::Constant(true) => {}
                Predicate::Constant(false) => return part,
                Predicate::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Predicate::Constant(true),
            1 => flat.remove(0),
            _ => Predicate::And(flat),
        }
    }

    pub fn or(parts: impl IntoIterator<Item = Predicate>) -> Predicate {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Predicate::Constant(false) => {}
                Predicate::Constant(true) => return part,
                Predicate::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Predicate::Constant(false),
            1 => flat.remove(0),
            _ => Predicate::Or(flat),
        }
    }

    /// The predicate that holds exactly where this one does not.
    pub fn negate(self) -> Predicate {
        match self {
            Predicate::Constant(value) => Predicate::Constant(!value),
            Predicate::And(parts) => Predicate::or(parts.into_iter().map(Predicate::negate)),
            Predicate::Or(parts) => Predicate::and(parts.into_iter().map(Predicate::negate)),
            Predicate::Not(inner) => *inner,
            Predicate::Value(test) if !test.kind.is_float() => {
                Predicate::Value(ValueTest { operator: test.operator.negated(), ..test })
            }
            Predicate::Columns(test) if !test.kind.is_float() => {
                Predicate::Columns(ColumnsTest { operator: test.operator.negated(), ..test })
            }
            float_test => Predicate::Not(Box::new(float_test)),
        }
    }

    /// The same condition on the row in `slot`, for one that mentions a single slot.
    pub fn moved_to(self, slot: usize) -> Predicate {
        let moved = |column: ColumnSlot| ColumnSlot { slot, ..column };
        match self {
            Predicate::Constant(_) => self,
            Predicate::And(parts) => Predicate::And(parts.into_iter().map(|part| part.moved_to(slot)).collect()),
            Predicate::Or(parts) => Predicate::Or(parts.into_iter().map(|part| part.moved_to(slot)).collect()),
            Predicate::Not(inner) => Predicate::Not(Box::new(inner.moved_to(slot))),
            Predicate::Value(test) => Predicate::Value(ValueTest { column: moved(test.column), ..test }),
            Predicate::Columns(test) => {
                Predicate::Columns(ColumnsTest { left: moved(test.left), right: moved(test.right), ..test })
            }
        }
    }

    /// The parts that are about the row in `slot` alone, and the others.
    pub fn split_off_slot(&self, slot: usize) -> (Predicate, Predicate) {
        let (own, others): (Vec<&Predicate>, Vec<&Predicate>) =
            self.conjuncts().iter().partition(|part| part.slots() & !(1 << slot) == 0);
        (Predicate::and(own.into_iter().cloned()), Predicate::and(others.into_iter().cloned()))
    }

    /// The parts all of which must hold.
    pub fn conjuncts(&self) -> &[Predicate] {
        match self {
            Predicate::Constant(true) => &[],
            Predicate::And(parts) => parts,
            other => std::slice::from_ref(other),
        }
    }

    /// Whether the predicate always holds.
    pub fn is_true(&self) -> bool {
        matches!(self, Predicate::Constant(true))
    }

    /// The slots mentioned, as a bit set.
    pub fn slots(&self) -> u32 {
        match self {
            Predicate::Constant(_) => 0,
            Predicate::And(parts) | Predicate::Or(parts) => parts.iter().fold(0, |slots, part| slots | part.slots()),
            Predicate::Not(inner) => inner.slots(),
            Predicate::Value(test) => 1 << test.column.slot,
            Predicate::Columns(test) => 1 << test.left.slot | 1 << test.right.slot,
        }
    }

    /// Evaluates the predicate on one row per slot.
    pub fn matches(&self, rows: &[&[u8]]) -> bool {
        match self {
            Predicate::Constant(value) => *value,
            Predicate::And(parts) => parts.iter().all(|part| part.matches(rows)),
            Predicate::Or(parts) => parts.iter().any(|part| part.matches(rows)),
            Predicate::Not(inner) => !inner.matches(rows),
            Predicate::Value(test) => holds(test.kind, test.operator, test.column.get(rows), &test.value),
            Predicate::Columns(test) => holds(test.kind, test.operator, test.left.get(rows), test.right.get(rows)),
        }
    }

    /// Appends a text that is equal for equal predicates, whatever names were used to write them.
    pub fn write_key(&self, out: &mut String) {
        let list = |parts: &[Predicate], name: &str, out: &mut String| {
            out.push_str(name);
            out.push('(');
            for (position, part) in parts.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                part.write_key(out);
            }
            out.push(')');
        };
        match self {
            Predicate::Constant(value) => out.push_str(if *value { "true" } else { "false" }),
            Predicate::And(parts) => list(parts, "and", out),
            Predicate::Or(parts) => list(parts, "or", out),
            Predicate::Not(inner) => list(std::slice::from_ref(&**inner), "not", out),
            Predicate::Value(test) => {
                write_column(&test.column, out);
                out.push_str(test.operator.as_text());
                for byte in &test.value {
                    write!(out, "{byte:02x}").expect("writing to a string does not fail");
                }
            }
            Predicate::Columns(test) => {
                write_column(&test.left, out);
                out.push_str(test.operator.as_text());
                write_column(&test.right, out);
            }
        }
    }
}

fn write_column(column: &ColumnSlot, out: &mut String) {
    write!(out, "{}.{}", column.slot, column.column.position()).expect("writing to a string does not fail");
}

#[inline]
fn holds(kind: ScalarKind, operator: Operator, left: &[u8], right: &[u8]) -> bool {
    if !kind.is_float() {
        // Encodings of other kinds are equal exactly when the values are.
        match operator {
            Operator::Equal => return left == right,
            Operator::NotEqual => return left != right,
            _ => {}
        }
    }
    let order = kind.compare(left, right);
    match operator {
        Operator::Equal => order == Some(Ordering::Equal),
        Operator::NotEqual => order != Some(Ordering::Equal),
        Operator::Less => order == Some(Ordering::Less),
        Operator::LessEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Operator::Greater => order == Some(Ordering::Greater),
        Operator::GreaterEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

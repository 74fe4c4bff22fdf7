//! Queries over Tine's tables: the SQL dialects of the client protocol and live subscriptions.
//!
//! The way of a query is text → tokens (`lexer`) → statement ([`ast`], `parser`) → names and types
//! (`bind`, `literal`, `predicate`) → plan. From there the dialects part:
//!
//! - *Subscriptions and one-off queries* return whole rows of one table, perhaps restricted to those
//!   with a match in a second table ([`SubscriptionPlan`]). Results are sets. A plan turns the row
//!   changes of a commit into the change of its result at a cost that depends on the change.
//! - *HTTP queries* ([`select`]) add column lists, `COUNT(*)`, joins of many tables and `LIMIT`; [`modify`] runs the statements that
//!   change rows.
//!
//! Every statement is bound to a [`Catalog`]: what its caller can name, with the [`RowRules`] that hide rows from others than the owner.
//!
//! [`SubscriptionIndex`] holds the plans of all subscribers of a fork, evaluates each distinct plan
//! at most once per commit, and skips the plans whose equality filter no changed row satisfies.
//!
//! # Invariants
//!
//! 1. Text from outside is answered with a [`QueryError`] that names the place; it never panics.
//! 2. Conditions are evaluated on encoded rows; no value tree is built on the way.
//! 3. An index may yield too many rows, never too few: the whole condition is evaluated on each.
//! 4. For every plan and transaction: result before, minus the update's deletes, plus its inserts,
//!    is the result after; and no row is deleted that was not there or inserted that was.

mod access;
pub mod ast;
mod bind;
mod catalog;
mod column;
mod error;
mod guard;
mod index;
mod join;
mod lexer;
mod literal;
mod modify;
mod parser;
mod plan;
mod predicate;
mod rows;
mod select;

use tine_types::Identity;

pub use catalog::Catalog;
pub use error::{Detail, Position, QueryError};
pub use guard::{RULE_CHAIN_MAX, RowRules};
pub use index::{IndexCounters, SubscriptionIndex};
pub use join::JOIN_STEPS_MAX;
pub use modify::{Modified, Setting, modify, names_of, writes};
pub use parser::{NESTING_MAX, TABLES_MAX, TERMS_MAX, TEXT_BYTES_MAX, parse_statement};
pub use plan::{PlanKey, SubscriptionPlan, compile_subscription, compile_subscription_set, one_off};
pub use rows::RESULT_BYTES_MAX;
pub use select::{SelectLimits, SelectResult, select};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The identity that `:sender` stands for.
    pub identity: Identity,
    /// Whether private tables are visible.
    pub is_owner: bool,
}

#[cfg(test)]
mod tests;

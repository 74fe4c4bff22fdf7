//! Canonical names: what tables, columns, functions and indexes are called outside of the module.
//!
//! A name given explicitly wins. Otherwise the module's policy converts the name of the source; the
//! default splits it into words and joins them with underscores, in lower case. Words also end
//! between letters and digits, so `u32` becomes `u_32`.

use super::{CasePolicy, ConstraintDef, ExplicitName, IndexDef, ModuleDef, NameMapping, TableDef};

/// Converts to `snake_case`.
pub fn snake_case(name: &str) -> String {
    let words: Vec<_> = words(name).into_iter().map(str::to_lowercase).collect();
    words.join("_")
}

/// Converts to `PascalCase`.
pub fn pascal_case(name: &str) -> String {
    words(name).into_iter().map(capitalised).collect()
}

/// Converts to `camelCase`.
pub fn camel_case(name: &str) -> String {
    let words = words(name).into_iter().enumerate();
    words.map(|(index, word)| if index == 0 { word.to_lowercase() } else { capitalised(word) }).collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.as_str().to_lowercase().chars()).collect()
}

/// Splits at `_`, `-` and spaces, where the case rises, before the last capital of a run of them
/// that lower case follows, and between letters and digits.
fn words(name: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    let mut previous: Option<char> = None;
    let mut letters = name.char_indices().peekable();
    while let Some((position, letter)) = letters.next() {
        let next = letters.peek().map(|&(_, next)| next);
        if matches!(letter, '_' | '-' | ' ') {
            words.push(&name[start..position]);
            start = position + letter.len_utf8();
        } else if previous.is_some_and(|previous| is_boundary(previous, letter, next)) {
            words.push(&name[start..position]);
            start = position;
        }
        previous = Some(letter);
    }
    words.push(&name[start..]);
    words.retain(|word| !word.is_empty());
    words
}

fn is_boundary(previous: char, letter: char, next: Option<char>) -> bool {
    let is_letter = |letter: char| letter.is_lowercase() || letter.is_uppercase();
    let rises = previous.is_lowercase() && letter.is_uppercase();
    let ends_acronym = previous.is_uppercase() && letter.is_uppercase() && next.is_some_and(char::is_lowercase);
    let digit_starts = is_letter(previous) && letter.is_ascii_digit();
    let digit_ends = previous.is_ascii_digit() && is_letter(letter);
    rises || ends_acronym || digit_starts || digit_ends
}

impl ModuleDef {
    /// Canonical name of the table called `source_name` in the source.
    pub fn canonical_table_name(&self, source_name: &str) -> String {
        self.canonical(source_name, |entry| match entry {
            ExplicitName::Table(mapping) => Some(mapping),
            _ => None,
        })
    }

    /// Canonical name of the reducer, procedure or view called `source_name` in the source.
    pub fn canonical_function_name(&self, source_name: &str) -> String {
        self.canonical(source_name, |entry| match entry {
            ExplicitName::Function(mapping) => Some(mapping),
            _ => None,
        })
    }

    /// Canonical name of the column called `source_name` in the source.
    pub fn canonical_column_name(&self, source_name: &str) -> String {
        self.by_policy(source_name, snake_case)
    }

    /// Canonical name of the type called `source_name` in the source.
    pub fn canonical_type_name(&self, source_name: &str) -> String {
        self.by_policy(source_name, pascal_case)
    }

    /// Canonical name of the enum variant called `source_name` in the source.
    pub fn canonical_variant_name(&self, source_name: &str) -> String {
        self.by_policy(source_name, camel_case)
    }

    /// Name of an index in the source: the one it was given, or made of its table's and columns'
    /// source names.
    pub fn index_source_name(&self, table: &TableDef, index: &IndexDef) -> String {
        match &index.source_name {
            Some(name) => name.to_string(),
            None => {
                let columns = self.column_names(table, index.algorithm.columns());
                index_name(&table.source_name, &columns, index.algorithm.name())
            }
        }
    }

    /// Canonical name of an index: the one it was given explicitly, or made of its table's and
    /// columns' canonical names.
    pub fn canonical_index_name(&self, table: &TableDef, index: &IndexDef) -> String {
        let source_name = self.index_source_name(table, index);
        let explicit = self.explicit(&source_name, |entry| match entry {
            ExplicitName::Index(mapping) => Some(mapping),
            _ => None,
        });
        if let Some(name) = explicit {
            return name.to_owned();
        }
        let columns = self.canonical_column_names(table, index.algorithm.columns());
        let table = self.canonical_table_name(&table.source_name);
        index_name(&table, &columns, index.algorithm.name())
    }

    /// Canonical name of a constraint: the one it was given, or made of its table's and columns'
    /// canonical names.
    pub fn canonical_constraint_name(&self, table: &TableDef, constraint: &ConstraintDef) -> String {
        if let Some(name) = &constraint.source_name {
            return name.to_string();
        }
        let super::ConstraintData::Unique(unique) = &constraint.data;
        let columns = self.canonical_column_names(table, &unique.columns).join("_");
        format!("{}_{columns}_key", self.canonical_table_name(&table.source_name))
    }

    /// Canonical name of the sequence that fills `column` of `table`.
    pub fn canonical_sequence_name(&self, table: &TableDef, column: u16) -> String {
        let columns = self.canonical_column_names(table, &[column]).join("_");
        format!("{}_{columns}_seq", self.canonical_table_name(&table.source_name))
    }

    /// Canonical name of the schedule that the table called `source_name` in the source is.
    pub fn canonical_schedule_name(&self, source_name: &str) -> String {
        format!("{}_sched", self.canonical_table_name(source_name))
    }

    /// Names of columns in the source. A column that does not exist, or has no name, goes by its
    /// number, so that a message can be made about it.
    pub fn column_names(&self, table: &TableDef, columns: &[u16]) -> Vec<String> {
        let row_type = self.typespace.get(table.product_type_ref).and_then(|ty| ty.as_product());
        let name = |column: &u16| {
            let element = row_type.and_then(|row| row.elements.get(usize::from(*column)));
            match element.and_then(|element| element.name()) {
                Some(name) => name.to_owned(),
                None => column.to_string(),
            }
        };
        columns.iter().map(name).collect()
    }

    /// Canonical names of columns; see [`ModuleDef::column_names`].
    pub fn canonical_column_names(&self, table: &TableDef, columns: &[u16]) -> Vec<String> {
        let names = self.column_names(table, columns).into_iter();
        names.map(|name| self.canonical_column_name(&name)).collect()
    }

    fn canonical<'a>(
        &'a self,
        source_name: &str,
        select: impl Fn(&'a ExplicitName) -> Option<&'a NameMapping>,
    ) -> String {
        match self.explicit(source_name, select) {
            Some(name) => name.to_owned(),
            None => self.by_policy(source_name, snake_case),
        }
    }

    fn explicit<'a>(
        &'a self,
        source_name: &str,
        select: impl Fn(&'a ExplicitName) -> Option<&'a NameMapping>,
    ) -> Option<&'a str> {
        let mut mappings = self.explicit_names.iter().filter_map(select);
        let mapping = mappings.find(|mapping| &*mapping.source_name == source_name)?;
        Some(&mapping.canonical_name)
    }

    fn by_policy(&self, source_name: &str, convert: fn(&str) -> String) -> String {
        match self.case_policy {
            CasePolicy::None => source_name.to_owned(),
            CasePolicy::SnakeCase => convert(source_name),
        }
    }
}

fn index_name(table: &str, columns: &[String], algorithm: &str) -> String {
    format!("{table}_{}_idx_{algorithm}", columns.join("_"))
}

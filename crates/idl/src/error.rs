//! What can be wrong with a schema.

use std::fmt;

/// A place in a schema file; both count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}

/// Why a text is not a schema, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{position}: {problem}")]
pub struct SchemaError {
    /// What is wrong.
    #[source]
    pub problem: Problem,
    /// Where.
    pub position: Position,
}

impl SchemaError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        self.problem.code()
    }
}

/// What is wrong with a schema.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// Not JSON with comments.
    #[error("expected {expected}, found {found}")]
    Syntax {
        /// What would have been right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A name twice in one object: also two commands or types of one name.
    #[error("`{name}` is there twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Objects nest too deep.
    #[error("nested deeper than {max} levels")]
    TooDeep {
        /// The bound.
        max: usize,
    },
    /// More of something than is allowed.
    #[error("{count} {what}, but at most {max} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// A key that means nothing here.
    #[error("`{key}` means nothing here; known are {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The keys that do.
        known: &'static str,
    },
    /// A key that must be there.
    #[error("`{key}` is missing")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A value of another kind.
    #[error("{what} must be {expected}, not {found}")]
    WrongKind {
        /// What the value stands for.
        what: &'static str,
        /// The wanted kind.
        expected: &'static str,
        /// The kind found.
        found: &'static str,
    },
    /// A name that no language could use.
    #[error("`{name}` cannot be the name of {what}: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// What it should name.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A field that would be a reserved word.
    #[error("field `{field}` becomes `{projected}`, which is a reserved word of {language}")]
    ReservedWord {
        /// The field as written.
        field: String,
        /// The name in that language.
        projected: String,
        /// The language.
        language: &'static str,
    },
    /// Two names that become the same in a language.
    #[error("`{first}` and `{second}` both become `{projected}`")]
    Collision {
        /// The name that came first.
        first: String,
        /// The name that came second.
        second: String,
        /// What both become.
        projected: String,
    },
    /// A type reference that does not parse.
    #[error("`{reference}` is no type: {reason}")]
    BadReference {
        /// The reference as written.
        reference: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A type reference to something that is not there.
    #[error("there is no type `{name}`")]
    UnknownType {
        /// The name.
        name: String,
    },
    /// An alias of something that is no primitive.
    #[error("alias `{alias}` must stand for a primitive, and `{target}` is none")]
    BadAlias {
        /// The alias.
        alias: String,
        /// What it should stand for.
        target: String,
    },
    /// A type that contains itself.
    #[error("type `{name}` contains itself")]
    RecursiveType {
        /// The type.
        name: String,
    },
    /// A response that names no other command's.
    #[error("`{name}` is no response of another command; write `{example}`, or the fields")]
    UnknownResponse {
        /// The name.
        name: String,
        /// What such a name looks like.
        example: String,
    },
    /// An error shape other than the one of the wire.
    #[error("`error` must be exactly {{ \"message\": \"string\" }}")]
    BadError,
}

impl Problem {
    /// Stable code of the problem.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "TN1001",
            Self::DuplicateName { .. } => "TN1002",
            Self::TooDeep { .. } => "TN1003",
            Self::TooMany { .. } => "TN1004",
            Self::UnknownKey { .. } => "TN1005",
            Self::MissingKey { .. } => "TN1006",
            Self::WrongKind { .. } => "TN1007",
            Self::BadName { .. } => "TN1008",
            Self::ReservedWord { .. } => "TN1009",
            Self::Collision { .. } => "TN1010",
            Self::BadReference { .. } => "TN1011",
            Self::UnknownType { .. } => "TN1012",
            Self::BadAlias { .. } => "TN1013",
            Self::RecursiveType { .. } => "TN1014",
            Self::UnknownResponse { .. } => "TN1015",
            Self::BadError => "TN1016",
        }
    }
}

//! A checked schema.
//!
//! # Invariants
//!
//! 1. Every type reference resolves, and no type contains itself, however indirectly.
//! 2. [`Schema::types`] is in dependency order: a type comes after those it contains, so that languages
//!    that read top to bottom can print it as it stands.
//! 3. No two generated names of one scope are equal in any target language.

use crate::names::pascal_case;

/// A service: what one schema file describes.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Name of the service, and prefix of its generated types.
    pub service: String,
    /// Documentation of the service.
    pub docs: Vec<String>,
    /// Names of primitives, in the order of the file.
    pub aliases: Vec<Alias>,
    /// Shared structures, each after those it contains.
    pub types: Vec<Structure>,
    /// Commands, in the order of the file.
    pub commands: Vec<Command>,
}

/// A name for a primitive.
#[derive(Clone, Debug)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// Documentation.
    pub docs: Vec<String>,
    /// What it stands for. An alias of `bin32` is a type of its own; others are synonyms.
    pub target: Primitive,
}

impl Alias {
    /// Whether it is a type of its own.
    pub fn is_nominal(&self) -> bool {
        self.target == Primitive::Bin32
    }
}

/// A list of named fields.
#[derive(Clone, Debug)]
pub struct Structure {
    /// Name of the generated type.
    pub name: String,
    /// Documentation.
    pub docs: Vec<String>,
    /// Fields, in the order of the file, which is their order on the wire.
    pub fields: Vec<Field>,
}

/// One field.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name as written: the key on the wire.
    pub name: String,
    /// Documentation.
    pub docs: Vec<String>,
    /// Type.
    pub ty: Type,
}

/// A command: a request and what it is answered with.
#[derive(Clone, Debug)]
pub struct Command {
    /// Name as written, without the service.
    pub name: String,
    /// Documentation.
    pub docs: Vec<String>,
    /// The request; its name is the message's name on the wire.
    pub request: Structure,
    /// The response; its name is the message's name on the wire.
    pub response: Response,
    /// Whether any number of responses follow, and an end.
    pub is_stream: bool,
}

/// What a command is answered with.
#[derive(Clone, Debug)]
pub enum Response {
    /// Fields of its own.
    Own(Structure),
    /// The fields of another command's response, under a name of its own.
    SameAs {
        /// Name of the message, and of the synonym that is generated.
        name: String,
        /// Name of the other response, which has fields of its own.
        shape: String,
    },
}

impl Response {
    /// Name of the message and of the generated type.
    pub fn name(&self) -> &str {
        match self {
            Self::Own(structure) => &structure.name,
            Self::SameAs { name, .. } => name,
        }
    }
}

/// The type of a field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Type {
    /// A primitive.
    Primitive(Primitive),
    /// An alias, by its place in [`Schema::aliases`].
    Alias(usize),
    /// A shared structure, by name.
    Structure(String),
    /// A value or nothing.
    Optional(Box<Type>),
    /// Any number of values.
    List(Box<Type>),
    /// Exactly so many values.
    FixedList(Box<Type>, usize),
}

/// What everything is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Primitive {
    /// `true` or `false`.
    Bool,
    /// 8 bits without a sign.
    U8,
    /// 16 bits without a sign.
    U16,
    /// 32 bits without a sign.
    U32,
    /// 64 bits without a sign.
    U64,
    /// A float of 64 bits.
    F64,
    /// UTF-8 text.
    String,
    /// Bytes.
    Bytes,
    /// Exactly 32 bytes.
    Bin32,
}

impl Primitive {
    /// All, with their names in a schema.
    pub const ALL: [(Primitive, &'static str); 9] = [
        (Primitive::Bool, "bool"),
        (Primitive::U8, "u8"),
        (Primitive::U16, "u16"),
        (Primitive::U32, "u32"),
        (Primitive::U64, "u64"),
        (Primitive::F64, "f64"),
        (Primitive::String, "string"),
        (Primitive::Bytes, "bytes"),
        (Primitive::Bin32, "bin32"),
    ];

    /// The primitive of a name.
    pub fn named(name: &str) -> Option<Primitive> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(primitive, _)| *primitive)
    }

    /// The name in a schema.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(primitive, _)| *primitive == self).map(|(_, name)| *name).expect("all are listed")
    }
}

impl Schema {
    /// Name of the error message on the wire.
    pub fn error_name(&self) -> String {
        format!("{}ErrorResponse", self.service)
    }

    /// Every structure that is generated, in an order in which each comes after those it contains.
    pub fn structures(&self) -> impl Iterator<Item = &Structure> {
        let messages = self.commands.iter().flat_map(|command| {
            let own = match &command.response {
                Response::Own(structure) => Some(structure),
                Response::SameAs { .. } => None,
            };
            std::iter::once(&command.request).chain(own)
        });
        self.types.iter().chain(messages)
    }

    /// The structure of that name.
    pub fn structure(&self, name: &str) -> Option<&Structure> {
        self.structures().find(|structure| structure.name == name)
    }

    /// The fields of a command's response.
    ///
    /// # Panics
    /// If the command is not of this schema.
    pub fn response_structure<'a>(&'a self, command: &'a Command) -> &'a Structure {
        match &command.response {
            Response::Own(structure) => structure,
            Response::SameAs { shape, .. } => self.structure(shape).expect("shapes of responses are resolved"),
        }
    }

    /// The service's name as part of type names of ours.
    pub fn service_pascal(&self) -> String {
        pascal_case(&self.service)
    }

    /// Whether any command answers with a stream.
    pub fn has_streams(&self) -> bool {
        self.commands.iter().any(|command| command.is_stream)
    }

    /// A type as it is written in a schema.
    pub fn type_text(&self, ty: &Type) -> String {
        match ty {
            Type::Primitive(primitive) => primitive.name().to_owned(),
            Type::Alias(index) => self.aliases[*index].name.clone(),
            Type::Structure(name) => name.clone(),
            Type::Optional(inner) => format!("{}?", self.type_text(inner)),
            Type::List(inner) => format!("{}[]", self.type_text(inner)),
            Type::FixedList(inner, length) => format!("{}[{length}]", self.type_text(inner)),
        }
    }
}

//! What changed between two schemas, and what of it breaks clients that are not generated anew.
//!
//! The question asked is whether clients of the old schema understand a server of the new one. So
//! requests are written in the old form and read in the new one, and responses the other way round. A
//! reader understands a writer when it accepts whatever the writer may write: it ignores fields it does
//! not know, takes integers of narrower types, and needs no field that may be absent.

use std::{collections::HashSet, fmt};

use crate::{Command, Primitive, Schema, Structure, Type};

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Whether clients of the old schema fail because of it.
    pub is_breaking: bool,
    /// The command, or the field of a message, as `EchoBytes.data`.
    pub place: String,
    /// What is different.
    pub text: String,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.text)
    }
}

/// Compares two schemas. Breaking changes come first; otherwise the order is that of the new schema.
pub fn diff(old: &Schema, new: &Schema) -> Vec<Change> {
    let mut comparison = Comparison { old, new, changes: Vec::new(), seen: HashSet::new() };
    if old.service != new.service {
        let text = format!("the service was `{}`: every message has another name", old.service);
        comparison.add(true, &new.service, text);
        return comparison.changes;
    }
    for command in &new.commands {
        match old.commands.iter().find(|before| before.name == command.name) {
            Some(before) => comparison.command(before, command),
            None => comparison.add(false, &command.request.name, "the command is new".to_owned()),
        }
    }
    for command in &old.commands {
        if !new.commands.iter().any(|after| after.name == command.name) {
            comparison.add(true, &command.request.name, "the command is gone".to_owned());
        }
    }
    let mut changes = comparison.changes;
    changes.sort_by_key(|change| !change.is_breaking);
    changes
}

/// Who writes a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Direction {
    /// Old clients write, the new server reads.
    Request,
    /// The new server writes, old clients read.
    Response,
}

struct Comparison<'a> {
    old: &'a Schema,
    new: &'a Schema,
    changes: Vec<Change>,
    /// Pairs of shared structures that were compared, so that each is reported once.
    seen: HashSet<(String, String, Direction)>,
}

impl Comparison<'_> {
    fn add(&mut self, is_breaking: bool, place: &str, text: String) {
        self.changes.push(Change { is_breaking, place: place.to_owned(), text });
    }

    fn command(&mut self, old: &Command, new: &Command) {
        if old.is_stream != new.is_stream {
            let now = if new.is_stream { "is now a stream" } else { "is no stream any more" };
            self.add(true, &new.request.name, format!("the response {now}"));
        }
        self.structures(&old.request, &new.request, &new.request.name, Direction::Request);
        let (before, after) = (self.old.response_structure(old), self.new.response_structure(new));
        self.structures(before, after, new.response.name(), Direction::Response);
    }

    fn structures(&mut self, old: &Structure, new: &Structure, place: &str, direction: Direction) {
        for field in &new.fields {
            let place = format!("{place}.{}", field.name);
            let Some(before) = old.fields.iter().find(|before| before.name == field.name) else {
                let is_optional = matches!(field.ty, Type::Optional(_));
                let text = match (direction, is_optional) {
                    (Direction::Request, false) => "the field is new and required: old clients do not send it",
                    (Direction::Request, true) => "the field is new and optional",
                    (Direction::Response, _) => "the field is new: old clients ignore it",
                };
                self.add(direction == Direction::Request && !is_optional, &place, text.to_owned());
                continue;
            };
            self.field(&before.ty, &field.ty, &place, direction);
        }
        for field in &old.fields {
            if new.fields.iter().any(|after| after.name == field.name) {
                continue;
            }
            let is_optional = matches!(field.ty, Type::Optional(_));
            let text = match (direction, is_optional) {
                (Direction::Response, false) => "the field is gone: old clients need it",
                (Direction::Response, true) => "the field is gone: old clients do without",
                (Direction::Request, _) => "the field is gone: the server ignores what old clients send",
            };
            let place = format!("{place}.{}", field.name);
            self.add(direction == Direction::Response && !is_optional, &place, text.to_owned());
        }
    }

    fn field(&mut self, old: &Type, new: &Type, place: &str, direction: Direction) {
        let (old_text, new_text) = (self.old.type_text(old), self.new.type_text(new));
        let (reader, writer) = match direction {
            Direction::Request => (self.resolve(self.new, new), self.resolve(self.old, old)),
            Direction::Response => (self.resolve(self.old, old), self.resolve(self.new, new)),
        };
        let understood = understands(&reader, &writer);
        if !understood {
            self.add(true, place, format!("the type was `{old_text}` and is `{new_text}`"));
        } else if reader != writer && !names_differ_only(&reader, &writer) {
            self.add(false, place, format!("the type was `{old_text}` and is `{new_text}`"));
        }
        if let (Some(old), Some(new)) = (structure_of(self.old, old), structure_of(self.new, new))
            && understood
            && self.seen.insert((old.name.clone(), new.name.clone(), direction))
        {
            self.structures(old, new, &new.name, direction);
        }
    }

    /// A type with aliases replaced by what they stand for.
    fn resolve(&self, schema: &Schema, ty: &Type) -> Type {
        match ty {
            Type::Alias(index) => Type::Primitive(schema.aliases[*index].target),
            Type::Optional(inner) => Type::Optional(Box::new(self.resolve(schema, inner))),
            Type::List(inner) => Type::List(Box::new(self.resolve(schema, inner))),
            Type::FixedList(inner, length) => Type::FixedList(Box::new(self.resolve(schema, inner)), *length),
            other => other.clone(),
        }
    }
}

/// The shared structure at the core of a type.
fn structure_of<'a>(schema: &'a Schema, ty: &Type) -> Option<&'a Structure> {
    match ty {
        Type::Structure(name) => schema.structure(name),
        Type::Optional(inner) | Type::List(inner) | Type::FixedList(inner, _) => structure_of(schema, inner),
        Type::Primitive(_) | Type::Alias(_) => None,
    }
}

/// Whether a reader of one type accepts whatever a writer of the other writes. What is inside shared
/// structures is compared on its own.
fn understands(reader: &Type, writer: &Type) -> bool {
    match (reader, writer) {
        (Type::Optional(reader), Type::Optional(writer)) => understands(reader, writer),
        (Type::Optional(reader), writer) => understands(reader, writer),
        (Type::List(reader), Type::List(writer) | Type::FixedList(writer, _)) => understands(reader, writer),
        (Type::FixedList(reader, read), Type::FixedList(writer, written)) => {
            read == written && understands(reader, writer)
        }
        (Type::Structure(_), Type::Structure(_)) => true,
        (Type::Primitive(reader), Type::Primitive(writer)) => primitive_understands(*reader, *writer),
        _ => false,
    }
}

fn primitive_understands(reader: Primitive, writer: Primitive) -> bool {
    let width = |primitive| match primitive {
        Primitive::U8 => Some(8),
        Primitive::U16 => Some(16),
        Primitive::U32 => Some(32),
        Primitive::U64 => Some(64),
        _ => None,
    };
    match (width(reader), width(writer)) {
        (Some(reader), Some(writer)) => reader >= writer,
        _ => reader == writer || (reader == Primitive::Bytes && writer == Primitive::Bin32),
    }
}

/// Whether two types differ in nothing but what their structures are called.
fn names_differ_only(left: &Type, right: &Type) -> bool {
    match (left, right) {
        (Type::Structure(_), Type::Structure(_)) => true,
        (Type::Optional(left), Type::Optional(right)) | (Type::List(left), Type::List(right)) => {
            names_differ_only(left, right)
        }
        (Type::FixedList(left, left_length), Type::FixedList(right, right_length)) => {
            left_length == right_length && names_differ_only(left, right)
        }
        _ => left == right,
    }
}

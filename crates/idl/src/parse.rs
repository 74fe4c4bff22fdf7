//! From a file to a checked schema.
//!
//! The first problem ends it: problems of schemas tend to follow from one another, and each says what
//! to change.

use std::collections::HashMap;

use crate::{
    Alias, Command, Field, Position, Primitive, Problem, Response, Schema, SchemaError, Structure, Type,
    json::{self, Member, Node, Value},
    names::{camel_case, pascal_case, reserved_in, snake_case},
};

/// Size of a schema file. The largest service known has 60 KiB.
pub const SCHEMA_BYTES_MAX: usize = 4 << 20;

/// Fields of one structure. Far more than anybody reads; keeps what decoders allocate per value small.
pub const FIELDS_MAX: usize = 1_000;

/// Aliases, types and commands, each.
pub const DEFINITIONS_MAX: usize = 10_000;

/// Suffixes of one type reference. Each is a level of nesting in generated code.
pub const SUFFIXES_MAX: usize = 8;

/// Elements of a fixed array. Languages keep such arrays inline in their structures.
pub const FIXED_LENGTH_MAX: usize = 65_536;

/// Characters of a name.
pub const NAME_LENGTH_MAX: usize = 100;

const SERVICE_KEYS: &str = "`service`, `aliases`, `types`, `error`, `commands`";
const COMMAND_KEYS: &str = "`request`, `response`, `stream`";

impl Schema {
    /// Parses and checks the text of a schema file.
    ///
    /// # Errors
    /// The first problem, with its place.
    pub fn parse(text: &str) -> Result<Schema, SchemaError> {
        let start = Position { line: 1, column: 1 };
        check_count("bytes", text.len(), SCHEMA_BYTES_MAX, start)?;
        let (node, head) = json::parse(text)?;
        Builder::default().service(&node, head)
    }
}

/// Shared structures as they are in the file; `Resolving` while what they contain is looked at.
enum Shared<'a> {
    Waiting(&'a Member),
    Resolving,
    Done,
}

#[derive(Default)]
struct Builder<'a> {
    aliases: Vec<Alias>,
    shared: HashMap<&'a str, Shared<'a>>,
    types: Vec<Structure>,
}

impl<'a> Builder<'a> {
    fn service(mut self, node: &'a Node, head: Vec<String>) -> Result<Schema, SchemaError> {
        let members = object(node, "a schema")?;
        known_keys(members, &["service", "aliases", "types", "error", "commands"], SERVICE_KEYS)?;
        let name_node = &member(members, "service", node)?.node;
        let service = string(name_node, "`service`")?.to_owned();
        check_name(&service, "a service", name_node.position)?;
        if let Some(aliases) = find(members, "aliases") {
            self.read_aliases(object(&aliases.node, "`aliases`")?)?;
        }
        if let Some(types) = find(members, "types") {
            self.read_types(object(&types.node, "`types`")?)?;
        }
        check_error_shape(&member(members, "error", node)?.node)?;
        let commands_node = &member(members, "commands", node)?.node;
        let commands = self.commands(&service, object(commands_node, "`commands`")?)?;
        let service_docs = find(members, "service").map(|member| member.docs.clone()).unwrap_or_default();
        let docs = if service_docs.is_empty() { head } else { service_docs };
        let schema = Schema { service, docs, aliases: self.aliases, types: self.types, commands };
        check_type_names(&schema, members)?;
        Ok(schema)
    }

    fn read_aliases(&mut self, members: &'a [Member]) -> Result<(), SchemaError> {
        for member in members {
            check_name(&member.name, "an alias", member.position)?;
            let target_name = string(&member.node, "an alias")?;
            let Some(target) = Primitive::named(target_name) else {
                let problem = Problem::BadAlias { alias: member.name.clone(), target: target_name.to_owned() };
                return Err(SchemaError { problem, position: member.node.position });
            };
            self.aliases.push(Alias { name: member.name.clone(), docs: member.docs.clone(), target });
        }
        Ok(())
    }

    fn read_types(&mut self, members: &'a [Member]) -> Result<(), SchemaError> {
        for member in members {
            check_name(&member.name, "a type", member.position)?;
            self.shared.insert(&member.name, Shared::Waiting(member));
        }
        for member in members {
            self.resolve_shared(&member.name, member.position)?;
        }
        Ok(())
    }

    /// Reads a shared structure and before it those it contains; the depth of the recursion is that of
    /// the types, which [`DEFINITIONS_MAX`] would let overflow the stack, so a bound comes first.
    fn resolve_shared(&mut self, name: &str, position: Position) -> Result<(), SchemaError> {
        /// Structures within structures. Decoders go as deep.
        const STRUCTURE_DEPTH_MAX: usize = 64;
        let key = self.shared.get_key_value(name).map(|(key, _)| *key);
        let Some((key, state)) = key.and_then(|key| Some((key, self.shared.get_mut(key)?))) else {
            let problem = Problem::UnknownType { name: name.to_owned() };
            return Err(SchemaError { problem, position });
        };
        match std::mem::replace(state, Shared::Resolving) {
            Shared::Done => {
                self.shared.insert(key, Shared::Done);
                Ok(())
            }
            Shared::Resolving => {
                Err(SchemaError { problem: Problem::RecursiveType { name: name.to_owned() }, position })
            }
            Shared::Waiting(member) => {
                let open = self.shared.values().filter(|state| matches!(state, Shared::Resolving)).count();
                check_count("structures inside one another", open, STRUCTURE_DEPTH_MAX, position)?;
                let fields = self.fields(&member.node)?;
                self.types.push(Structure { name: name.to_owned(), docs: member.docs.clone(), fields });
                self.shared.insert(key, Shared::Done);
                Ok(())
            }
        }
    }

    fn fields(&mut self, node: &'a Node) -> Result<Vec<Field>, SchemaError> {
        let members = object(node, "a list of fields")?;
        check_count("fields", members.len(), FIELDS_MAX, node.position)?;
        let mut projected: HashMap<String, &str> = HashMap::new();
        let mut fields = Vec::with_capacity(members.len());
        for member in members {
            check_field_name(member, &mut projected)?;
            let reference = string(&member.node, "a field's type")?;
            let ty = self.reference(reference, member.node.position)?;
            fields.push(Field { name: member.name.clone(), docs: member.docs.clone(), ty });
        }
        Ok(fields)
    }

    /// Parses `leaf` and its suffixes, the last of which is the outermost.
    fn reference(&mut self, reference: &str, position: Position) -> Result<Type, SchemaError> {
        let bad = |reason| {
            Err(SchemaError { problem: Problem::BadReference { reference: reference.to_owned(), reason }, position })
        };
        let leaf_length = reference.find(['?', '[']).unwrap_or(reference.len());
        let (leaf, mut suffixes) = reference.split_at(leaf_length);
        let mut ty = match Primitive::named(leaf) {
            _ if leaf.is_empty() => return bad("it names nothing"),
            Some(primitive) => Type::Primitive(primitive),
            None => match self.aliases.iter().position(|alias| alias.name == leaf) {
                Some(index) => Type::Alias(index),
                None => {
                    self.resolve_shared(leaf, position)?;
                    Type::Structure(leaf.to_owned())
                }
            },
        };
        let mut count = 0;
        while !suffixes.is_empty() {
            count += 1;
            if count > SUFFIXES_MAX {
                return bad("it has too many suffixes");
            }
            if let Some(rest) = suffixes.strip_prefix('?') {
                if matches!(ty, Type::Optional(_)) {
                    return bad("an optional value cannot be optional once more: both absences look the same");
                }
                ty = Type::Optional(Box::new(ty));
                suffixes = rest;
                continue;
            }
            let Some((length, rest)) = suffixes.strip_prefix('[').and_then(|inside| inside.split_once(']')) else {
                return bad("suffixes are `?`, `[]` and `[N]`");
            };
            suffixes = rest;
            if length.is_empty() {
                ty = Type::List(Box::new(ty));
                continue;
            }
            match length.parse::<usize>() {
                Ok(length @ 1..=FIXED_LENGTH_MAX) if length.to_string().len() == suffix_digits(reference, rest) => {
                    ty = Type::FixedList(Box::new(ty), length);
                }
                _ => return bad("the length of an array is a number from 1 to 65536"),
            }
        }
        Ok(ty)
    }

    fn commands(&mut self, service: &str, members: &'a [Member]) -> Result<Vec<Command>, SchemaError> {
        check_count("commands", members.len(), DEFINITIONS_MAX, Position { line: 1, column: 1 })?;
        let mut commands = Vec::with_capacity(members.len());
        let mut methods: HashMap<String, &str> = HashMap::new();
        for member in members {
            check_name(&member.name, "a command", member.position)?;
            let method = snake_case(&member.name);
            if let Some(first) = methods.insert(method.clone(), &member.name) {
                return Err(collision(first, &member.name, method, member.position));
            }
            commands.push(self.command(service, member, members)?);
        }
        Ok(commands)
    }

    fn command(&mut self, service: &str, member: &'a Member, all: &'a [Member]) -> Result<Command, SchemaError> {
        let parts = object(&member.node, "a command")?;
        known_keys(parts, &["request", "response", "stream"], COMMAND_KEYS)?;
        let request_node = &self::member(parts, "request", &member.node)?.node;
        let response_member = self::member(parts, "response", &member.node)?;
        let is_stream = match find(parts, "stream") {
            None => false,
            Some(stream) => match stream.node.value {
                Value::Boolean(is_stream) => is_stream,
                _ => return Err(wrong_kind(&stream.node, "`stream`", "a boolean")),
            },
        };
        let name = format!("{service}{}", member.name);
        let response_name = format!("{name}Response");
        let response = match &response_member.node.value {
            Value::String(shape) => {
                let shape = response_shape(service, shape, all, response_member.node.position)?;
                Response::SameAs { name: response_name, shape }
            }
            _ => Response::Own(Structure {
                name: response_name,
                docs: response_member.docs.clone(),
                fields: self.fields(&response_member.node)?,
            }),
        };
        Ok(Command {
            name: member.name.clone(),
            docs: member.docs.clone(),
            request: Structure { name, docs: member.docs.clone(), fields: self.fields(request_node)? },
            response,
            is_stream,
        })
    }
}

/// Digits of the length that was just read: tells `[7]` from `[07]` and `[+7]`.
fn suffix_digits(reference: &str, rest: &str) -> usize {
    let read = &reference[..reference.len() - rest.len() - 1];
    read.len() - read.rfind('[').map_or(0, |open| open + 1)
}

/// The response that a string names: with the service's name before it or without.
fn response_shape(service: &str, text: &str, all: &[Member], position: Position) -> Result<String, SchemaError> {
    let named = text.strip_suffix("Response").and_then(|name| {
        let is_own = |member: &&Member| {
            member.name == name || name.strip_prefix(service).is_some_and(|short| short == member.name)
        };
        all.iter().find(is_own)
    });
    let has_fields = |member: &&Member| match &member.node.value {
        Value::Object(parts) => {
            find(parts, "response").is_some_and(|response| matches!(response.node.value, Value::Object(_)))
        }
        _ => false,
    };
    match named.filter(has_fields) {
        Some(member) => Ok(format!("{service}{}Response", member.name)),
        None => {
            let example = format!("{service}SomethingResponse");
            Err(SchemaError { problem: Problem::UnknownResponse { name: text.to_owned(), example }, position })
        }
    }
}

fn check_error_shape(node: &Node) -> Result<(), SchemaError> {
    if let Value::Object(members) = &node.value
        && let [only] = members.as_slice()
        && only.name == "message"
        && matches!(&only.node.value, Value::String(ty) if ty == "string")
    {
        return Ok(());
    }
    Err(SchemaError { problem: Problem::BadError, position: node.position })
}

fn check_name(name: &str, what: &'static str, position: Position) -> Result<(), SchemaError> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_LENGTH_MAX {
        "it is too long"
    } else if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        "it does not start with a letter"
    } else if !name.chars().all(is_word) {
        "it has characters other than letters, digits and underscores"
    } else if Primitive::named(name).is_some() {
        "it is the name of a primitive"
    } else {
        return Ok(());
    };
    Err(SchemaError { problem: Problem::BadName { name: name.to_owned(), what, reason }, position })
}

fn check_field_name<'a>(member: &'a Member, seen: &mut HashMap<String, &'a str>) -> Result<(), SchemaError> {
    // A field may be called `string` or `bytes`: fields and types are never in one place.
    if Primitive::named(&member.name).is_none() {
        check_name(&member.name, "a field", member.position)?;
    }
    for projected in [snake_case(&member.name), camel_case(&member.name)] {
        if let Some(language) = reserved_in(&projected) {
            let problem = Problem::ReservedWord { field: member.name.clone(), projected, language };
            return Err(SchemaError { problem, position: member.position });
        }
        if let Some(first) = seen.insert(projected.clone(), &member.name)
            && first != member.name
        {
            return Err(collision(first, &member.name, projected, member.position));
        }
    }
    Ok(())
}

/// Generated types share one scope: aliases, structures, messages, and what belongs to the service.
fn check_type_names(schema: &Schema, members: &[Member]) -> Result<(), SchemaError> {
    let mut seen: HashMap<String, String> = HashMap::new();
    let service = schema.service_pascal();
    let own = ["ErrorResponse", "Client", "Error", "Handler", "Server", "Request", "Service"];
    let own = own.map(|suffix| format!("{service}{suffix}"));
    let aliases = schema.aliases.iter().map(|alias| alias.name.clone());
    let structures = schema.structures().map(|structure| structure.name.clone());
    let synonyms = schema.commands.iter().filter_map(|command| match &command.response {
        Response::SameAs { name, .. } => Some(name.clone()),
        Response::Own(_) => None,
    });
    for name in own.into_iter().chain(aliases).chain(structures).chain(synonyms) {
        let projected = pascal_case(&name);
        if let Some(first) = seen.insert(projected.clone(), name.clone()) {
            let position = position_of(members, &name);
            return Err(collision(&first, &name, projected, position));
        }
    }
    Ok(())
}

/// Where a name is defined; commands are found by the end of their messages' names.
fn position_of(members: &[Member], name: &str) -> Position {
    let definitions = members.iter().filter_map(|member| match &member.node.value {
        Value::Object(definitions) => Some(definitions),
        _ => None,
    });
    let all: Vec<&Member> = definitions.flatten().collect();
    let exact = all.iter().find(|member| member.name == name);
    let command = || all.iter().find(|member| name.trim_end_matches("Response").ends_with(&member.name));
    exact.or_else(command).map_or(Position { line: 1, column: 1 }, |member| member.position)
}

fn collision(first: &str, second: &str, projected: String, position: Position) -> SchemaError {
    SchemaError {
        problem: Problem::Collision { first: first.to_owned(), second: second.to_owned(), projected },
        position,
    }
}

fn check_count(what: &'static str, count: usize, max: usize, position: Position) -> Result<(), SchemaError> {
    if count > max {
        return Err(SchemaError { problem: Problem::TooMany { what, count, max }, position });
    }
    Ok(())
}

fn wrong_kind(node: &Node, what: &'static str, expected: &'static str) -> SchemaError {
    let problem = Problem::WrongKind { what, expected, found: node.value.kind() };
    SchemaError { problem, position: node.position }
}

fn object<'a>(node: &'a Node, what: &'static str) -> Result<&'a [Member], SchemaError> {
    match &node.value {
        Value::Object(members) => {
            check_count("members", members.len(), DEFINITIONS_MAX, node.position)?;
            Ok(members)
        }
        _ => Err(wrong_kind(node, what, "an object")),
    }
}

fn string<'a>(node: &'a Node, what: &'static str) -> Result<&'a str, SchemaError> {
    match &node.value {
        Value::String(text) => Ok(text),
        _ => Err(wrong_kind(node, what, "a string")),
    }
}

fn find<'a>(members: &'a [Member], key: &str) -> Option<&'a Member> {
    members.iter().find(|member| member.name == key)
}

fn member<'a>(members: &'a [Member], key: &'static str, object: &Node) -> Result<&'a Member, SchemaError> {
    find(members, key).ok_or(SchemaError { problem: Problem::MissingKey { key }, position: object.position })
}

fn known_keys(members: &[Member], known: &[&str], listed: &'static str) -> Result<(), SchemaError> {
    match members.iter().find(|member| !known.contains(&member.name.as_str())) {
        None => Ok(()),
        Some(member) => Err(SchemaError {
            problem: Problem::UnknownKey { key: member.name.clone(), known: listed },
            position: member.position,
        }),
    }
}

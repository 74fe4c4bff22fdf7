//! Rust: types with `tine_msgpack::Value`, a client and a handler trait on `tine_ipc::typed`.
//!
//! The layout is that of `rustfmt` without settings.

use std::collections::HashSet;

use super::{Language, code::Code, head_line};
use crate::{
    Alias, Command, Primitive, Response, Schema, Structure, Type,
    names::{is_reserved, snake_case},
};

/// Width of a line, and of the arguments of a call, that `rustfmt` keeps on one line.
const WIDTH: usize = 100;
const ARGUMENTS_WIDTH: usize = 60;

/// Width of a chain of calls that `rustfmt` keeps on one line.
const CHAIN_WIDTH: usize = 60;

pub(super) fn generate(schema: &Schema) -> String {
    let mut code = Code::new("    ", WIDTH);
    code.line(format!("// {}", head_line(schema)));
    code.gap();
    imports(&mut code, schema);
    code.gap();
    hash(&mut code, schema);
    code.gap();
    code.line(format!("/// What calls of {} are answered with when they fail.", schema.service));
    code.line(format!("pub type {} = ErrorResponse;", schema.error_name()));
    for alias in &schema.aliases {
        code.gap();
        code.docs("///", &alias.docs);
        if alias.is_nominal() {
            nominal(&mut code, &alias.name);
        } else {
            let target = primitive(alias.target);
            code.line(format!("pub type {} = {target};", alias.name));
        }
    }
    let mut with_floats = HashSet::new();
    for structure in schema.structures() {
        code.gap();
        self::structure(&mut code, schema, structure, &mut with_floats);
    }
    for command in &schema.commands {
        if let Response::SameAs { name, shape } = &command.response {
            code.gap();
            code.line(format!("/// The response of {}.", command.request.name));
            code.line(format!("pub type {name} = {shape};"));
        }
    }
    code.gap();
    client(&mut code, schema);
    code.gap();
    handler(&mut code, schema);
    code.gap();
    server(&mut code, schema);
    code.finish()
}

fn imports(code: &mut Code, schema: &Schema) {
    code.line("use std::path::Path;");
    let has_calls = schema.commands.iter().any(|command| !command.is_stream);
    if has_calls {
        code.line("use std::time::Duration;");
    }
    code.gap();
    let mut typed = vec!["Connection", "ErrorResponse", "Incoming"];
    if has_calls {
        typed.push("Responder");
    }
    typed.push("ServiceError");
    if schema.has_streams() {
        typed.extend(["ItemStream", "StreamResponder"]);
    }
    typed.sort_unstable();
    let line = format!("use tine_ipc::typed::{{{}}};", typed.join(", "));
    if code.fits(&line) {
        code.line(line);
    } else {
        code.open("use tine_ipc::typed::{");
        code.line(format!("{},", typed.join(", ")));
        code.close("};");
    }
    code.line("use tine_ipc::{ConnectError, ConnectOptions, ConnectionEvent, SchemaHash};");
    if schema.structures().next().is_some() || schema.aliases.iter().any(Alias::is_nominal) {
        code.line("use tine_msgpack::{DecodeError, Reader, Value, Writer};");
    }
}

fn hash(code: &mut Code, schema: &Schema) {
    code.line("/// SHA-256 of the schema: client and server compare it when they meet.");
    code.open("pub const SCHEMA_HASH: SchemaHash = SchemaHash([");
    let bytes: Vec<String> = schema.hash().iter().map(|byte| format!("0x{byte:02x}")).collect();
    // As many as `rustfmt` puts on a line of short elements.
    for line in bytes.chunks(16) {
        code.line(format!("{},", line.join(", ")));
    }
    code.close("]);");
}

/// A type of its own for 32 bytes.
fn nominal(code: &mut Code, name: &str) {
    code.line("#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]");
    code.line(format!("pub struct {name}(pub [u8; 32]);"));
    code.gap();
    code.open(format!("impl Value for {name} {{"));
    code.open("fn write(&self, writer: &mut Writer) {");
    code.line("self.0.write(writer);");
    code.close("}");
    code.gap();
    code.open("fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {");
    code.line("Value::read(reader).map(Self)");
    code.close("}");
    code.close("}");
}

/// `with_floats` are the structures so far that contain floats, and so have no `Eq`.
fn structure<'a>(code: &mut Code, schema: &'a Schema, structure: &'a Structure, with_floats: &mut HashSet<&'a str>) {
    let name = &structure.name;
    code.docs("///", &structure.docs);
    if structure.docs.is_empty() || structure.fields.iter().any(|field| field.docs.is_empty()) {
        code.line("#[allow(missing_docs)]");
    }
    let has_floats = structure.fields.iter().any(|field| has_floats(schema, &field.ty, with_floats));
    if has_floats {
        with_floats.insert(name);
    }
    let eq = if has_floats { "" } else { ", Eq" };
    code.line(format!("#[derive(Clone, PartialEq{eq}, Debug)]"));
    if structure.fields.is_empty() {
        code.line(format!("pub struct {name} {{}}"));
    } else {
        code.open(format!("pub struct {name} {{"));
        for field in &structure.fields {
            code.docs("///", &field.docs);
            code.line(format!("pub {}: {},", snake_case(&field.name), type_text(schema, &field.ty)));
        }
        code.close("}");
    }
    code.gap();
    code.open(format!("impl Value for {name} {{"));
    code.open("fn write(&self, writer: &mut Writer) {");
    code.line(format!("writer.map({});", structure.fields.len()));
    for field in &structure.fields {
        let arguments = [format!("\"{}\"", field.name), format!("&self.{}", snake_case(&field.name))];
        code.call_within("writer.field(", &arguments, ");", ARGUMENTS_WIDTH, true);
    }
    code.close("}");
    code.gap();
    code.open("fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {");
    read_fields(code, structure);
    code.close("}");
    code.close("}");
}

fn read_fields(code: &mut Code, structure: &Structure) {
    if structure.fields.is_empty() {
        code.open("for _ in 0..reader.map()? {");
        code.line("reader.key()?;");
        code.line("reader.skip()?;");
        code.close("}");
        code.line("Ok(Self {})");
        return;
    }
    for field in &structure.fields {
        code.line(format!("let mut {} = None;", snake_case(&field.name)));
    }
    code.open("for _ in 0..reader.map()? {");
    code.open("match reader.key()? {");
    for field in &structure.fields {
        let arguments = [format!("&mut {}", snake_case(&field.name)), format!("\"{}\"", field.name)];
        let head = format!("b\"{}\" => reader.field(", field.name);
        code.call_within(&head, &arguments, ")?,", ARGUMENTS_WIDTH, true);
    }
    code.line("_ => reader.skip()?,");
    code.close("}");
    code.close("}");
    code.open("Ok(Self {");
    for field in &structure.fields {
        let name = snake_case(&field.name);
        let arguments = [name.clone(), format!("\"{}\"", field.name)];
        code.call_within(&format!("{name}: reader.required("), &arguments, ")?,", ARGUMENTS_WIDTH, true);
    }
    code.close("})");
}

/// The method of a command.
fn method(command: &Command) -> String {
    let name = snake_case(&command.name);
    if is_reserved(Language::Rust, &name) { format!("{name}_") } else { name }
}

fn client(code: &mut Code, schema: &Schema) {
    let service = schema.service_pascal();
    code.line(format!("/// A client of {}. Clones share one connection.", schema.service));
    code.line("///");
    code.line("/// Methods wait without a limit of their own, for whoever polls them; dropping the future gives");
    code.line("/// the call up. Those that end in `_within` wait on the calling thread.");
    code.line("#[derive(Clone, Debug)]");
    code.open(format!("pub struct {service}Client {{"));
    code.line("connection: Connection,");
    code.close("}");
    code.gap();
    code.open(format!("impl {service}Client {{"));
    code.line("/// Connects to a server, whose schema must be the same.");
    code.line("///");
    code.line("/// # Errors");
    code.line("/// No server, another schema, or no answer in time.");
    code.open("pub fn connect(path: &Path) -> Result<Self, ConnectError> {");
    code.line("Self::connect_with(path, &ConnectOptions::new(SCHEMA_HASH))");
    code.close("}");
    code.gap();
    code.line("/// Connects to a server in another way than the usual one.");
    code.line("///");
    code.line("/// # Errors");
    code.line("/// No server, another schema, or no answer in time.");
    code.open("pub fn connect_with(path: &Path, options: &ConnectOptions) -> Result<Self, ConnectError> {");
    code.line(format!("let connection = Connection::open(path, options, \"{}\")?;", schema.error_name()));
    code.line("Ok(Self { connection })");
    code.close("}");
    for command in &schema.commands {
        client_method(code, command);
    }
    code.close("}");
}

fn client_method(code: &mut Code, command: &Command) {
    let (request, response, method) = (&command.request.name, command.response.name(), method(command));
    let names = [format!("\"{request}\""), "request".to_owned(), format!("\"{response}\"")];
    let request_argument = format!("request: &{request}");
    code.gap();
    code.docs("///", &command.docs);
    if !command.docs.is_empty() {
        code.line("///");
    }
    if command.is_stream {
        code.line("/// At most `credit` responses are under way before they are taken.");
        code.line("///");
    }
    code.line("/// # Errors");
    code.line("/// The service's, the transport's, and a response that is none.");
    if command.is_stream {
        let arguments = ["&self".to_owned(), request_argument, "credit: u32".to_owned()];
        let tail = format!(") -> Result<ItemStream<{response}>, ServiceError> {{");
        code.open_call(&format!("pub fn {method}("), &arguments, &tail);
        chain(code, "stream", &[&names[..], &["credit".to_owned()]].concat(), "");
        code.close("}");
        return;
    }
    let arguments = ["&self".to_owned(), request_argument.clone()];
    let tail = format!(") -> Result<{response}, ServiceError> {{");
    code.open_call(&format!("pub async fn {method}("), &arguments, &tail);
    chain(code, "call", &names, ".await");
    code.close("}");
    code.gap();
    code.docs("///", &command.docs);
    if !command.docs.is_empty() {
        code.line("///");
    }
    code.line("/// # Errors");
    code.line("/// The service's, the transport's, no response in time, and a response that is none.");
    let arguments = ["&self".to_owned(), request_argument, "limit: Duration".to_owned()];
    code.open_call(&format!("pub fn {method}_within("), &arguments, &tail);
    chain(code, "call_within", &[&names[..], &["limit".to_owned()]].concat(), "");
    code.close("}");
}

/// A call on the connection as the body of a function.
fn chain(code: &mut Code, method: &str, arguments: &[String], tail: &str) {
    let line = format!("self.connection.{method}({}){tail}", arguments.join(", "));
    if line.chars().count() <= CHAIN_WIDTH && code.fits(&line) {
        code.line(line);
        return;
    }
    code.open("self.connection");
    code.call_within(&format!(".{method}("), arguments, ")", ARGUMENTS_WIDTH, true);
    if !tail.is_empty() {
        code.line(tail);
    }
    code.dedent();
}

fn handler(code: &mut Code, schema: &Schema) {
    let service = schema.service_pascal();
    code.line(format!("/// What a server of {} does.", schema.service));
    code.line("///");
    code.line("/// Methods run on the thread that serves all connections, so they must not block: answer at once,");
    code.line("/// or move the responder to where the answer will be found. A responder that is dropped answers");
    code.line("/// with an error.");
    code.open(format!("pub trait {service}Handler: Send + Sync + 'static {{"));
    for (index, command) in schema.commands.iter().enumerate() {
        if index > 0 {
            code.gap();
        }
        code.docs("///", &command.docs);
        if command.docs.is_empty() {
            code.line("#[allow(missing_docs)]");
        }
        let responder = if command.is_stream { "StreamResponder" } else { "Responder" };
        let arguments = [
            "&self".to_owned(),
            format!("request: {}", command.request.name),
            format!("responder: {responder}<{}>", command.response.name()),
        ];
        code.call(&format!("fn {}(", method(command)), &arguments, ");");
    }
    if !schema.commands.is_empty() {
        code.gap();
    }
    code.line("/// A connection was opened, closed or refused.");
    code.line("fn event(&self, _event: ConnectionEvent<'_>) {}");
    code.close("}");
}

fn server(code: &mut Code, schema: &Schema) {
    let service = schema.service_pascal();
    let error = schema.error_name();
    code.line("/// A handler in the form that `tine_ipc::Reactor::listen` takes.");
    code.line("#[derive(Clone, Debug)]");
    code.line(format!("pub struct {service}Server<H>(pub H);"));
    code.gap();
    code.open(format!("impl<H: {service}Handler> tine_ipc::Handler for {service}Server<H> {{"));
    code.open("fn call(&self, request: tine_ipc::Request<'_>, responder: tine_ipc::Responder) {");
    code.open_call(
        "let Some((name, call)) = Incoming::open(",
        &["&request".to_owned(), "responder".to_owned(), format!("\"{error}\"")],
        ") else {",
    );
    code.line("return;");
    code.close("};");
    code.open("match name {");
    for command in &schema.commands {
        let accept = if command.is_stream { "accept_stream" } else { "accept" };
        code.open(format!("\"{}\" => {{", command.request.name));
        code.open(format!("if let Some((request, responder)) = call.{accept}(\"{}\") {{", command.response.name()));
        code.line(format!("self.0.{}(request, responder);", method(command)));
        code.close("}");
        code.close("}");
    }
    code.line("_ => call.refuse_unknown(name),");
    code.close("}");
    code.close("}");
    code.gap();
    code.open("fn event(&self, event: ConnectionEvent<'_>) {");
    code.line("self.0.event(event);");
    code.close("}");
    code.gap();
    code.open("fn plain_error(&self, code: &str, message: &str) -> Option<Vec<u8>> {");
    let arguments = [format!("\"{error}\""), "code".to_owned(), "message".to_owned()];
    code.call_within("let error = ErrorResponse::encode_plain(", &arguments, ");", ARGUMENTS_WIDTH, true);
    code.line("Some(error)");
    code.close("}");
    code.close("}");
}

fn primitive(primitive: Primitive) -> &'static str {
    match primitive {
        Primitive::Bool => "bool",
        Primitive::U8 => "u8",
        Primitive::U16 => "u16",
        Primitive::U32 => "u32",
        Primitive::U64 => "u64",
        Primitive::F64 => "f64",
        Primitive::String => "String",
        Primitive::Bytes => "Vec<u8>",
        Primitive::Bin32 => "[u8; 32]",
    }
}

fn type_text(schema: &Schema, ty: &Type) -> String {
    match ty {
        Type::Primitive(ty) => primitive(*ty).to_owned(),
        Type::Alias(index) => schema.aliases[*index].name.clone(),
        Type::Structure(name) => name.clone(),
        Type::Optional(inner) => format!("Option<{}>", type_text(schema, inner)),
        Type::List(inner) => format!("Vec<{}>", element_text(schema, inner)),
        Type::FixedList(inner, length) => format!("[{}; {length}]", element_text(schema, inner)),
    }
}

/// The type of a list's elements: several plain `u8` would be a byte string.
fn element_text(schema: &Schema, ty: &Type) -> String {
    let is_u8 = match ty {
        Type::Primitive(ty) => *ty == Primitive::U8,
        Type::Alias(index) => schema.aliases[*index].target == Primitive::U8,
        _ => false,
    };
    if is_u8 { "tine_msgpack::Octet".to_owned() } else { type_text(schema, ty) }
}

fn has_floats(schema: &Schema, ty: &Type, with_floats: &HashSet<&str>) -> bool {
    match ty {
        Type::Primitive(ty) => *ty == Primitive::F64,
        Type::Alias(index) => schema.aliases[*index].target == Primitive::F64,
        Type::Structure(name) => with_floats.contains(name.as_str()),
        Type::Optional(inner) | Type::List(inner) | Type::FixedList(inner, _) => has_floats(schema, inner, with_floats),
    }
}

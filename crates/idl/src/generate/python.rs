//! Python: dataclasses with codecs and a client, on the package of `sdks/python`.
//!
//! The layout is that of `black` with lines of 100 characters.

use super::{
    Language,
    code::{Code, plain},
    error_structure, head_line,
};
use crate::{
    Alias, Command, Primitive, Response, Schema, Structure, Type,
    names::{is_reserved, snake_case},
};

const WIDTH: usize = 100;

pub(super) fn generate(schema: &Schema) -> String {
    let mut code = Code::new("    ", WIDTH);
    code.line(format!("# {}", head_line(schema)));
    let docs = match schema.docs.as_slice() {
        [] => vec![format!("A client of the service {}.", schema.service)],
        lines => lines.to_vec(),
    };
    docstring(&mut code, &docs);
    code.gap();
    code.line("from __future__ import annotations");
    code.gap();
    code.line("from dataclasses import dataclass");
    code.line("from typing import Optional");
    code.gap();
    code.line("import tine_ipc as _ipc");
    code.gap();
    code.line("# SHA-256 of the schema: client and server compare it when they meet.");
    code.open("SCHEMA_HASH = bytes.fromhex(");
    code.line(format!("\"{}\"", schema.hash_hex()));
    code.close(")");
    for alias in &schema.aliases {
        self::alias(&mut code, alias);
    }
    for structure in schema.structures() {
        self::structure(&mut code, schema, structure);
    }
    self::structure(&mut code, schema, &error_structure(schema));
    for command in &schema.commands {
        if let Response::SameAs { name, shape } = &command.response {
            code.gap();
            code.gap();
            code.line(format!("# The response of {}.", command.request.name));
            code.line(format!("{name} = {shape}"));
        }
    }
    client(&mut code, schema);
    code.finish()
}

fn alias(code: &mut Code, alias: &Alias) {
    let name = &alias.name;
    code.gap();
    if !alias.is_nominal() {
        code.docs("#", &alias.docs);
        code.line(format!("{name} = {}", primitive_type(alias.target)));
        return;
    }
    code.gap();
    code.line("@dataclass(frozen=True)");
    code.open(format!("class {name}:"));
    docstring(code, &alias.docs);
    if !alias.docs.is_empty() {
        code.gap();
    }
    code.line("value: bytes");
    code.dedent();
    code.gap();
    code.gap();
    code.line(format!("{name}._codec = _ipc.Nominal({name}, 32)"));
}

fn structure(code: &mut Code, schema: &Schema, structure: &Structure) {
    let own = &structure.name;
    code.gap();
    code.gap();
    code.line("@dataclass");
    code.open(format!("class {own}:"));
    let field_docs = structure.fields.iter().filter(|field| !field.docs.is_empty()).map(|field| {
        let text = field.docs.join(" ");
        format!("{}: {text}", name(&field.name))
    });
    let mut lines = structure.docs.clone();
    let field_docs: Vec<String> = field_docs.collect();
    if !lines.is_empty() && !field_docs.is_empty() {
        lines.push(String::new());
    }
    lines.extend(field_docs);
    docstring(code, &lines);
    if structure.fields.is_empty() {
        if lines.is_empty() {
            code.line("pass");
        }
    } else if !lines.is_empty() {
        code.gap();
    }
    // Fields with a default value come last in a dataclass, whatever their order on the wire.
    let (optional, required): (Vec<_>, Vec<_>) =
        structure.fields.iter().partition(|field| matches!(field.ty, Type::Optional(_)));
    for field in required.iter().chain(&optional) {
        let default = if matches!(field.ty, Type::Optional(_)) { " = None" } else { "" };
        code.line(format!("{}: {}{default}", name(&field.name), type_text(schema, &field.ty)));
    }
    code.dedent();
    code.gap();
    code.gap();
    code.open(format!("{own}._codec = _ipc.Structure("));
    code.line(format!("{own},"));
    if structure.fields.is_empty() {
        code.line("[],");
    } else {
        code.open("[");
        for field in &structure.fields {
            let arguments =
                [format!("\"{}\"", field.name), format!("\"{}\"", name(&field.name)), codec(schema, &field.ty)];
            code.call("(", &arguments, "),");
        }
        code.close("],");
    }
    code.close(")");
}

fn client(code: &mut Code, schema: &Schema) {
    let service = schema.service_pascal();
    code.gap();
    code.gap();
    code.open(format!("class {service}Client(_ipc.Client):"));
    let docs = [
        format!("A client of {}. Any thread may use it, and it closes at the end of a `with`.", schema.service),
        String::new(),
        "Calls raise ServiceError, CallError and DecodeError; `limit` is in seconds.".to_owned(),
    ];
    docstring(code, &docs);
    code.gap();
    code.open("def __init__(self, path: str, limit: float = 5.0):");
    code.line("\"\"\"Connects to a server, whose schema must be the same.\"\"\"");
    code.line(format!("super().__init__(path, SCHEMA_HASH, \"{}\", limit)", schema.error_name()));
    code.dedent();
    for command in &schema.commands {
        client_methods(code, command);
    }
}

fn client_methods(code: &mut Code, command: &Command) {
    let (request, response, method) = (&command.request.name, command.response.name(), method(command));
    let named =
        [format!("\"{request}\""), "request".to_owned(), format!("\"{response}\""), format!("{response}._codec")];
    code.gap();
    if command.is_stream {
        let arguments = ["self".to_owned(), format!("request: {request}"), "credit: int = 64".to_owned()];
        code.open_call(&format!("def {method}("), &arguments, &format!(") -> _ipc.ItemStream[{response}]:"));
        let mut docs = command.docs.clone();
        docs.push("Closing the stream, or leaving its `with`, cancels what has not come.".to_owned());
        docstring(code, &docs);
        code.call("return self._stream(", &[&named[..], &["credit".to_owned()]].concat(), ")");
        code.dedent();
        return;
    }
    let arguments = ["self".to_owned(), format!("request: {request}"), "limit: float = 30.0".to_owned()];
    code.open_call(&format!("def {method}("), &arguments, &format!(") -> {response}:"));
    docstring(code, &command.docs);
    code.call("return self._call(", &[&named[..], &["limit".to_owned()]].concat(), ")");
    code.dedent();
    code.gap();
    code.open_call(&format!("async def {method}_async("), &arguments, &format!(") -> {response}:"));
    let mut docs = command.docs.clone();
    docs.push("Waits in the running event loop.".to_owned());
    docstring(code, &docs);
    code.call("return await self._call_async(", &[&named[..], &["limit".to_owned()]].concat(), ")");
    code.dedent();
}

fn docstring(code: &mut Code, lines: &[String]) {
    let lines: Vec<String> = lines.iter().map(|line| plain(line).replace('\\', "\\\\").replace('"', "\\\"")).collect();
    match lines.as_slice() {
        [] => {}
        [line] => code.line(format!("\"\"\"{line}\"\"\"")),
        [first, rest @ ..] => {
            code.line(format!("\"\"\"{first}"));
            for line in rest {
                code.line(line.trim_end());
            }
            code.line("\"\"\"");
        }
    }
}

/// A name in snake case that is no reserved word.
fn name(text: &str) -> String {
    let name = snake_case(text);
    if is_reserved(Language::Python, &name) { format!("{name}_") } else { name }
}

fn method(command: &Command) -> String {
    let name = name(&command.name);
    // The client's own.
    if name == "close" { format!("{name}_") } else { name }
}

fn primitive_type(primitive: Primitive) -> &'static str {
    match primitive {
        Primitive::Bool => "bool",
        Primitive::U8 | Primitive::U16 | Primitive::U32 | Primitive::U64 => "int",
        Primitive::F64 => "float",
        Primitive::String => "str",
        Primitive::Bytes | Primitive::Bin32 => "bytes",
    }
}

fn type_text(schema: &Schema, ty: &Type) -> String {
    match ty {
        Type::Primitive(ty) => primitive_type(*ty).to_owned(),
        Type::Alias(index) => schema.aliases[*index].name.clone(),
        Type::Structure(name) => name.clone(),
        Type::Optional(inner) => format!("Optional[{}]", type_text(schema, inner)),
        Type::List(inner) | Type::FixedList(inner, _) => format!("list[{}]", type_text(schema, inner)),
    }
}

/// The expression that reads and writes a type.
fn codec(schema: &Schema, ty: &Type) -> String {
    match ty {
        Type::Primitive(ty) => primitive_codec(*ty).to_owned(),
        Type::Alias(index) => {
            let alias = &schema.aliases[*index];
            if alias.is_nominal() { format!("{}._codec", alias.name) } else { primitive_codec(alias.target).to_owned() }
        }
        Type::Structure(name) => format!("{name}._codec"),
        Type::Optional(inner) => format!("_ipc.Optional({})", codec(schema, inner)),
        Type::List(inner) => format!("_ipc.List({})", codec(schema, inner)),
        Type::FixedList(inner, length) => format!("_ipc.FixedList({}, {length})", codec(schema, inner)),
    }
}

fn primitive_codec(primitive: Primitive) -> &'static str {
    match primitive {
        Primitive::Bool => "_ipc.BOOL",
        Primitive::U8 => "_ipc.U8",
        Primitive::U16 => "_ipc.U16",
        Primitive::U32 => "_ipc.U32",
        Primitive::U64 => "_ipc.U64",
        Primitive::F64 => "_ipc.F64",
        Primitive::String => "_ipc.STRING",
        Primitive::Bytes => "_ipc.BYTES",
        Primitive::Bin32 => "_ipc.FixedBytes(32)",
    }
}

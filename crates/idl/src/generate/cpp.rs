//! C++ 20: aggregates with `read` and `write`, a client class, a handler class and a server class, on the headers of
//! `sdks/cpp`.
//!
//! The layout is that of `clang-format` in Google's style with lines of 100 characters.

use super::{
    Language,
    code::{Code, plain},
    head_line,
};
use crate::{
    Alias, Command, Field, Primitive, Response, Schema, Structure, Type,
    names::{is_reserved, snake_case},
};

const WIDTH: usize = 100;

pub(super) fn generate(schema: &Schema) -> String {
    let mut code = Code::new("  ", WIDTH);
    let namespace = name(&schema.service);
    code.line(format!("// {}", head_line(schema)));
    code.line("#pragma once");
    code.gap();
    for header in ["array", "cstddef", "cstdint", "optional", "string", "utility", "vector"] {
        code.line(format!("#include <{header}>"));
    }
    code.gap();
    code.line("#include \"tine/ipc.hpp\"");
    code.gap();
    docs(&mut code, &schema.docs);
    code.line(format!("namespace {namespace} {{"));
    code.gap();
    hash(&mut code, schema);
    code.gap();
    code.line(format!("/// What calls of {} are answered with when they fail.", schema.service));
    code.line(format!("using {} = tine::ErrorResponse;", schema.error_name()));
    for alias in &schema.aliases {
        code.gap();
        self::alias(&mut code, alias);
    }
    for structure in schema.structures() {
        code.gap();
        self::structure(&mut code, schema, structure);
    }
    for command in &schema.commands {
        if let Response::SameAs { name, shape } = &command.response {
            code.gap();
            code.line(format!("/// The response of {}.", command.request.name));
            code.line(format!("using {name} = {shape};"));
        }
    }
    code.gap();
    client(&mut code, schema);
    code.gap();
    handler(&mut code, schema);
    code.gap();
    server(&mut code, schema);
    code.gap();
    code.line(format!("}}  // namespace {namespace}"));
    code.finish()
}

fn hash(code: &mut Code, schema: &Schema) {
    code.line("/// SHA-256 of the schema: client and server compare it when they meet.");
    code.line("inline constexpr tine::SchemaHash kSchemaHash{");
    let bytes: Vec<String> = schema.hash().iter().map(|byte| format!("0x{byte:02x}")).collect();
    let lines: Vec<String> = bytes.chunks(15).map(|line| line.join(", ")).collect();
    code.indent();
    code.indent();
    for (index, line) in lines.iter().enumerate() {
        let end = if index + 1 == lines.len() { "};" } else { "," };
        code.line(format!("{line}{end}"));
    }
    code.dedent();
    code.dedent();
}

fn alias(code: &mut Code, alias: &Alias) {
    let name = &alias.name;
    docs(code, &alias.docs);
    if !alias.is_nominal() {
        code.line(format!("using {name} = {};", primitive(alias.target)));
        return;
    }
    code.open(format!("struct {name} {{"));
    code.line("std::array<std::uint8_t, 32> bytes{};");
    code.gap();
    code.line(format!("bool operator==(const {name}&) const = default;"));
    code.close("};");
    code.gap();
    code.line(format!(
        "inline void write(tine::Writer& writer, const {name}& value) {{ write(writer, value.bytes); }}"
    ));
    code.gap();
    code.line(format!("inline void read(tine::Reader& reader, {name}& value) {{ read(reader, value.bytes); }}"));
}

fn structure(code: &mut Code, schema: &Schema, structure: &Structure) {
    let (own, fields) = (&structure.name, &structure.fields);
    docs(code, &structure.docs);
    code.open(format!("struct {own} {{"));
    for field in fields {
        docs(code, &field.docs);
        code.line(format!("{} {}{{}};", type_text(schema, &field.ty), name(&field.name)));
    }
    if !fields.is_empty() {
        code.gap();
    }
    code.line(format!("bool operator==(const {own}&) const = default;"));
    code.close("};");
    code.gap();
    let value = if fields.is_empty() { String::new() } else { " value".to_owned() };
    let arguments = ["tine::Writer& writer".to_owned(), format!("const {own}&{value}")];
    code.open_call("inline void write(", &arguments, ") {");
    code.line(format!("writer.map({});", fields.len()));
    for field in fields {
        code.line(format!("writer.field(\"{}\", value.{});", field.name, name(&field.name)));
    }
    code.close("}");
    code.gap();
    let arguments = ["tine::Reader& reader".to_owned(), format!("{own}&{value}")];
    code.open_call("inline void read(", &arguments, ") {");
    read_fields(code, fields);
    code.close("}");
}

fn read_fields(code: &mut Code, fields: &[Field]) {
    if fields.is_empty() {
        code.line("static constexpr std::array<tine::FieldName, 0> names{};");
        code.line("reader.fields(names, [](std::size_t) {});");
        return;
    }
    code.open(format!("static constexpr std::array<tine::FieldName, {}> names{{{{", fields.len()));
    for field in fields {
        let is_required = !matches!(field.ty, Type::Optional(_));
        code.line(format!("{{\"{}\", {is_required}}},", field.name));
    }
    code.close("}};");
    code.open("reader.fields(names, [&](std::size_t field) {");
    code.open("switch (field) {");
    for (index, field) in fields.iter().enumerate() {
        let is_last = index + 1 == fields.len();
        code.open(if is_last { "default:".to_owned() } else { format!("case {index}:") });
        code.line(format!("read(reader, value.{});", name(&field.name)));
        if !is_last {
            code.line("break;");
        }
        code.dedent();
    }
    code.close("}");
    code.close("});");
}

fn client(code: &mut Code, schema: &Schema) {
    let service = schema.service_pascal();
    code.line(format!("/// A client of {}. Copies share one connection; any thread may use it.", schema.service));
    code.line(format!("class {service}Client {{"));
    code.line(" public:");
    code.indent();
    code.line("/// Connects to a server, whose schema must be the same. Throws tine::ConnectError.");
    code.line(format!("explicit {service}Client(const std::string& path,"));
    let indent = " ".repeat(format!("explicit {service}Client(").len());
    code.line(format!("{indent}tine::Milliseconds limit = tine::kConnectLimit)"));
    code.line(format!("    : connection_(path, &kSchemaHash, \"{}\", limit) {{}}", schema.error_name()));
    for command in &schema.commands {
        client_methods(code, command);
    }
    code.dedent();
    code.gap();
    code.line(" private:");
    code.indent();
    code.line("tine::Connection connection_;");
    code.close("};");
}

fn client_methods(code: &mut Code, command: &Command) {
    let (request, response, method) = (&command.request.name, command.response.name(), method(command));
    let body = |code: &mut Code, verb: &str, more: &str| {
        let arguments = [format!("\"{request}\""), "request".to_owned(), format!("\"{response}\"{more}")];
        aligned(code, &format!("return connection_.{verb}<{response}>("), &arguments, ");");
    };
    code.gap();
    docs(code, &command.docs);
    if command.is_stream {
        code.line("/// At most `credit` responses are under way before they are taken.");
        let arguments = [format!("const {request}& request"), "std::uint32_t credit = 64".to_owned()];
        aligned(code, &format!("tine::ItemStream<{response}> {method}("), &arguments, ") const {");
        code.indent();
        body(code, "stream", ", credit");
        code.close("}");
        return;
    }
    code.line("/// Throws tine::ServiceError, tine::CallError and tine::DecodeError.");
    let arguments = [format!("const {request}& request"), "tine::Milliseconds limit = tine::kCallLimit".to_owned()];
    aligned(code, &format!("{response} {method}("), &arguments, ") const {");
    code.indent();
    body(code, "call", ", limit");
    code.close("}");
    code.gap();
    code.line("/// Sends the request; the response is waited for later.");
    let arguments = [format!("const {request}& request")];
    aligned(code, &format!("tine::Pending<{response}> submit_{method}("), &arguments, ") const {");
    code.indent();
    body(code, "submit", "");
    code.close("}");
}

/// A call on one line, or with its arguments below one another.
fn aligned(code: &mut Code, head: &str, arguments: &[String], tail: &str) {
    let line = format!("{head}{}{tail}", arguments.join(", "));
    if code.fits(&line) {
        code.line(line);
        return;
    }
    let indent = " ".repeat(head.chars().count());
    for (index, argument) in arguments.iter().enumerate() {
        let start = if index == 0 { head } else { &indent };
        let end = if index + 1 == arguments.len() { tail } else { "," };
        code.line(format!("{start}{argument}{end}"));
    }
}

fn responder(command: &Command) -> String {
    let kind = if command.is_stream { "StreamResponder" } else { "Responder" };
    format!("tine::{kind}<{}>", command.response.name())
}

fn handler(code: &mut Code, schema: &Schema) {
    let service = schema.service_pascal();
    code.line(format!(
        "/// What a server of {} does. Responders answer now or later, from any thread.",
        schema.service
    ));
    code.line(format!("class {service}Handler {{"));
    code.line(" public:");
    code.indent();
    code.line(format!("virtual ~{service}Handler() = default;"));
    for command in &schema.commands {
        code.gap();
        docs(code, &command.docs);
        let arguments = [format!("{} request", command.request.name), format!("{} responder", responder(command))];
        aligned(code, &format!("virtual void {}(", method(command)), &arguments, ") = 0;");
    }
    code.close("};");
}

fn server(code: &mut Code, schema: &Schema) {
    let service = schema.service_pascal();
    code.line(format!("/// Serves {} on a path that ends in .sock or .shm.", schema.service));
    code.line(format!("class {service}Server {{"));
    code.line(" public:");
    code.indent();
    code.line("/// Listens; requests wait until `run`. Throws tine::ConnectError.");
    let arguments = [
        "const std::string& path".to_owned(),
        format!("{service}Handler& handler"),
        "std::uint32_t clients_max = 1024".to_owned(),
    ];
    aligned(code, &format!("{service}Server("), &arguments, ")");
    code.line(format!(
        "    : server_(path, &kSchemaHash, \"{}\", clients_max), handler_(handler) {{}}",
        schema.error_name()
    ));
    code.gap();
    code.line("/// Handles requests on this thread, and on any other that runs it, until `shutdown`.");
    code.open("void run() {");
    code.line("server_.run([this](tine::Incoming& incoming) { dispatch(incoming); });");
    code.close("}");
    code.gap();
    code.line("/// Makes every `run` return.");
    code.line("void shutdown() { server_.shutdown(); }");
    code.dedent();
    code.gap();
    code.line(" private:");
    code.indent();
    code.open("void dispatch(tine::Incoming& incoming) {");
    code.line("const std::string_view name = incoming.read_name();");
    for (index, command) in schema.commands.iter().enumerate() {
        dispatch(code, command, index == 0);
    }
    if schema.commands.is_empty() {
        code.line("tine::Reader::unknown_message(name);");
    } else {
        code.turn("} else {");
        code.line("tine::Reader::unknown_message(name);");
        code.close("}");
    }
    code.close("}");
    code.gap();
    code.line("tine::Server server_;");
    code.line(format!("{service}Handler& handler_;"));
    code.close("};");
}

fn dispatch(code: &mut Code, command: &Command, is_first: bool) {
    let (request, response) = (&command.request.name, command.response.name());
    let kind = if command.is_stream { "tine::StreamResponder" } else { "tine::Responder" };
    let condition = format!("if (name == \"{request}\") {{");
    if is_first {
        code.open(condition);
    } else {
        code.turn(format!("}} else {condition}"));
    }
    code.line(format!("incoming.accept<{request}, {kind}, {response}>("));
    code.line(format!("    \"{response}\", [this](auto request, auto responder) {{"));
    code.indent();
    code.indent();
    code.indent();
    code.line(format!("handler_.{}(std::move(request), std::move(responder));", method(command)));
    code.dedent();
    code.line("});");
    code.dedent();
    code.dedent();
}

fn docs(code: &mut Code, lines: &[String]) {
    for line in lines {
        // A backslash at the end would go on in the next line.
        code.line(format!("/// {}", plain(line).trim_end_matches('\\')).trim_end());
    }
}

/// A name in snake case that is no reserved word.
fn name(text: &str) -> String {
    let name = snake_case(text);
    if is_reserved(Language::Cpp, &name) { format!("{name}_") } else { name }
}

fn method(command: &Command) -> String {
    name(&command.name)
}

fn primitive(primitive: Primitive) -> &'static str {
    match primitive {
        Primitive::Bool => "bool",
        Primitive::U8 => "std::uint8_t",
        Primitive::U16 => "std::uint16_t",
        Primitive::U32 => "std::uint32_t",
        Primitive::U64 => "std::uint64_t",
        Primitive::F64 => "double",
        Primitive::String => "std::string",
        Primitive::Bytes => "tine::Bytes",
        Primitive::Bin32 => "std::array<std::uint8_t, 32>",
    }
}

fn type_text(schema: &Schema, ty: &Type) -> String {
    match ty {
        Type::Primitive(ty) => primitive(*ty).to_owned(),
        Type::Alias(index) => schema.aliases[*index].name.clone(),
        Type::Structure(name) => name.clone(),
        Type::Optional(inner) => format!("std::optional<{}>", type_text(schema, inner)),
        Type::List(inner) => format!("std::vector<{}>", element_text(schema, inner)),
        Type::FixedList(inner, length) => format!("std::array<{}, {length}>", element_text(schema, inner)),
    }
}

/// The type of a list's elements: several plain bytes would be a byte string.
fn element_text(schema: &Schema, ty: &Type) -> String {
    let is_u8 = match ty {
        Type::Primitive(ty) => *ty == Primitive::U8,
        Type::Alias(index) => schema.aliases[*index].target == Primitive::U8,
        _ => false,
    };
    if is_u8 { "tine::Octet".to_owned() } else { type_text(schema, ty) }
}

//! Zig: structures with codecs, a client and a server's dispatcher, on the module of `sdks/zig`.
//!
//! The layout is that of `zig fmt`.

use super::{
    Language,
    code::{Code, plain},
    error_structure, head_line,
};
use crate::{
    Alias, Command, Field, Primitive, Response, Schema, Structure, Type,
    names::{camel_case, is_reserved, snake_case},
};

/// Width beyond which arguments go on lines of their own; `zig fmt` keeps either form.
const WIDTH: usize = 100;

pub(super) fn generate(schema: &Schema) -> String {
    let mut code = Code::new("    ", WIDTH);
    code.line(format!("// {}", head_line(schema)));
    code.gap();
    code.line("const std = @import(\"std\");");
    code.line("const ipc = @import(\"tine_ipc\");");
    code.gap();
    hash(&mut code, schema);
    for alias in &schema.aliases {
        code.gap();
        self::alias(&mut code, alias);
    }
    let error = error_structure(schema);
    for structure in schema.structures().chain([&error]) {
        code.gap();
        self::structure(&mut code, schema, structure);
    }
    for command in &schema.commands {
        if let Response::SameAs { name, shape } = &command.response {
            code.gap();
            code.line(format!("/// The response of {}.", command.request.name));
            code.line(format!("pub const {name} = {shape};"));
        }
    }
    code.gap();
    codecs(&mut code, schema, &error);
    code.gap();
    client(&mut code, schema);
    code.gap();
    server(&mut code, schema);
    code.finish()
}

fn hash(code: &mut Code, schema: &Schema) {
    code.line("/// SHA-256 of the schema: client and server compare it when they meet.");
    code.open("pub const schema_hash = [32]u8{");
    let bytes: Vec<String> = schema.hash().iter().map(|byte| format!("0x{byte:02x}")).collect();
    for line in bytes.chunks(16) {
        code.line(format!("{},", line.join(", ")));
    }
    code.close("};");
}

fn alias(code: &mut Code, alias: &Alias) {
    docs(code, &alias.docs);
    if alias.is_nominal() {
        code.line(format!("pub const {} = struct {{ bytes: [32]u8 }};", alias.name));
    } else {
        code.line(format!("pub const {} = {};", alias.name, primitive_type(alias.target)));
    }
}

fn structure(code: &mut Code, schema: &Schema, structure: &Structure) {
    docs(code, &structure.docs);
    if structure.fields.is_empty() {
        code.line(format!("pub const {} = struct {{}};", structure.name));
        return;
    }
    code.open(format!("pub const {} = struct {{", structure.name));
    for field in &structure.fields {
        docs(code, &field.docs);
        let default = if matches!(field.ty, Type::Optional(_)) { " = null" } else { "" };
        code.line(format!("{}: {}{default},", snake_case(&field.name), type_text(schema, &field.ty)));
    }
    code.close("};");
}

/// The codecs are in a scope of their own: a structure's fields and declarations share one.
fn codecs(code: &mut Code, schema: &Schema, error: &Structure) {
    code.line("/// How each type is written and read.");
    code.open("pub const codecs = struct {");
    for alias in schema.aliases.iter().filter(|alias| alias.is_nominal()) {
        code.line(format!("pub const {0} = ipc.codec.Nominal(types.{0}, 32);", alias.name));
    }
    for structure in schema.structures().chain([error]) {
        codec_of(code, schema, structure);
    }
    for command in &schema.commands {
        if let Response::SameAs { name, shape } = &command.response {
            code.line(format!("pub const {name} = codecs.{shape};"));
        }
    }
    code.close("};");
    code.line("const types = @This();");
}

fn codec_of(code: &mut Code, schema: &Schema, structure: &Structure) {
    let name = &structure.name;
    if structure.fields.is_empty() {
        code.line(format!("pub const {name} = ipc.codec.Structure(types.{name}, .{{}});"));
        return;
    }
    code.open(format!("pub const {name} = ipc.codec.Structure(types.{name}, .{{"));
    for Field { name, ty, .. } in &structure.fields {
        code.line(format!(".{{ \"{name}\", \"{}\", {} }},", snake_case(name), codec(schema, ty)));
    }
    code.close("});");
}

fn client(code: &mut Code, schema: &Schema) {
    let service = schema.service_pascal();
    code.line(format!("/// A client of {}. Answers lie in the arena that a call is given.", schema.service));
    code.open(format!("pub const {service}Client = struct {{"));
    code.line("connection: ipc.Connection,");
    code.gap();
    code.line("/// Connects to a server, whose schema must be the same.");
    let arguments = ["gpa: std.mem.Allocator".to_owned(), "path: [:0]const u8".to_owned()];
    code.open_call("pub fn connect(", &arguments, &format!(") ipc.TransportError!{service}Client {{"));
    let arguments = [
        "gpa".to_owned(),
        "path".to_owned(),
        "&schema_hash".to_owned(),
        format!("\"{}\"", schema.error_name()),
        "ipc.connect_limit_ms".to_owned(),
    ];
    code.call("return .{ .connection = try ipc.Connection.open(", &arguments, ") };");
    code.close("}");
    code.gap();
    code.line("/// Ends the connection; calls under way fail.");
    code.open(format!("pub fn close(client: *{service}Client) void {{"));
    code.line("client.connection.close();");
    code.close("}");
    for command in &schema.commands {
        client_methods(code, &service, command);
    }
    code.close("};");
}

fn client_methods(code: &mut Code, service: &str, command: &Command) {
    let (request, response, method) = (&command.request.name, command.response.name(), method(command));
    let codecs = [format!("codecs.{request}"), format!("codecs.{response}")];
    let names = [format!("\"{request}\""), "request".to_owned(), format!("\"{response}\"")];
    let constant = format!("client: *const {service}Client");
    let (arena, request_argument) = ("arena: std.mem.Allocator".to_owned(), format!("request: {request}"));
    code.gap();
    docs(code, &command.docs);
    if command.is_stream {
        code.line("/// At most `credit` responses are under way before they are taken.");
        let arguments = [constant, request_argument, "credit: u32".to_owned()];
        let tail = format!(") ipc.CallError!ipc.ItemStream(codecs.{response}) {{");
        code.open_call(&format!("pub fn {method}("), &arguments, &tail);
        let arguments = [&codecs[..], &names[..], &["credit".to_owned()]].concat();
        code.call("return client.connection.stream(", &arguments, ");");
        code.close("}");
        return;
    }
    let arguments = [constant, arena, request_argument.clone()];
    let tail = format!(") ipc.CallError!ipc.Answer({response}) {{");
    code.open_call(&format!("pub fn {method}("), &arguments, &tail);
    let arguments = [&codecs[..], &["arena".to_owned()], &names[..], &["ipc.call_limit_ms".to_owned()]].concat();
    code.call("return client.connection.call(", &arguments, ");");
    code.close("}");
    code.gap();
    code.line("/// Sends the request; the answer is waited for later.");
    let arguments = [format!("client: *{service}Client"), request_argument];
    let tail = format!(") ipc.CallError!ipc.Pending(codecs.{response}) {{");
    code.open_call(&format!("pub fn {}(", camel_case(&format!("submit_{}", command.name))), &arguments, &tail);
    code.call("return client.connection.submit(", &[&codecs[..], &names[..]].concat(), ");");
    code.close("}");
}

fn server(code: &mut Code, schema: &Schema) {
    let service = schema.service_pascal();
    code.line(format!("/// Serves {} with the methods of a handler:", schema.service));
    code.line("///");
    for command in &schema.commands {
        let kind = if command.is_stream { "StreamResponder" } else { "Responder" };
        let responder = format!("ipc.{kind}(codecs.{})", command.response.name());
        let request = &command.request.name;
        code.line(format!("/// - `fn {}(*Handler, {request}, {responder}) void`", method(command)));
    }
    code.line("///");
    code.line("/// Responders answer now or later, from any thread; a request's memory lives until then.");
    code.open(format!("pub fn {service}Server(comptime Handler: type) type {{"));
    code.open("return struct {");
    code.line("server: ipc.Server,");
    code.line("handler: *Handler,");
    code.gap();
    code.line("const Self = @This();");
    code.gap();
    code.line("/// Listens; requests wait until `run`.");
    let arguments =
        ["gpa: std.mem.Allocator".to_owned(), "path: [:0]const u8".to_owned(), "handler: *Handler".to_owned()];
    code.open_call("pub fn listen(", &arguments, ") ipc.TransportError!Self {");
    let error = schema.error_name();
    code.line(format!("const server = try ipc.Server.listen(gpa, path, &schema_hash, \"{error}\", 1024);"));
    code.line("return .{ .server = server, .handler = handler };");
    code.close("}");
    code.gap();
    code.line("/// Handles requests on this thread, and on any other that runs it, until `shutdown`.");
    code.open("pub fn run(self: *const Self) void {");
    code.line("self.server.run(self.handler, dispatch);");
    code.close("}");
    code.gap();
    code.line("/// Makes every `run` return.");
    code.open("pub fn shutdown(self: *const Self) void {");
    code.line("self.server.shutdown();");
    code.close("}");
    code.gap();
    code.line("/// Ends the server; after every `run` has returned.");
    code.open("pub fn close(self: *Self) void {");
    code.line("self.server.close();");
    code.close("}");
    code.gap();
    dispatch(code, schema);
    code.close("};");
    code.close("}");
}

fn dispatch(code: &mut Code, schema: &Schema) {
    if schema.commands.is_empty() {
        code.open("fn dispatch(incoming: *ipc.Incoming, _: *Handler) void {");
        code.line("incoming.refuse(error.UnknownMessage);");
        code.close("}");
        return;
    }
    code.open("fn dispatch(incoming: *ipc.Incoming, handler: *Handler) void {");
    for (index, command) in schema.commands.iter().enumerate() {
        let (request, response) = (&command.request.name, command.response.name());
        let condition = format!("if (std.mem.eql(u8, incoming.name, \"{request}\")) {{");
        if index == 0 {
            code.open(condition);
        } else {
            code.turn(format!("}} else {condition}"));
        }
        let accept = if command.is_stream { "acceptStream" } else { "accept" };
        let arguments = [
            format!("codecs.{request}"),
            format!("codecs.{response}"),
            format!("\"{response}\""),
            "handler".to_owned(),
            format!("Handler.{}", method(command)),
        ];
        code.call(&format!("incoming.{accept}("), &arguments, ");");
    }
    code.turn("} else {");
    code.line("incoming.refuse(error.UnknownMessage);");
    code.close("}");
    code.close("}");
}

fn docs(code: &mut Code, lines: &[String]) {
    for line in lines {
        code.line(format!("/// {}", plain(line)).trim_end());
    }
}

fn method(command: &Command) -> String {
    let name = camel_case(&command.name);
    // `connect` and `close` are the client's own.
    let is_taken = is_reserved(Language::Zig, &name) || ["connect", "close"].contains(&name.as_str());
    if is_taken { format!("{name}_") } else { name }
}

fn primitive_type(primitive: Primitive) -> &'static str {
    match primitive {
        Primitive::Bool => "bool",
        Primitive::U8 => "u8",
        Primitive::U16 => "u16",
        Primitive::U32 => "u32",
        Primitive::U64 => "u64",
        Primitive::F64 => "f64",
        Primitive::String | Primitive::Bytes => "[]const u8",
        Primitive::Bin32 => "[32]u8",
    }
}

fn type_text(schema: &Schema, ty: &Type) -> String {
    match ty {
        Type::Primitive(ty) => primitive_type(*ty).to_owned(),
        Type::Alias(index) => schema.aliases[*index].name.clone(),
        Type::Structure(name) => name.clone(),
        Type::Optional(inner) => format!("?{}", type_text(schema, inner)),
        Type::List(inner) => format!("[]const {}", type_text(schema, inner)),
        Type::FixedList(inner, length) => format!("[{length}]{}", type_text(schema, inner)),
    }
}

/// The expression that reads and writes a type, inside the scope of the codecs.
fn codec(schema: &Schema, ty: &Type) -> String {
    match ty {
        Type::Primitive(ty) => primitive_codec(*ty).to_owned(),
        Type::Alias(index) => {
            let alias = &schema.aliases[*index];
            if alias.is_nominal() { alias_codec(alias) } else { primitive_codec(alias.target).to_owned() }
        }
        Type::Structure(name) => format!("codecs.{name}"),
        Type::Optional(inner) => format!("ipc.codec.Optional({})", codec(schema, inner)),
        Type::List(inner) => format!("ipc.codec.List({})", codec(schema, inner)),
        Type::FixedList(inner, length) => format!("ipc.codec.FixedList({}, {length})", codec(schema, inner)),
    }
}

fn alias_codec(alias: &Alias) -> String {
    format!("codecs.{}", alias.name)
}

fn primitive_codec(primitive: Primitive) -> &'static str {
    match primitive {
        Primitive::Bool => "ipc.codec.Bool",
        Primitive::U8 => "ipc.codec.U8",
        Primitive::U16 => "ipc.codec.U16",
        Primitive::U32 => "ipc.codec.U32",
        Primitive::U64 => "ipc.codec.U64",
        Primitive::F64 => "ipc.codec.F64",
        Primitive::String => "ipc.codec.String",
        Primitive::Bytes => "ipc.codec.Bytes",
        Primitive::Bin32 => "ipc.codec.FixedBytes(32)",
    }
}

//! TypeScript: interfaces with codecs, a client class, a handler interface and a function that serves it, on the npm
//! package of `sdks/typescript`.
//!
//! The layout is that of `prettier` with lines of 100 characters.

use std::collections::BTreeSet;

use super::{
    Language,
    code::{Code, plain},
    error_structure, head_line,
};
use crate::{
    Alias, Command, Field, Primitive, Response, Schema, Structure, Type,
    names::{camel_case, is_reserved},
};

const WIDTH: usize = 100;

pub(super) fn generate(schema: &Schema) -> String {
    let mut body = Body { code: Code::new("  ", WIDTH), schema, values: BTreeSet::new(), types: BTreeSet::new() };
    body.hash();
    body.code.gap();
    body.structure(&error_structure(schema));
    for alias in &schema.aliases {
        body.code.gap();
        body.alias(alias);
    }
    for structure in schema.structures() {
        body.code.gap();
        body.structure(structure);
    }
    for command in &schema.commands {
        if let Response::SameAs { name, shape } = &command.response {
            body.code.gap();
            body.code.line(format!("/** The response of {}. */", command.request.name));
            body.code.line(format!("export type {name} = {shape};"));
            body.code.line(format!("export const {name} = {shape};"));
        }
    }
    body.code.gap();
    body.client();
    body.code.gap();
    body.handler();
    body.code.gap();
    body.server();
    let mut head = Code::new("  ", WIDTH);
    head.line(format!("// {}", head_line(schema)));
    head.gap();
    body.imports(&mut head);
    head.gap();
    head.finish() + &body.code.finish()
}

struct Body<'a> {
    code: Code,
    schema: &'a Schema,
    /// What is used of the runtime.
    values: BTreeSet<&'static str>,
    types: BTreeSet<&'static str>,
}

impl Body<'_> {
    fn imports(&self, head: &mut Code) {
        import(head, "import", &self.values);
        import(head, "import type", &self.types);
    }

    fn hash(&mut self) {
        self.code.line("/** SHA-256 of the schema: client and server compare it when they meet. */");
        self.code.open("export const SCHEMA_HASH = Uint8Array.from([");
        let bytes: Vec<String> = self.schema.hash().iter().map(|byte| format!("0x{byte:02x}")).collect();
        for line in bytes.chunks(16) {
            self.code.line(format!("{},", line.join(", ")));
        }
        self.code.close("]);");
    }

    fn alias(&mut self, alias: &Alias) {
        let name = &alias.name;
        self.docs(&alias.docs, &[]);
        if !alias.is_nominal() {
            self.code.line(format!("export type {name} = {};", primitive_type(alias.target)));
            return;
        }
        self.values.insert("nominal");
        self.types.insert("Codec");
        self.code.open(format!("export class {name} {{"));
        // Makes the class differ from others of the same shape.
        self.code.line(format!("declare private readonly kind: \"{name}\";"));
        self.code.gap();
        self.code.line("/** Wraps 32 bytes. */");
        self.code.line("constructor(readonly bytes: Uint8Array) {}");
        self.code.gap();
        self.code.line(format!("static readonly codec: Codec<{name}> = nominal({name}, 32);"));
        self.code.close("}");
    }

    fn structure(&mut self, structure: &Structure) {
        let name = &structure.name;
        self.values.insert("structure");
        self.types.insert("Codec");
        self.docs(&structure.docs, &[]);
        if structure.fields.is_empty() {
            self.code.line(format!("export type {name} = Record<string, never>;"));
            self.code.line(format!("export const {name}: Codec<{name}> = structure<{name}>({{}});"));
            return;
        }
        self.values.insert("field");
        self.code.open(format!("export interface {name} {{"));
        for field in &structure.fields {
            self.docs(&field.docs, &[]);
            let field_name = camel_case(&field.name);
            let optional = if matches!(field.ty, Type::Optional(_)) { "?" } else { "" };
            self.code.line(format!("{field_name}{optional}: {};", self.type_text(&field.ty)));
        }
        self.code.close("}");
        self.code.line(format!("export const {name}: Codec<{name}> = structure<{name}>({{"));
        self.code.indent();
        for field in &structure.fields {
            self.field_codec(field);
        }
        self.code.close("});");
    }

    fn field_codec(&mut self, field: &Field) {
        let codec = self.codec(&field.ty);
        let arguments = [format!("\"{}\"", field.name), codec];
        self.code.call(&format!("{}: field(", camel_case(&field.name)), &arguments, "),");
    }

    fn client(&mut self) {
        let (service, error) = (self.schema.service_pascal(), self.schema.error_name());
        self.values.insert("connect");
        self.types.extend(["ConnectOptions", "Connection"]);
        let docs = format!("A client of {}. Any number of calls may be under way.", self.schema.service);
        self.docs(&[docs], &[]);
        self.code.open(format!("export class {service}Client {{"));
        self.code.line("private constructor(private readonly connection: Connection) {}");
        self.code.gap();
        self.code.line("/** Connects to a server, whose schema must be the same. */");
        let arguments = ["path: string".to_owned(), "options: ConnectOptions = {}".to_owned()];
        self.code.open_call("static async connect(", &arguments, &format!("): Promise<{service}Client> {{"));
        self.code.line("const all = { schema: SCHEMA_HASH, ...options };");
        self.code.line(format!("return new {service}Client(await connect(path, \"{error}\", all));"));
        self.code.close("}");
        for command in &self.schema.commands {
            self.code.gap();
            self.client_method(command);
        }
        self.code.gap();
        self.code.line("/** Ends the connection; calls under way fail. */");
        self.code.open("close(): void {");
        self.code.line("this.connection.close();");
        self.code.close("}");
        self.code.close("}");
    }

    fn client_method(&mut self, command: &Command) {
        let (request, response) = (&command.request.name, command.response.name());
        let (verb, bound, result, more) = if command.is_stream {
            let more =
                "At most `credit` responses are under way before they are taken. Leaving the loop cancels the rest.";
            ("stream", "credit", format!("AsyncGenerator<{response}, void, undefined>"), more)
        } else {
            (
                "call",
                "limitMs",
                format!("Promise<{response}>"),
                "Fails after `limitMs` milliseconds without a response.",
            )
        };
        self.docs(&command.docs, &[more]);
        let arguments = [format!("request: {request}"), format!("{bound}?: number")];
        self.code.open_call(&format!("{}(", method(command)), &arguments, &format!("): {result} {{"));
        let arguments = [
            format!("\"{request}\""),
            request.clone(),
            "request".to_owned(),
            format!("\"{response}\""),
            response.to_owned(),
            bound.to_owned(),
        ];
        self.code.call(&format!("return this.connection.{verb}("), &arguments, ");");
        self.code.close("}");
    }

    fn handler(&mut self) {
        let service = self.schema.service_pascal();
        let docs = format!("What a server of {} does.", self.schema.service);
        let answers = [
            "Responders answer now or later. Who returns a promise answers before it settles:",
            "else the client gets an error.",
        ];
        self.docs(&[docs], &answers);
        self.code.open(format!("export interface {service}Handler {{"));
        for command in &self.schema.commands {
            self.docs(&command.docs, &[]);
            let responder = if command.is_stream { "StreamResponder" } else { "Responder" };
            self.types.insert(responder);
            let arguments = [
                format!("request: {}", command.request.name),
                format!("responder: {responder}<{}>", command.response.name()),
            ];
            self.code.call(&format!("{}(", method(command)), &arguments, "): void;");
        }
        self.code.close("}");
    }

    fn server(&mut self) {
        let (service, error) = (self.schema.service_pascal(), self.schema.error_name());
        self.values.insert("serve");
        self.types.extend(["Command", "ServeOptions", "Server"]);
        self.docs(&[format!("Serves {} on a path that ends in .sock or .shm.", self.schema.service)], &[]);
        self.code.open(format!("export async function serve{service}("));
        self.code.line("path: string,");
        self.code.line(format!("handler: {service}Handler,"));
        self.code.line("options: ServeOptions = {},");
        self.code.turn("): Promise<Server> {");
        self.code.open("const commands = new Map<string, Command>([");
        for command in &self.schema.commands {
            let verb = if command.is_stream { "stream" } else { "call" };
            self.values.insert(verb);
            let (request, response) = (&command.request.name, command.response.name());
            self.code.open("[");
            self.code.line(format!("\"{request}\","));
            let arguments = [
                request.clone(),
                format!("\"{response}\""),
                response.to_owned(),
                format!("(request, responder) => handler.{}(request, responder)", method(command)),
            ];
            self.code.call(&format!("{verb}("), &arguments, "),");
            self.code.close("],");
        }
        self.code.close("]);");
        self.code.line(format!("return serve(path, \"{error}\", commands, {{ schema: SCHEMA_HASH, ...options }});"));
        self.code.close("}");
    }

    /// A comment of one line, or of as many as there are.
    fn docs(&mut self, lines: &[String], more: &[&str]) {
        let lines: Vec<String> = lines.iter().cloned().chain(more.iter().map(|line| (*line).to_owned())).collect();
        let lines: Vec<String> = lines.iter().map(|line| plain(line).replace("*/", "*\\/")).collect();
        match lines.as_slice() {
            [] => {}
            [line] => self.code.line(format!("/** {line} */")),
            lines => {
                self.code.line("/**");
                for line in lines {
                    self.code.line(format!(" * {line}").trim_end());
                }
                self.code.line(" */");
            }
        }
    }

    fn type_text(&self, ty: &Type) -> String {
        match ty {
            Type::Primitive(ty) => primitive_type(*ty).to_owned(),
            Type::Alias(index) => self.schema.aliases[*index].name.clone(),
            Type::Structure(name) => name.clone(),
            Type::Optional(inner) => format!("{} | undefined", self.type_text(inner)),
            Type::List(inner) | Type::FixedList(inner, _) => match **inner {
                Type::Optional(_) => format!("({})[]", self.type_text(inner)),
                _ => format!("{}[]", self.type_text(inner)),
            },
        }
    }

    /// The expression that reads and writes a type.
    fn codec(&mut self, ty: &Type) -> String {
        match ty {
            Type::Primitive(ty) => self.primitive_codec(*ty),
            Type::Alias(index) => {
                let alias = &self.schema.aliases[*index];
                if alias.is_nominal() { format!("{}.codec", alias.name) } else { self.primitive_codec(alias.target) }
            }
            Type::Structure(name) => name.clone(),
            Type::Optional(inner) => {
                self.values.insert("optional");
                format!("optional({})", self.codec(inner))
            }
            Type::List(inner) => {
                self.values.insert("list");
                format!("list({})", self.codec(inner))
            }
            Type::FixedList(inner, length) => {
                self.values.insert("array");
                format!("array({}, {length})", self.codec(inner))
            }
        }
    }

    fn primitive_codec(&mut self, ty: Primitive) -> String {
        if ty == Primitive::Bin32 {
            self.values.insert("binary");
            return "binary(32)".to_owned();
        }
        self.values.insert(ty.name());
        ty.name().to_owned()
    }
}

fn import(head: &mut Code, verb: &str, names: &BTreeSet<&'static str>) {
    if names.is_empty() {
        return;
    }
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort_by_key(|name| name.to_lowercase());
    let line = format!("{verb} {{ {} }} from \"tine-ipc\";", names.join(", "));
    if head.fits(&line) {
        head.line(line);
    } else {
        head.call_within(&format!("{verb} {{"), &names, "} from \"tine-ipc\";", 0, true);
    }
}

fn method(command: &Command) -> String {
    let name = camel_case(&command.name);
    // `close` and `connect` are the client's own, `constructor` the language's.
    let is_taken = is_reserved(Language::TypeScript, &name) || ["close", "constructor"].contains(&name.as_str());
    if is_taken { format!("{name}_") } else { name }
}

fn primitive_type(primitive: Primitive) -> &'static str {
    match primitive {
        Primitive::Bool => "boolean",
        Primitive::U8 | Primitive::U16 | Primitive::U32 | Primitive::F64 => "number",
        Primitive::U64 => "bigint",
        Primitive::String => "string",
        Primitive::Bytes | Primitive::Bin32 => "Uint8Array",
    }
}

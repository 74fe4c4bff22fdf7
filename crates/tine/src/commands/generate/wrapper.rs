//! `tine.ts`: the server's own browser client with the module's types. Values are as `/tine/client.js` gives them.

use std::fmt::Write as _;

use super::model::{Column, Field, Function, Model, Shape, Table, Type, property};

/// The wrapper.
pub fn wrapper(model: &Model) -> String {
    let mut out = String::from(HEAD);
    for named in &model.types {
        let shape = match &named.shape {
            Shape::Product(fields) => fields_type(fields),
            Shape::Sum(variants) if variants.is_empty() => "never".to_owned(),
            Shape::Sum(variants) => {
                let variants: Vec<String> = variants.iter().map(variant).collect();
                variants.join(" | ")
            }
        };
        writeln!(out, "export type {} = {shape};", own_name(&named.name)).expect("writing to a string does not fail");
    }
    section(
        &mut out,
        "Rows of the tables and views, by their names in SQL.",
        "Rows",
        &model.tables,
        |table: &Table| {
            let columns: Vec<String> = table.columns.iter().map(column).collect();
            (table.name.clone(), format!("{{ {} }}", columns.join("; ")))
        },
    );
    section(&mut out, "Parameters of the reducers, by name.", "Reducers", &model.reducers, |reducer: &Function| {
        (reducer.name.clone(), fields_type(&reducer.parameters))
    });
    section(
        &mut out,
        "Parameters and results of the procedures, by name.",
        "Procedures",
        &model.procedures,
        |procedure: &Function| {
            let returns = procedure.returns.as_ref().map_or_else(|| "undefined".to_owned(), value_type);
            (
                procedure.name.clone(),
                format!("{{ parameters: {}; returns: {returns} }}", fields_type(&procedure.parameters)),
            )
        },
    );
    out.push_str(TAIL);
    out
}

fn section<Item>(out: &mut String, about: &str, name: &str, items: &[Item], entry: impl Fn(&Item) -> (String, String)) {
    write!(out, "\n/** {about} */\nexport interface {name} {{\n").expect("writing to a string does not fail");
    for item in items {
        let (key, value) = entry(item);
        writeln!(out, "  {}: {value};", property(&key)).expect("writing to a string does not fail");
    }
    out.push_str("}\n");
}

fn column(column: &Column) -> String {
    format!("{}: {}", property(&column.name), value_type(&column.ty))
}

fn variant(variant: &Field) -> String {
    let tag = super::model::text(&variant.name);
    match &variant.ty {
        Type::Plain("unit") => format!("{{ tag: {tag} }}"),
        ty => format!("{{ tag: {tag}; value: {} }}", value_type(ty)),
    }
}

fn fields_type(fields: &[Field]) -> String {
    if fields.is_empty() {
        return "Record<string, never>".to_owned();
    }
    let fields: Vec<String> =
        fields.iter().map(|field| format!("{}: {}", property(&field.name), value_type(&field.ty))).collect();
    format!("{{ {} }}", fields.join("; "))
}

fn value_type(ty: &Type) -> String {
    match ty {
        Type::Plain(name) => match *name {
            "bool" => "boolean",
            "string" | "identity" | "connectionId" | "uuid" => "string",
            "i64" | "u64" | "i128" | "u128" | "i256" | "u256" | "timestamp" | "timeDuration" => "bigint",
            "byteArray" => "Uint8Array",
            "unit" => "Record<string, never>",
            "scheduleAt" => "{ tag: \"Interval\"; value: bigint } | { tag: \"Time\"; value: bigint }",
            _ => "number",
        }
        .to_owned(),
        Type::Option(some) => format!("{} | null", value_type(some)),
        Type::Array(item) => format!("Array<{}>", value_type(item)),
        Type::Result(ok, err) => {
            format!("{{ tag: \"ok\"; value: {} }} | {{ tag: \"err\"; value: {} }}", value_type(ok), value_type(err))
        }
        Type::Named(name) => own_name(name),
    }
}

/// The name of a type in this file, which has some names of its own.
fn own_name(name: &str) -> String {
    let taken = ["Rows", "Reducers", "Procedures", "Database", "ConnectOptions", "Connection", "LiveTable"];
    if taken.contains(&name) { format!("{name}Type") } else { name.to_owned() }
}

const HEAD: &str = r#"import type { ConnectOptions, Connection, LiveTable } from "./tine_client";

"#;

const TAIL: &str = r#"
/** A connection whose tables and functions are the module's. */
export interface Database extends Omit<Connection, "table" | "rows" | "call"> {
  table<Name extends keyof Rows>(name: Name): LiveTable<Rows[Name]>;
  rows<Name extends keyof Rows>(name: Name): LiveTable<Rows[Name]>;
  call<Name extends keyof Reducers>(name: Name, parameters: Reducers[Name]): Promise<void>;
  call<Name extends keyof Procedures>(
    name: Name,
    parameters: Procedures[Name]["parameters"]
  ): Promise<Procedures[Name]["returns"]>;
}

/** Loads the server's client and connects with it; `client` is where that is, seen from the server's origin. */
export async function connect(options: ConnectOptions, client = "/tine/client.js"): Promise<Database> {
  const base = options.url ?? (globalThis as { location?: { href: string } }).location?.href;
  const address: string = new URL(client, base).href;
  const loaded = (await import(/* @vite-ignore */ address)) as {
    connect(options: ConnectOptions): Promise<Connection>;
  };
  return (await loaded.connect(options)) as unknown as Database;
}
"#;

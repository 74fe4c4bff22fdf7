//! Bindings for the npm package `spacetimedb`: the shape that its client is driven with, in our own words.
//!
//! Indexes are those of the client's cache, which knows ordered ones only, whatever kind the server keeps.

use std::fmt::Write as _;

use super::model::{Column, Field, Function, Model, Shape, Table, Type, property, text};

/// The version the bindings say they are of: that of the package whose types they are written against.
const BINDINGS_VERSION: &str = "2.10.1";

/// `types.ts`: a builder and a type for each named type.
pub fn types(model: &Model) -> String {
    let mut out = String::from("import { t, type Infer as InferOf } from \"spacetimedb\";\n");
    for named in &model.types {
        let builder = match &named.shape {
            Shape::Product(fields) => {
                format!("t.object({}, {})", text(&named.name), object(fields, |field| builder(&field.ty, "")))
            }
            Shape::Sum(variants) if variants.iter().all(|variant| variant.ty == Type::Plain("unit")) => {
                let names: Vec<String> = variants.iter().map(|variant| text(&variant.name)).collect();
                format!("t.enum({}, [{}])", text(&named.name), names.join(", "))
            }
            Shape::Sum(variants) => {
                format!("t.enum({}, {})", text(&named.name), object(variants, |field| builder(&field.ty, "")))
            }
        };
        write!(
            out,
            "\nexport const {name} = {builder};\nexport type {name} = InferOf<typeof {name}>;\n",
            name = named.name
        )
        .expect("writing to a string does not fail");
    }
    if model.types.is_empty() {
        // Without exports and uses the file would be no module, and the imports unused.
        out = "export {};\n".to_owned();
    }
    out
}

/// `index.ts`: tables, functions, and the connection.
pub fn index(model: &Model) -> String {
    let mut out = String::from(IMPORTS);
    if !model.types.is_empty() {
        out.push_str("import * as types from \"./types\";\n");
    }
    out.push_str("\nconst tablesSchema = schema({\n");
    model.tables.iter().for_each(|table| push_table(&mut out, table));
    out.push_str("});\n\nconst reducersSchema = defineReducers([\n");
    for reducer in &model.reducers {
        writeln!(out, "  reducerSchema({}, {}),", text(&reducer.name), parameters(reducer))
            .expect("writing to a string does not fail");
    }
    out.push_str("]);\n\nconst proceduresSchema = defineProcedures([\n");
    for procedure in &model.procedures {
        let returns = procedure.returns.as_ref().map(|ty| builder(ty, "types.")).unwrap_or_default();
        writeln!(out, "  procedureSchema({}, {}, {returns}),", text(&procedure.name), parameters(procedure))
            .expect("writing to a string does not fail");
    }
    out.push_str("]);\n");
    out.push_str(&CONNECTION.replace("VERSION", BINDINGS_VERSION));
    out
}

fn push_table(out: &mut String, table: &Table) {
    let mut options = vec![format!("name: {}", text(&table.name))];
    if !table.indexes.is_empty() {
        let indexes: Vec<String> = table
            .indexes
            .iter()
            .map(|index| {
                let columns: Vec<String> = index.columns.iter().map(|column| text(column)).collect();
                let (accessor, name, columns) = (text(&index.accessor), text(&index.name), columns.join(", "));
                format!("{{ accessor: {accessor}, name: {name}, algorithm: \"btree\", columns: [{columns}] }}")
            })
            .collect();
        options.push(format!("indexes: [{}]", indexes.join(", ")));
    }
    if table.is_event {
        options.push("event: true".to_owned());
    }
    writeln!(out, "  {}: table({{ {} }}, t.row({{", property(&table.accessor), options.join(", "))
        .expect("writing to a string does not fail");
    for column in &table.columns {
        writeln!(out, "    {}: {},", property(&column.accessor), column_builder(column))
            .expect("writing to a string does not fail");
    }
    out.push_str("  })),\n");
}

fn column_builder(column: &Column) -> String {
    let mut code = builder(&column.ty, "types.");
    if column.is_primary_key {
        code.push_str(".primaryKey()");
    } else if column.is_unique {
        code.push_str(".unique()");
    }
    if column.is_indexed && !column.is_primary_key && !column.is_unique {
        code.push_str(".index(\"btree\")");
    }
    let can_be_named = !matches!(column.ty, Type::Result(..) | Type::Plain("unit"));
    if column.name != column.accessor && can_be_named {
        write!(code, ".name({})", text(&column.name)).expect("writing to a string does not fail");
    }
    code
}

fn parameters(function: &Function) -> String {
    object(&function.parameters, |field| builder(&field.ty, "types."))
}

fn object(fields: &[Field], value: impl Fn(&Field) -> String) -> String {
    if fields.is_empty() {
        return "{}".to_owned();
    }
    let fields: Vec<String> =
        fields.iter().map(|field| format!("{}: {}", property(&field.accessor), value(field))).collect();
    format!("{{ {} }}", fields.join(", "))
}

/// The builder of a type; named types are found in `scope`.
fn builder(ty: &Type, scope: &str) -> String {
    match ty {
        Type::Plain(name) => format!("t.{name}()"),
        Type::Option(some) => format!("t.option({})", builder(some, scope)),
        Type::Array(item) => format!("t.array({})", builder(item, scope)),
        Type::Result(ok, err) => format!("t.result({}, {})", builder(ok, scope), builder(err, scope)),
        Type::Named(name) => format!("{scope}{name}"),
    }
}

const IMPORTS: &str = r#"import {
  DbConnectionBuilder as ConnectionBuilder,
  DbConnectionImpl,
  SubscriptionBuilderImpl,
  convertToAccessorMap,
  makeQueryBuilder,
  procedureSchema,
  procedures as defineProcedures,
  reducerSchema,
  reducers as defineReducers,
  schema,
  t,
  table,
  type DbConnectionConfig,
  type ErrorContextInterface,
  type EventContextInterface,
  type ReducerEventContextInterface,
  type SubscriptionEventContextInterface,
  type SubscriptionHandleImpl,
} from "spacetimedb";
"#;

const CONNECTION: &str = r#"
const remoteModule = {
  versionInfo: { cliVersion: "VERSION" as const },
  tables: tablesSchema.schemaType.tables,
  reducers: reducersSchema.reducersType.reducers,
  ...proceduresSchema,
};

/** Everything the client knows of the module. */
export type RemoteModule = typeof remoteModule;

/** Tables and views to build queries from. */
export const tables = makeQueryBuilder(tablesSchema.schemaType);
/** Reducers by their names in code, for hooks. */
export const reducers = convertToAccessorMap(reducersSchema.reducersType.reducers);
/** Procedures by their names in code, for hooks. */
export const procedures = convertToAccessorMap(proceduresSchema.procedures);

/** What callbacks of rows are told. */
export type EventContext = EventContextInterface<RemoteModule>;
/** What callbacks of reducers are told. */
export type ReducerEventContext = ReducerEventContextInterface<RemoteModule>;
/** What callbacks of subscriptions are told. */
export type SubscriptionEventContext = SubscriptionEventContextInterface<RemoteModule>;
/** What callbacks of errors are told. */
export type ErrorContext = ErrorContextInterface<RemoteModule>;
/** A live subscription. */
export type SubscriptionHandle = SubscriptionHandleImpl<RemoteModule>;

/** Sets up a subscription. */
export class SubscriptionBuilder extends SubscriptionBuilderImpl<RemoteModule> {}

/** Sets up a connection. */
export class DbConnectionBuilder extends ConnectionBuilder<DbConnection> {}

/** A connection to a database or a fork that runs the module. */
export class DbConnection extends DbConnectionImpl<RemoteModule> {
  static builder = (): DbConnectionBuilder =>
    new DbConnectionBuilder(remoteModule, (config: DbConnectionConfig<RemoteModule>) => new DbConnection(config));

  override subscriptionBuilder = (): SubscriptionBuilder => new SubscriptionBuilder(this);
}
"#;

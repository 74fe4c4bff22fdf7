//! What a module says about itself.

use serde_json::Value;
use tine_module::CompileError;

use crate::harness::compile_source;

fn definition(source: &str) -> Value {
    compile_source(source).unwrap_or_else(|error| panic!("{error}")).def().to_json()
}

fn names<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list.as_array().expect("a list").iter().map(|item| item[key].as_str().expect("a name")).collect()
}

fn section<'a>(def: &'a Value, name: &str) -> &'a Value {
    let sections = def["sections"].as_array().expect("sections");
    sections.iter().find_map(|section| section.get(name)).unwrap_or_else(|| panic!("no section {name} in {def}"))
}

#[test]
fn tables_functions_and_schedules_are_described() {
    let def = definition(
        r#"
import { schema, table, t } from "tine:server";
const Kind = t.enum("Kind", ["Big", "Small"]);
const Point = t.object("geo.Point", { x: t.f64(), y: t.f64() });
const timer = table({ name: "timers", scheduled: () => tick }, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt() });
const other = table({}, { id: t.u32().primaryKey(), due: t.scheduleAt() });
const db = schema({
  thing: table(
    { public: true, indexes: [{ accessor: "byBoth", name: "both", algorithm: "btree", columns: ["kind", "label"] }], constraints: [] },
    { id: t.u32().primaryKey().autoInc(), kind: Kind, label: t.string().unique(), place: t.option(Point), note: t.string().default("n/a") }
  ),
  timer,
  other,
  happened: table({ event: true }, { what: t.string() }),
});
export default db;
export const tick = db.reducer({ arg: timer.rowType }, (ctx, { arg }) => {});
export const due = db.procedure({ onSchedule: other, name: "whenDue" }, { row: other.rowType }, t.unit(), (ctx, { row }) => ({}));
export const move = db.reducer({ name: "relocate" }, { id: t.u32(), to: Point }, ctx => {});
export const start = db.init(ctx => {});
export const hello = db.clientConnected(ctx => {});
export const bye = db.clientDisconnected(ctx => {});
export const group = db.exportGroup({ zebra: db.reducer(ctx => {}) });
"#,
    );
    let tables = section(&def, "Tables");
    assert_eq!(names(tables, "source_name"), ["thing", "timer", "other", "happened"]);
    let thing = &tables[0];
    assert_eq!(thing["primary_key"].to_string(), "[0]");
    let indexes: Vec<String> =
        thing["indexes"].as_array().expect("list").iter().map(|index| index["source_name"].to_string()).collect();
    assert_eq!(
        indexes,
        [
            r#"{"some":"thing_id_idx_btree"}"#,
            r#"{"some":"thing_label_idx_btree"}"#,
            r#"{"some":"thing_kind_label_idx_btree"}"#
        ]
    );
    assert_eq!(thing["constraints"].as_array().expect("list").len(), 2);
    assert_eq!(thing["sequences"][0]["column"], 0);
    assert_eq!(thing["default_values"][0]["col_id"], 4);
    assert_eq!(tables[3]["is_event"], true);
    assert_eq!(names(section(&def, "Reducers"), "source_name"), ["bye", "zebra", "hello", "move", "start", "tick"]);
    assert_eq!(names(section(&def, "Procedures"), "source_name"), ["whenDue"]);
    let schedules = section(&def, "Schedules");
    assert_eq!(names(schedules, "table_name"), ["timer", "other"]);
    assert_eq!(names(schedules, "function_name"), ["tick", "whenDue"]);
    assert_eq!(schedules[0]["schedule_at_col"], 1);
    assert_eq!(section(&def, "LifeCycleReducers").as_array().expect("list").len(), 3);
    let types: Vec<String> =
        section(&def, "Types").as_array().expect("list").iter().map(|ty| ty["source_name"].to_string()).collect();
    assert!(types.iter().any(|name| name.contains("geo") && name.contains("Point")), "{types:?}");
    let explicit = section(&def, "ExplicitNames").to_string();
    for name in ["timers", "relocate", "both"] {
        assert!(explicit.contains(name), "{explicit}");
    }
}

#[test]
fn functions_of_several_files_are_exported() {
    let mut bundle = tine_module::SourceBundle::single(
        "src/index.ts",
        "import db from './db.js';\nexport default db;\nexport * from './more';\nexport { two } from './deep';\n",
    );
    for (path, text) in [
        (
            "src/db.ts",
            "import { schema, table, t } from 'spacetimedb/server';\nexport const row = { id: t.u8() };\nexport default schema({ a: table({}, row) });\n",
        ),
        ("src/more.ts", "import db from './db';\nexport const one = db.reducer(() => {});\n"),
        ("src/deep/index.js", "import db from '../db';\nexport const two = db.reducer(() => {}), three = 3;\n"),
    ] {
        bundle.files.insert(path.to_owned(), text.to_owned());
    }
    let module = crate::harness::compile(&bundle, &crate::harness::limits()).unwrap_or_else(|error| panic!("{error}"));
    let reducers: Vec<&str> = module.def().reducers.iter().map(|reducer| &*reducer.source_name).collect();
    assert_eq!(reducers, ["one", "two"]);
    assert_eq!(*module.hash(), *blake3_of(&bundle.encode()).as_slice());
}

fn blake3_of(bytes: &[u8]) -> Vec<u8> {
    blake3::hash(bytes).as_bytes().to_vec()
}

#[test]
fn the_type_declarations_name_every_export() {
    let list = "ArrayBuilder CaseConversionPolicy ColumnBuilder ConnectionId Identity OptionBuilder ProductBuilder Range ResultBuilder \
                RowBuilder ScheduleAt SenderError SpacetimeHostError SumBuilder TimeDuration Timestamp TypeBuilder Uuid errors schema t \
                table toCamelCase";
    let source = format!(
        "import {{ {} }} from 'tine:server';\nconst db = schema({{}});\nexport default db;\n\
         for (const value of [{0}]) if (value === undefined) throw new Error('missing');\n",
        list.split_whitespace().collect::<Vec<_>>().join(", ")
    );
    compile_source(&source).unwrap_or_else(|error| panic!("{error}"));
    for name in list.split_whitespace() {
        let declared =
            [format!("export const {name}:"), format!("export class {name}"), format!("export function {name}")];
        let found = declared.iter().any(|text| tine_module::SERVER_TYPES.contains(text.as_str()));
        assert!(found, "server.d.ts does not declare {name}");
    }
}

#[test]
fn mistakes_in_a_definition_are_placed() {
    let start = "import { schema, table, t, Router, SyncResponse } from 'tine:server';\n";
    for (code, line, words) in [
        ("export const x = 1;", None, "the default export must be the schema"),
        ("export default schema({});\nexport const x = 1;", None, "the export \"x\" is not a function of the module"),
        ("export default schema({ a: 1 });", Some(2), "\"a\" must be a table"),
        ("export default schema({ a: table({}, { x: 7 }) });", Some(2), "column \"x\" must be a type"),
        ("\nexport default schema({ a: table({ pubic: true }, {}) });", Some(3), "no option \"pubic\""),
        (
            "const a = table({ indexes: [{ accessor: 'i', algorithm: 'btree', columns: ['y'] }] }, { x: t.u8() });\nexport default schema({ a });",
            Some(2),
            "names the column \"y\"",
        ),
        (
            "const a = table({ indexes: [{ algorithm: 'btree', columns: ['x'] }] }, { x: t.u8() });\nexport default schema({ a });",
            Some(2),
            "needs an \"accessor\"",
        ),
        (
            "export default schema({ a: table({}, { x: t.string().autoInc() }) });",
            Some(2),
            "autoInc() needs an integer column",
        ),
        (
            "export default schema({ a: table({}, { x: t.u8().default(1).unique() }) });",
            Some(2),
            "cannot have a default()",
        ),
        (
            "export default schema({ a: table({}, { x: t.u8().default(300) }) });",
            None,
            "the default of column `x` of table `a`: expected an integer from 0 to 255, got 300",
        ),
        ("export default schema({ a: table({}, { x: t.array(t.u8().unique()) }) });", Some(2), "cannot be nested"),
        ("export default schema({ a: table({}, { x: t.object({ y: t.u8() }) }) });", None, "needs a name"),
        (
            "const db = schema({});\nexport default db;\nexport const r = db.reducer(7);",
            Some(4),
            "expected a function, got 7",
        ),
        (
            "const db = schema({});\nexport default db;\nexport const r = db.reducer({ x: 1 }, () => {});",
            Some(4),
            "parameter \"x\" must be a type",
        ),
        (
            "const db = schema({});\nexport default db;\nexport const v = db.view({ public: true }, t.unit(), () => {});",
            Some(4),
            "view() must return t.array(row) or t.option(row)",
        ),
        (
            "const db = schema({});\nexport default db;\nexport const a = db.exportGroup({ b: db.reducer(() => {}) });\nexport const b = db.reducer(() => {});",
            None,
            "two functions with the name \"b\"",
        ),
        (
            "const item = table({}, { id: t.u32() });\nconst db = schema({ item });\nexport default db;\nexport const all = db.anonymousView({ name: \"item\", public: true }, t.array(item.rowType), () => []);",
            None,
            "the view `all` has the name of a table",
        ),
        (
            "const db = schema({});\nexport default db;\nconst hello = db.httpHandler(() => new SyncResponse(\"\"));\nexport const routes = db.httpRouter(new Router().get(\"/hello\", hello));",
            None,
            "leads to a handler that is not exported",
        ),
        (
            "const db = schema({});\nexport default db;\nnew Router().get(\"/Hello\", () => {});",
            Some(4),
            "lower-case letters",
        ),
        (
            "const db = schema({});\nexport default db;\nnew Router().get(\"/a\", () => {}).any(\"/a\", () => {});",
            Some(4),
            "there are two routes",
        ),
        (
            "const other = schema({});\nexport default schema({});\nexport const b = other.reducer(() => {});",
            None,
            "belongs to another schema",
        ),
        (
            "const s = table({ scheduled: () => run }, { id: t.u64().primaryKey(), at: t.scheduleAt() });\nconst db = schema({ s });\nexport default db;\nconst run = db.reducer({ a: s.rowType }, () => {});",
            None,
            "its function is not exported",
        ),
    ] {
        let error = compile_source(&format!("{start}{code}\n")).expect_err(code);
        assert!(error.to_string().contains(words), "{code}\n{error}");
        assert_eq!(error.location().map(|location| location.line), line, "{code}\n{error}");
    }
}

#[test]
fn definitions_that_no_database_can_have_are_refused() {
    let error = compile_source(
        "import { schema, table, t } from 'tine:server';\nexport default schema({ a: table({}, { x: t.u8().primaryKey(), y: t.u8().primaryKey() }) });\n",
    );
    assert!(matches!(error, Err(CompileError::Definition(_))), "{error:?}");
}

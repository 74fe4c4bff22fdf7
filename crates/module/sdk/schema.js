// Tables, the schema, and the functions a module exports. Mistakes are reported by the call that makes them, so that the
// stack names the user's line; the definition itself is written by describe.js, which runs at compile time only.

const EXPORT = HostSymbol("tine.export");
const CONTEXT = HostSymbol("tine.context");

const pick = (object, keys, what) => {
  for (const key of HostObject.keys(object)) {
    if (!keys.includes(key)) throw new TypeError(`${what} has no option "${key}"; the options are ${keys.join(", ")}`);
  }
  return object;
};

class TableSchema {
  constructor(options, rowType) {
    this.options = options;
    this.rowType = rowType;
    this.tableName = options.name;
    this.idxs = options.indexes ?? [];
    const columns = HostObject.entries(rowType.row);
    this.scheduleAtCol = columns.findLastIndex(([, column]) => column.typeBuilder.kind === "scheduleAt");
    if (this.scheduleAtCol < 0) this.scheduleAtCol = undefined;
  }
}

function table(options, row) {
  pick(checkMembers(options, "the first argument of table()"), ["name", "public", "indexes", "constraints", "scheduled", "event"], "table()");
  const label = options.name === undefined ? "a table" : `table "${options.name}"`;
  const rowType = row instanceof RowBuilder ? row : new RowBuilder(row);
  for (const [column, { columnMetadata: meta }] of HostObject.entries(rowType.row)) {
    if ("defaultValue" in meta && (meta.isPrimaryKey || meta.isUnique || meta.isAutoIncrement)) {
      throw new TypeError(`${label}: column "${column}" cannot have a default() together with primaryKey(), unique() or autoInc()`);
    }
  }
  const checkColumns = (columns, what) => {
    if (!isArray(columns) || columns.length === 0) throw new TypeError(`${label}: ${what} needs a list of columns`);
    for (const column of columns) {
      if (!HostObject.hasOwn(rowType.row, column)) throw new TypeError(`${label}: ${what} names the column "${column}", which the table does not have`);
    }
  };
  for (const index of options.indexes ?? []) {
    const what = `index ${stringify(index?.accessor ?? index?.name)}`;
    if (typeof index?.accessor !== "string" || index.accessor === "") throw new TypeError(`${label}: every entry of "indexes" needs an "accessor"`);
    if (!INDEX_ALGORITHMS.includes(index.algorithm)) throw new TypeError(`${label}: ${what} needs an algorithm: ${INDEX_ALGORITHMS.join(", ")}`);
    checkColumns(index.algorithm === "direct" ? [index.column] : index.columns, what);
  }
  for (const constraint of options.constraints ?? []) {
    if (constraint.constraint !== "unique") throw new TypeError(`${label}: the only constraint is "unique"`);
    checkColumns(constraint.columns, "a unique constraint");
  }
  return new TableSchema(options, rowType);
}

// One per schema(): what its exports registered, in the order of their ids.
class Registry {
  constructor() {
    this.reducers = [];
    this.procedures = [];
    this.views = [];
    this.handlers = [];
    this.routers = [];
    this.rules = [];
    this.lifecycle = [];
    this.schedules = [];
    this.names = new Map();
    this.exported = new Map();
  }
  define(name, place) {
    if (this.names.has(name)) throw new TypeError(`there are two functions with the name "${name}"`);
    this.names.set(name, place);
  }
}

const functionExport = (schema, fn, register) => {
  if (typeof fn !== "function") throw new TypeError(`expected a function, got ${inspect(fn, 1, [])}`);
  const exported = (...args) => fn(...args);
  hidden(exported, CONTEXT, schema);
  hidden(exported, EXPORT, (registry, name) => {
    if (!fn.name) defineProperty(fn, "name", { value: name });
    register(registry, name, exported);
  });
  return exported;
};

function checkParams(params) {
  for (const [name, builder] of HostObject.entries(checkMembers(params, "the parameters"))) {
    if (!(builder instanceof ColumnBuilder)) checkBuilder(builder, `parameter "${name}"`);
  }
  return params;
}

const FUNCTION_OPTIONS = ["name", "onSchedule"];

function checkFunctionOptions(options, schema, what) {
  if (options === undefined) return {};
  pick(checkMembers(options, `the options of ${what}`), FUNCTION_OPTIONS, what);
  if (options.onSchedule !== undefined && !HostObject.values(schema.tables).includes(options.onSchedule)) {
    throw new TypeError(`${what}: "onSchedule" must be a table of this schema`);
  }
  return options;
}

function makeReducer(schema, what, lifecycle, options, params, fn) {
  options = checkFunctionOptions(options, schema, what);
  const rowType = params instanceof RowBuilder ? params : new RowBuilder(checkParams(params));
  return functionExport(schema, fn, (registry, sourceName, exported) => {
    registry.define(sourceName, exported);
    registry.exported.set(exported, sourceName);
    registry.reducers.push({ sourceName, params: rowType, fn, explicitName: options.name });
    if (lifecycle !== undefined) registry.lifecycle.push({ lifecycle, functionName: sourceName });
    if (options.onSchedule) registry.schedules.push({ table: options.onSchedule, functionName: sourceName });
  });
}

// The row type of a view: it returns an array or an option of rows.
function viewRow(ret, what) {
  const row = ret instanceof ArrayBuilder ? ret.element : ret instanceof OptionBuilder ? ret.value : undefined;
  const kind = row?.self.kind;
  if (kind !== "row" && kind !== "product") throw new TypeError(`${what} must return t.array(row) or t.option(row)`);
  return row.self;
}

function makeView(schema, what, isAnonymous, options, ret, fn) {
  pick(checkMembers(options, `the options of ${what}`), ["name", "public"], what);
  const row = viewRow(checkBuilder(ret, `the return type of ${what}`), what);
  const keys = HostObject.entries(row.row ?? {}).filter(([, column]) => column.columnMetadata.isPrimaryKey).map(([name]) => name);
  if (keys.length > 1) throw new TypeError(`${what}: the rows have more than one primary key: ${keys.join(", ")}`);
  return functionExport(schema, fn, (registry, sourceName, exported) => {
    registry.define(sourceName, exported);
    const index = registry.views.filter(view => view.isAnonymous === isAnonymous).length;
    const isPublic = options.public === true;
    registry.views.push({ sourceName, index, isPublic, isAnonymous, ret, fn, primaryKey: keys[0], explicitName: options.name });
  });
}

class Schema {
  constructor(tables, submodules, settings) {
    this.tables = tables;
    this.submodules = submodules;
    this.settings = settings;
    this.clientVisibilityFilter = freeze({
      sql: text => {
        if (typeof text !== "string") throw new TypeError(`clientVisibilityFilter.sql() needs a query, got ${inspect(text, 1, [])}`);
        return freeze({ [CONTEXT]: this, [EXPORT]: registry => void registry.rules.push(text) });
      },
    });
  }
  // Only its type is of use.
  get schemaType() { return { tables: this.tables }; }

  reducer(...args) {
    if (args.length === 1) return makeReducer(this, "reducer()", undefined, undefined, {}, args[0]);
    if (args.length === 3) return makeReducer(this, "reducer()", undefined, ...args);
    const [first, fn] = args;
    // `{ name: "x" }` are options, `{ name: t.string() }` is a parameter called name.
    if (typeof first?.name === "string") return makeReducer(this, "reducer()", undefined, first, {}, fn);
    return makeReducer(this, "reducer()", undefined, undefined, first, fn);
  }
  init(...args) { return this.#lifecycle("init()", 0, args); }
  clientConnected(...args) { return this.#lifecycle("clientConnected()", 1, args); }
  clientDisconnected(...args) { return this.#lifecycle("clientDisconnected()", 2, args); }
  #lifecycle(what, lifecycle, args) {
    const [options, fn] = args.length === 1 ? [undefined, args[0]] : args;
    return makeReducer(this, what, lifecycle, options, {}, fn);
  }

  procedure(...args) {
    let options;
    let params = {};
    if (args.length === 4) [options, params] = args;
    if (args.length === 3) {
      if (typeof args[0]?.name === "string") options = args[0];
      else params = args[0];
    }
    const [ret, fn] = args.slice(-2);
    options = checkFunctionOptions(options, this, "procedure()");
    checkBuilder(ret, "the return type of procedure()");
    checkParams(params);
    return functionExport(this, fn, (registry, exportName, exported) => {
      const sourceName = options.name ?? exportName;
      registry.define(sourceName, exported);
      registry.exported.set(exported, sourceName);
      registry.procedures.push({ sourceName, params, ret, fn });
      if (options.onSchedule) registry.schedules.push({ table: options.onSchedule, functionName: sourceName });
    });
  }

  view(options, ret, fn) { return makeView(this, "view()", false, options, ret, fn); }
  anonymousView(options, ret, fn) { return makeView(this, "anonymousView()", true, options, ret, fn); }

  httpHandler(...args) {
    const [options, fn] = args.length === 1 ? [{}, args[0]] : args;
    pick(checkMembers(options, "the options of httpHandler()"), ["name"], "httpHandler()");
    return functionExport(this, fn, (registry, sourceName, exported) => {
      if (registry.exported.has(exported)) throw new TypeError(`the HTTP handler "${sourceName}" is exported twice`);
      registry.exported.set(exported, sourceName);
      registry.handlers.push({ sourceName, fn, explicitName: options.name });
    });
  }
  httpRouter(router) {
    if (!(router instanceof http().Router)) throw new TypeError(`httpRouter() needs a Router, got ${inspect(router, 1, [])}`);
    return freeze({ [CONTEXT]: this, [EXPORT]: registry => void registry.routers.push(router) });
  }

  exportGroup(members) {
    checkMembers(members, "the argument of exportGroup()");
    return {
      [CONTEXT]: this,
      [EXPORT](registry) {
        for (const [name, member] of HostObject.entries(members)) registerExport(this[CONTEXT], registry, name, member);
      },
    };
  }
}

function schema(entries, settings = {}) {
  pick(checkMembers(settings, "the settings of schema()"), ["CASE_CONVERSION_POLICY"], "schema()");
  const tables = {};
  const submodules = {};
  for (const [name, entry] of HostObject.entries(checkMembers(entries, "the argument of schema()"))) {
    if (entry instanceof Schema) throw new TypeError(`schema(): "${name}" is a default import; write: import * as ${name} from "..."`);
    if (entry instanceof TableSchema) tables[name] = entry;
    else if (entry?.default instanceof Schema) submodules[name] = entry;
    else throw new TypeError(`schema(): "${name}" must be a table or a module, got ${inspect(entry, 1, [])}`);
  }
  return new Schema(tables, submodules, settings);
}

const CaseConversionPolicy = freeze({ None: freeze({ tag: "None" }), SnakeCase: freeze({ tag: "SnakeCase" }) });

const toCamelCase = text => {
  const joined = text.replace(/[-_]+/g, "_").replace(/_([a-zA-Z0-9])/g, (_, letter) => letter.toUpperCase());
  return joined.charAt(0).toLowerCase() + joined.slice(1);
};

function registerExport(schema, registry, name, member) {
  const register = member?.[EXPORT];
  if (typeof register !== "function") {
    throw new TypeError(`the export "${name}" is not a function of the module; a module exports only those and its schema (as default)`);
  }
  if (member[CONTEXT] !== schema) throw new TypeError(`the export "${name}" belongs to another schema; a module has one`);
  register.call(member, registry, name);
}

// Registers what one module exports, and those within it. Ids follow the order of the namespace, which is that of the names. A module
// within another may export other things too: it is a library.
function registerModule(namespace, path) {
  const schema = namespace.default;
  if (!(schema instanceof Schema)) {
    throw new TypeError("the default export must be the schema: `const db = schema({ ... }); export default db;`");
  }
  const registry = new Registry();
  for (const [name, member] of HostObject.entries(namespace)) {
    if (name === "default" || (path.length > 0 && typeof member?.[EXPORT] !== "function")) continue;
    registerExport(schema, registry, name, member);
  }
  const submodules = HostObject.entries(schema.submodules).map(([name, inner]) => registerModule(inner, [...path, name]));
  return { schema, registry, path, submodules };
}

// A module and those within it, in the order in which their functions are numbered.
const flattened = module => [module, ...module.submodules.flatMap(flattened)];

// Registers a program. The functions of all its modules come in lists, each as a pair of the function and its module's place.
function register(namespace) {
  const root = registerModule(namespace, []);
  const modules = flattened(root);
  const all = kind => modules.flatMap(({ registry }, place) => registry[kind].map(({ fn }) => [fn, place]));
  return { root, modules, reducers: all("reducers"), procedures: all("procedures"), views: all("views"), handlers: root.registry.handlers.map(({ fn }) => [fn, 0]) };
}

// Writes the definition of a module, version 10, as BSATN. Runs once, when the module is compiled.
//
// Default values of columns are the one thing it leaves out: they need the encoder of rows, which is native. They are
// returned beside the bytes.

(function (registered) {
  "use strict";
  const { root, modules } = registered;
  const toPascalCase = text => {
    const joined = text.replace(/[-_]+/g, "_").replace(/_([a-zA-Z0-9])/g, (_, letter) => letter.toUpperCase());
    return joined.charAt(0).toUpperCase() + joined.slice(1);
  };

  const encoder = new TextEncoder();
  const out = [];
  const u8 = value => out.push(value & 255);
  const u16 = value => (u8(value), u8(value >>> 8));
  const u32 = value => (u16(value), u16(value >>> 16));
  const i128 = value => {
    for (let i = 0n; i < 16n; i++) u8(Number((value >> (8n * i)) & 255n));
  };
  const string = text => {
    const bytes = encoder.encode(text);
    u32(bytes.length);
    for (const byte of bytes) out.push(byte);
  };
  const array = (items, write) => {
    u32(items.length);
    items.forEach(write);
  };
  const option = (value, write) => (value === undefined ? u8(1) : (u8(0), write(value)));
  const section = (tag, write) => (u8(tag), write());

  const SUM = 1, PRODUCT = 2, ARRAY = 3;
  const LEAVES = { string: 4, bool: 5, i8: 6, u8: 7, i16: 8, u16: 9, i32: 10, u32: 11, i64: 12, u64: 13, i128: 14, u128: 15, i256: 16, u256: 17, f32: 18, f64: 19 };
  const leaf = kind => ({ leaf: LEAVES[kind] });
  const product = elements => ({ product: elements });
  const wrapped = (name, kind) => product([{ name, type: leaf(kind) }]);
  const duration = wrapped("__time_duration_micros__", "i64");
  const timestamp = wrapped("__timestamp_micros_since_unix_epoch__", "i64");
  const unit = product([]);
  const SPECIAL = {
    unit,
    byteArray: { array: leaf("u8") },
    identity: wrapped("__identity__", "u256"),
    connectionId: wrapped("__connection_id__", "u128"),
    uuid: wrapped("__uuid__", "u128"),
    timestamp,
    timeDuration: duration,
    scheduleAt: { sum: [{ name: "Interval", type: duration }, { name: "Time", type: timestamp }] },
  };

  const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
  const writeMethod = method => {
    const tag = METHODS.indexOf(method);
    if (tag < 0) u8(METHODS.length), string(method);
    else u8(tag);
  };

  const defaults = [];

  // Writes the sections of one module.
  function writeModule(module) {
    const { schema, registry, submodules } = module;
    const moduleIndex = modules.indexOf(module);
    const typespace = [];
    const typeNames = [];
    const refs = new Map();

    // The type of a builder; named types become references.
    function typeOf(builder) {
      builder = builder.self;
      switch (builder.kind) {
        case "array":
          return { array: typeOf(builder.element) };
        case "option":
          return { sum: [{ name: "some", type: typeOf(builder.value) }, { name: "none", type: unit }] };
        case "result":
          return { sum: [{ name: "ok", type: typeOf(builder.ok) }, { name: "err", type: typeOf(builder.err) }] };
        case "product":
          if (builder.typeName === undefined && Object.keys(builder.elements).length === 0) return unit;
          return compound(builder, builder.elements, "product");
        case "row":
          return compound(builder, builder.row, "product");
        case "sum":
          return compound(builder, builder.variants, "sum");
        default:
          return SPECIAL[builder.kind] ?? leaf(builder.kind);
      }
    }

    function compound(builder, members, shape) {
      const known = refs.get(builder);
      if (known !== undefined) return { ref: known };
      if (builder.typeName === undefined) {
        throw new TypeError(`a type with the members ${Object.keys(members).join(", ")} needs a name: t.${builder.kind === "sum" ? "enum" : "object"}("Name", { ... })`);
      }
      const ref = typespace.length;
      refs.set(builder, ref);
      const items = [];
      typespace.push({ [shape]: items });
      for (const [name, member] of Object.entries(members)) items.push({ name, type: typeOf(member.typeBuilder ?? member) });
      const scope = builder.typeName.split(".");
      typeNames.push({ name: scope.pop(), scope, ref });
      return { ref };
    }

    const members = items => array(items, ({ name, type }) => (option(name, string), writeType(type)));
    function writeType(type) {
      if ("ref" in type) u8(0), u32(type.ref);
      else if ("sum" in type) u8(SUM), members(type.sum);
      else if ("product" in type) u8(PRODUCT), members(type.product);
      else if ("array" in type) u8(ARRAY), writeType(type.array);
      else u8(type.leaf);
    }

    const explicitNames = [];

    function describeTable(name, table, tableIndex) {
      const { options, rowType } = table;
      const columns = Object.keys(rowType.row);
      rowType.typeName ??= toPascalCase(options.name ?? name);
      if (options.name) explicitNames.push({ kind: 0, sourceName: name, canonicalName: options.name });
      const described = { name, options, ref: typeOf(rowType).ref, primaryKey: [], indexes: [], uniques: [], sequences: [] };
      const addIndex = (accessor, algorithm, columnIds, canonicalName) => {
        const sourceName = `${name}_${columnIds.map(id => columns[id]).join("_")}_idx_${algorithm}`;
        described.indexes.push({ sourceName, accessor, algorithm, columnIds });
        if (canonicalName !== undefined) explicitNames.push({ kind: 2, sourceName, canonicalName });
      };
      Object.entries(rowType.row).forEach(([column, { columnMetadata: meta }], id) => {
        const isUnique = meta.isUnique || meta.isPrimaryKey;
        if (meta.isPrimaryKey) described.primaryKey.push(id);
        if (meta.indexType || isUnique) addIndex(column, meta.indexType ?? "btree", [id]);
        if (isUnique) described.uniques.push({ columnIds: [id] });
        if (meta.isAutoIncrement) described.sequences.push(id);
        if ("defaultValue" in meta) defaults.push({ moduleIndex, tableIndex, columnId: id, value: meta.defaultValue });
      });
      for (const index of options.indexes ?? []) {
        const named = index.algorithm === "direct" ? [index.column] : index.columns;
        addIndex(index.accessor, index.algorithm, named.map(column => columns.indexOf(column)), index.name);
      }
      for (const constraint of options.constraints ?? []) {
        described.uniques.push({ sourceName: constraint.name, columnIds: constraint.columns.map(column => columns.indexOf(column)) });
      }
      return described;
    }

    function writeTable({ name, options, ref, primaryKey, indexes, uniques, sequences }) {
      string(name);
      u32(ref);
      array(primaryKey, u16);
      array(indexes, ({ sourceName, accessor, algorithm, columnIds }) => {
        option(sourceName, string);
        option(accessor, string);
        u8(["btree", "hash", "direct"].indexOf(algorithm));
        if (algorithm === "direct") u16(columnIds[0]);
        else array(columnIds, u16);
      });
      array(uniques, ({ sourceName, columnIds }) => (option(sourceName, string), u8(0), array(columnIds, u16)));
      array(sequences, column => {
        option(undefined);
        u16(column);
        option(undefined), option(undefined), option(undefined);
        i128(1n);
      });
      u8(1);
      u8(options.public ? 0 : 1);
      array([], u8);
      u8(options.event ? 1 : 0);
    }

    const params = builders => Object.entries(builders).map(([name, builder]) => ({ name, type: typeOf(builder.typeBuilder ?? builder) }));
    const CLIENT_CALLABLE = 1;

    function describeReducer({ sourceName, params: rowType, explicitName }) {
      rowType.typeName ??= toPascalCase(sourceName);
      const { ref } = typeOf(rowType);
      if (explicitName !== undefined) explicitNames.push({ kind: 1, sourceName, canonicalName: explicitName });
      return { sourceName, params: typespace[ref].product };
    }

    function describeView(view) {
      const { sourceName, ret, explicitName } = view;
      const row = (ret.element ?? ret.value).self;
      if (row.kind === "row") row.typeName ??= toPascalCase(`${sourceName}_row`);
      if (explicitName !== undefined) explicitNames.push({ kind: 1, sourceName, canonicalName: explicitName });
      return { ...view, returnType: typeOf(ret) };
    }

    function describeSchedules(tables) {
      const entries = Object.entries(schema.tables);
      const schedules = [];
      const add = (tableName, table, functionName) => {
        if (table.scheduleAtCol === undefined) throw new TypeError(`table "${tableName}" has a schedule but no t.scheduleAt() column`);
        const other = schedules.find(schedule => schedule.tableName === tableName);
        if (other) throw new TypeError(`table "${tableName}" has two schedules: ${other.functionName} and ${functionName}`);
        schedules.push({ tableName, column: table.scheduleAtCol, functionName });
      };
      for (const [tableName, table] of entries) {
        const { scheduled } = table.options;
        if (scheduled === undefined || table.scheduleAtCol === undefined) continue;
        const functionName = registry.exported.get(scheduled());
        if (functionName === undefined) throw new TypeError(`table "${tableName}" is scheduled, but its function is not exported`);
        add(tableName, table, functionName);
      }
      for (const { table, functionName } of registry.schedules) {
        const owners = entries.filter(([, entry]) => entry === table);
        if (owners.length !== 1) throw new TypeError(`the function "${functionName}" is scheduled by a table that is in the schema ${owners.length} times`);
        add(owners[0][0], table, functionName);
      }
      return schedules;
    }

    const tables = Object.entries(schema.tables).map(([name, table], index) => describeTable(name, table, index));
    const reducers = registry.reducers.map(describeReducer);
    const procedures = registry.procedures.map(({ sourceName, params: builders, ret }) => ({ sourceName, params: params(builders), ret: typeOf(ret) }));
    const views = registry.views.map(describeView);
    const handlers = registry.handlers.map(({ sourceName, explicitName }) => {
      if (explicitName !== undefined) explicitNames.push({ kind: 1, sourceName, canonicalName: explicitName });
      return sourceName;
    });
    const routes = registry.routers.flatMap(router => router.intoRoutes()).map(({ method, path, handler }) => {
      const handlerFunction = registry.exported.get(handler);
      if (!handlers.includes(handlerFunction)) throw new TypeError(`the route "${path}" leads to a handler that is not exported`);
      return { method, path, handlerFunction };
    });
    const schedules = describeSchedules(tables);

    u32(15);
    section(0, () => array(typespace, writeType));
    section(1, () => array(typeNames, ({ scope, name, ref }) => (array(scope, string), string(name), u32(ref), u8(1))));
    section(2, () => array(tables, writeTable));
    section(3, () => array(reducers, reducer => {
      string(reducer.sourceName);
      members(reducer.params);
      u8(CLIENT_CALLABLE);
      writeType(unit);
      writeType(leaf("string"));
    }));
    section(4, () => array(procedures, procedure => {
      string(procedure.sourceName);
      members(procedure.params);
      writeType(procedure.ret);
      u8(CLIENT_CALLABLE);
    }));
    section(5, () => array(views, view => {
      string(view.sourceName);
      u32(view.index);
      u8(view.isPublic ? 1 : 0);
      u8(view.isAnonymous ? 1 : 0);
      array([], string);
      writeType(view.returnType);
    }));
    section(13, () => array(views.filter(view => view.primaryKey !== undefined), view => (string(view.sourceName), array([view.primaryKey], string))));
    section(6, () => array(schedules, ({ tableName, column, functionName }) => (option(undefined), string(tableName), u16(column), string(functionName))));
    section(7, () => array(registry.lifecycle, ({ lifecycle, functionName }) => (u8(lifecycle), string(functionName))));
    section(11, () => array(handlers, string));
    section(12, () => array(routes, ({ handlerFunction, method, path }) => {
      string(handlerFunction);
      if (method === undefined) u8(0);
      else u8(1), writeMethod(method);
      string(path);
    }));
    section(8, () => array(registry.rules, string));
    section(10, () => array(explicitNames, ({ kind, sourceName, canonicalName }) => (u8(kind), string(sourceName), string(canonicalName))));
    section(9, () => u8(schema.settings.CASE_CONVERSION_POLICY?.tag === "None" ? 0 : 1));
    section(14, () => array(submodules, inner => (string(inner.path.at(-1)), writeModule(inner))));
  }

  u8(2);
  writeModule(root);
  return { bytes: Uint8Array.from(out), defaults };
})

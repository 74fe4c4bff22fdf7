// Type builders: what `t.u32()` and its kin return. A builder is a description that is walked once, when the module is
// compiled; nothing here runs during a call.

const INTEGERS = freeze(["i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "i128", "u128", "i256", "u256"]);
const INDEX_ALGORITHMS = freeze(["btree", "hash", "direct"]);

const isBuilder = value => value instanceof TypeBuilder;

function checkBuilder(value, what) {
  if (value instanceof ColumnBuilder) {
    throw new TypeError(`${what}: a column with .${HostObject.keys(value.columnMetadata)[0] ?? "index"}() cannot be nested in another type`);
  }
  if (!isBuilder(value)) throw new TypeError(`${what} must be a type such as t.u32(), got ${inspect(value, 1, [])}`);
  return value;
}

function checkMembers(members, what) {
  if (typeof members !== "object" || members === null) throw new TypeError(`${what} must be an object of types, got ${inspect(members, 1, [])}`);
  return members;
}

class TypeBuilder {
  constructor(kind) { this.kind = kind; }
  // Through the proxy of `t.lazy` this gives the builder itself, so that one lazy type is one type.
  get self() { return this; }
  optional() { return new OptionBuilder(this); }
  index(algorithm = "btree") { return new ColumnBuilder(this, {}).index(algorithm); }
  unique() { return new ColumnBuilder(this, {}).unique(); }
  primaryKey() { return new ColumnBuilder(this, {}).primaryKey(); }
  autoInc() { return new ColumnBuilder(this, {}).autoInc(); }
  default(value) { return new ColumnBuilder(this, {}).default(value); }
  name(name) { return new ColumnBuilder(this, {}).name(name); }
}

class ColumnBuilder {
  constructor(typeBuilder, columnMetadata) {
    this.typeBuilder = typeBuilder;
    this.columnMetadata = columnMetadata;
  }
  #with(metadata) { return new ColumnBuilder(this.typeBuilder, { ...this.columnMetadata, ...metadata }); }
  index(algorithm = "btree") {
    if (!INDEX_ALGORITHMS.includes(algorithm)) throw new TypeError(`index("${algorithm}"): the algorithms are ${INDEX_ALGORITHMS.join(", ")}`);
    return this.#with({ indexType: algorithm });
  }
  unique() { return this.#with({ isUnique: true }); }
  primaryKey() { return this.#with({ isPrimaryKey: true }); }
  autoInc() {
    if (!INTEGERS.includes(this.typeBuilder.kind)) throw new TypeError(`autoInc() needs an integer column, this one is ${this.typeBuilder.kind}`);
    return this.#with({ isAutoIncrement: true });
  }
  default(value) { return this.#with({ defaultValue: value }); }
  name(name) { return this.#with({ name }); }
}

class ArrayBuilder extends TypeBuilder {
  constructor(element) {
    super("array");
    this.element = checkBuilder(element, "the element of t.array()");
  }
}

class OptionBuilder extends TypeBuilder {
  constructor(value) {
    super("option");
    this.value = checkBuilder(value, "the value of t.option()");
  }
}

class ResultBuilder extends TypeBuilder {
  constructor(ok, err) {
    super("result");
    this.ok = checkBuilder(ok, "the first type of t.result()");
    this.err = checkBuilder(err, "the second type of t.result()");
  }
}

class ProductBuilder extends TypeBuilder {
  constructor(elements, name) {
    super("product");
    this.elements = checkMembers(elements, "the fields of t.object()");
    this.typeName = name;
  }
}

class RowBuilder extends TypeBuilder {
  constructor(row, name) {
    super("row");
    this.row = {};
    this.typeName = name;
    for (const [column, builder] of HostObject.entries(checkMembers(row, "a row"))) {
      this.row[column] = builder instanceof ColumnBuilder ? builder : new ColumnBuilder(checkBuilder(builder, `column "${column}"`), {});
    }
  }
}

class SumBuilder extends TypeBuilder {
  constructor(variants, name) {
    super("sum");
    this.variants = checkMembers(variants, "the variants of t.enum()");
    this.typeName = name;
    for (const [tag, descriptor] of HostObject.entries(getOwnPropertyDescriptors(variants))) {
      // A getter is a type that is not defined yet (a recursive one), and so not a unit.
      const isUnit = !descriptor.get && isBuilder(descriptor.value) && descriptor.value.kind === "unit";
      const value = isUnit ? freeze({ tag }) : value => (value === undefined ? { tag } : { tag, value });
      defineProperty(this, tag, { value, enumerable: true });
    }
  }
}

function named(make, what) {
  return (nameOrMembers, members) => {
    if (typeof nameOrMembers !== "string") return make(nameOrMembers, undefined);
    if (!members) throw new TypeError(`${what}("${nameOrMembers}") needs its members as second argument`);
    return make(members, nameOrMembers);
  };
}

const simple = kind => () => new TypeBuilder(kind);
const t = {
  bool: simple("bool"), string: simple("string"), number: simple("f64"), f32: simple("f32"), f64: simple("f64"),
  unit: simple("unit"), byteArray: simple("byteArray"), identity: simple("identity"), connectionId: simple("connectionId"),
  timestamp: simple("timestamp"), timeDuration: simple("timeDuration"), scheduleAt: simple("scheduleAt"), uuid: simple("uuid"),
  array: element => new ArrayBuilder(element),
  option: value => new OptionBuilder(value),
  result: (ok, err) => new ResultBuilder(ok, err),
  object: named((elements, name) => new ProductBuilder(elements, name), "t.object"),
  row: named((row, name) => new RowBuilder(row, name), "t.row"),
  enum: named((variants, name) => {
    if (!isArray(variants)) return new SumBuilder(variants, name);
    return new SumBuilder(HostObject.fromEntries(variants.map(tag => [tag, new TypeBuilder("unit")])), name);
  }, "t.enum"),
  lazy(thunk) {
    let builder;
    const target = () => (builder ??= checkBuilder(thunk(), "the result of t.lazy()"));
    return new Proxy(new TypeBuilder("lazy"), {
      get: (_, key) => {
        const value = Reflect.get(target(), key);
        return typeof value === "function" ? value.bind(target()) : value;
      },
      has: (_, key) => key in target(),
    });
  },
};
for (const kind of INTEGERS) t[kind] = simple(kind);
freeze(t);

// What reducers and procedures get as `ctx`. One object of each kind per instance; the accessors are native and read
// the call that is running, so nothing is built for a call that does not ask for it.

const random = () => native.random();
random.fill = array => native.randomFill(array);
random.uint32 = () => native.randomUint32();
random.integerInRange = (min, max) => native.randomInteger(min, max);
random.bigintInRange = (min, max) => {
  if (min > max) throw new RangeError("bigintInRange(): the minimum is above the maximum");
  const size = max - min + 1n;
  const bits = size.toString(2).length;
  for (;;) {
    const value = native.randomBits(bits);
    if (value < size) return min + value;
  }
};
freeze(random);

class JwtClaims {
  #payload;
  constructor(rawPayload) {
    this.#payload = JSON.parse(rawPayload);
    this.rawPayload = rawPayload;
    this.identity = native.sender();
    freeze(this);
  }
  get fullPayload() { return this.#payload; }
  get subject() { return this.#payload.sub; }
  get issuer() { return this.#payload.iss; }
  get audience() {
    const audience = this.#payload.aud ?? [];
    return typeof audience === "string" ? [audience] : audience;
  }
}

class AuthCtx {
  #claims;
  constructor() {
    this.isInternal = native.isInternal();
    const payload = native.jwtPayload();
    this.#claims = payload === undefined ? null : new JwtClaims(payload);
    freeze(this);
  }
  get hasJWT() { return this.#claims !== null; }
  get jwt() { return this.#claims; }
}

const accessors = {
  sender: native.sender,
  connectionId: native.connectionId,
  identity: native.databaseIdentity,
  databaseIdentity: native.databaseIdentity,
  random: () => random,
  senderAuth: () => new AuthCtx(),
};
const contextPrototype = {
  newUuidV4: native.newUuidV4,
  newUuidV7: native.newUuidV7,
};
for (const [name, get] of HostObject.entries(accessors)) defineProperty(contextPrototype, name, { get, enumerable: true });

function makeContext(timestamp, members) {
  const context = HostObject.create(contextPrototype, getOwnPropertyDescriptors(members));
  defineProperty(context, "timestamp", { get: timestamp, enumerable: true });
  return freeze(context);
}

// Runs `body` in a transaction. Its commit is tried twice, so the body may run twice.
function withTx(body, transaction) {
  const run = () => {
    native.beginTransaction();
    try {
      return body(transaction);
    } catch (error) {
      native.abortTransaction();
      throw error;
    }
  };
  let result = run();
  try {
    native.commitTransaction();
    return result;
  } catch {
    consoleObject.warn("the transaction could not be committed, running it again");
  }
  result = run();
  native.commitTransaction();
  return result;
}

const clientOfHttp = freeze({ fetch: freeze(function fetch(url, init = {}) { return http().fetch(url, init); }) });

// Shows the sender to the views that may see it.
const senderPrototype = defineProperty({}, "sender", { get: native.sender, enumerable: true });

// What makes the objects that the native side hands to the functions of one module, each when the first function of its kind is
// there; `inner` are those of the modules within it, by name.
function contextsOf(db, tables, prefix, inner) {
  const as = kind => freeze(HostObject.fromEntries(HostObject.entries(inner).map(([name, contexts]) => [name, contexts[kind]()])));
  const from = once(() => query().makeFrom(tables, prefix));
  const transaction = once(() => makeContext(native.transactionTimestamp, { db, as: as("transaction") }));
  return {
    transaction,
    reducer: once(() => makeContext(native.timestamp, { db, as: as("reducer") })),
    procedure: once(() => makeContext(native.timestamp, { as: as("procedure"), http: clientOfHttp, withTx: body => withTx(body, transaction()) })),
    view: once(() => freeze(HostObject.assign(HostObject.create(senderPrototype), { db, from: from() }))),
    anonymousView: once(() => freeze({ db, from: from() })),
  };
}

// What makes the contexts of all modules of a registered program, in order; `handles` are the objects of their tables by name.
function makeContexts({ root, modules }, handles) {
  const made = new Map();
  const make = module => {
    const inner = {};
    const db = handles[modules.indexOf(module)];
    for (const submodule of module.submodules) {
      const name = submodule.path.at(-1);
      inner[name] = make(submodule);
      defineProperty(db, name, { value: handles[modules.indexOf(submodule)], enumerable: true });
    }
    const prefix = module.path.map(name => `${name}.`).join("");
    const contexts = contextsOf(freeze(db), module.schema.tables, prefix, inner);
    made.set(module, contexts);
    return contexts;
  };
  make(root);
  return modules.map(module => made.get(module));
}

// What `iter()` and `filter()` return: native iterators that have the language's iterator helpers.
const rowsPrototype = HostObject.create(getPrototypeOf(getPrototypeOf([][HostSymbol.iterator]())));
hidden(rowsPrototype, "next", native.rowsNext);
hidden(rowsPrototype, "return", native.rowsReturn);

const exports = {
  t, schema, table, SenderError, SpacetimeHostError, errors, CaseConversionPolicy, toCamelCase, Range, ScheduleAt,
  Identity, ConnectionId, Timestamp, TimeDuration, Uuid, TypeBuilder, ColumnBuilder, RowBuilder, ProductBuilder, SumBuilder,
  ArrayBuilder, OptionBuilder, ResultBuilder,
  get Headers() { return http().Headers; }, get Request() { return http().Request; },
  get SyncResponse() { return http().SyncResponse; }, get Router() { return http().Router; },
  get BooleanExpr() { return query().BooleanExpr; }, get and() { return query().and; }, get or() { return query().or; }, get not() { return query().not; },
};
const callHandler = (...args) => http().callHandler(...args);
return { exports, register, makeContexts, querySql, callHandler, rangeBounds, rowsPrototype, errorByCode, SpacetimeHostError, SenderError };

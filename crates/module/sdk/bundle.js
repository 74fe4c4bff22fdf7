// What a bundle of the SpacetimeDB tool chain finds around it, besides the language: a clock that stands still during a
// call, no randomness but its own, and nothing of the engine's extras. (The text codecs are natives; the console comes with the
// bundle.) Runs before any code of the user's, so it may trust the intrinsics; whatever it uses later is captured here.

const { Date: HostDate, Math: HostMath, Object: HostObject, Reflect: HostReflect, Symbol: HostSymbol, TypeError: HostTypeError } = globalThis;
const { defineProperty, getOwnPropertyNames } = HostObject;
const { apply } = HostReflect;

const { hidden } = native;

for (const name of ["queueMicrotask", "navigator", "Atomics", "SharedArrayBuffer", "gc"]) {
  delete globalThis[name];
}

defineProperty(HostMath, "random", {
  get() {
    throw new HostTypeError("Math.random is not available in modules, because calls must be repeatable: use ctx.random");
  },
  enumerable: false,
  configurable: false,
});

const moduleHooks = HostSymbol("SpacetimeDB.moduleHooks.v2");

// Asks the schema, a bundle's default export, for the functions that the host calls. All of them need `hooks` as receiver.
function start(namespace) {
  const schema = namespace.default;
  const makeHooks = schema === undefined || schema === null ? undefined : schema[moduleHooks];
  if (typeof makeHooks !== "function") {
    throw new HostTypeError("the default export of the bundle must be its schema: export default schema({ ... })");
  }
  const hooks = apply(makeHooks, schema, [namespace]);
  const required = name => {
    const hook = hooks[name];
    if (typeof hook !== "function") throw new HostTypeError(`the bundle's schema has no ${name}: it was made by another SDK`);
    return hook;
  };
  return {
    hooks,
    describe: required("__describe_module__"),
    errorConstructor: required("__get_error_constructor__"),
    senderError: required("__sender_error_class__"),
    callReducer: required("__call_reducer__"),
    callView: required("__call_view__"),
    callViewAnonymous: required("__call_view_anon__"),
    callProcedure: required("__call_procedure__"),
    callHandler: hooks.__call_http_handler__,
  };
}

// HTTP as modules see it: what handlers are asked and answer, how routes lead to them, and the client of procedures. All of it is
// synchronous: bodies are complete before anybody sees them.

"use strict";
(function ({ HostObject, HostSymbol, TextDecoder, TextEncoder, TimeDuration, freeze, hidden, inspect, isArray, native, stringify }) {
const HTTP_VERSIONS = freeze(["Http09", "Http10", "Http11", "Http2", "Http3"].map(tag => freeze({ tag })));
const HTTP_11 = 2;
const METHODS = freeze(["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]);
const httpEncoder = new TextEncoder();
const httpDecoder = new TextDecoder();

class Headers {
  #entries = [];
  constructor(init) {
    if (init === undefined || init === null) return;
    const entries = typeof init[HostSymbol.iterator] === "function" ? init : HostObject.entries(init);
    for (const [name, value] of entries) {
      for (const one of isArray(value) ? value : [value]) this.append(name, one);
    }
  }
  static #name(name) {
    const text = `${name}`.toLowerCase();
    if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(text)) throw new TypeError(`"${name}" is not the name of a header`);
    return text;
  }
  static #value(value) {
    const text = `${value}`.trim();
    if (/[\0\r\n]/.test(text)) throw new TypeError("the value of a header is one line");
    return text;
  }
  append(name, value) { this.#entries.push([Headers.#name(name), Headers.#value(value)]); }
  set(name, value) {
    this.delete(name);
    this.append(name, value);
  }
  delete(name) {
    const wanted = Headers.#name(name);
    this.#entries = this.#entries.filter(([known]) => known !== wanted);
  }
  get(name) {
    const wanted = Headers.#name(name);
    const found = this.#entries.filter(([known]) => known === wanted).map(([, value]) => value);
    return found.length === 0 ? null : found.join(", ");
  }
  has(name) { return this.get(name) !== null; }
  getSetCookie() { return this.#entries.filter(([name]) => name === "set-cookie").map(([, value]) => value); }
  *entries() {
    const names = [...new Set(this.#entries.map(([name]) => name))].sort();
    for (const name of names) {
      if (name === "set-cookie") for (const cookie of this.getSetCookie()) yield [name, cookie];
      else yield [name, this.get(name)];
    }
  }
  *keys() { for (const [name] of this.entries()) yield name; }
  *values() { for (const [, value] of this.entries()) yield value; }
  [HostSymbol.iterator]() { return this.entries(); }
  forEach(callback) { for (const [name, value] of this.entries()) callback(value, name, this); }
}

function bodyBytes(body) {
  if (body === undefined || body === null) return new Uint8Array();
  if (typeof body === "string") return httpEncoder.encode(body);
  if (body instanceof ArrayBuffer) return new Uint8Array(body.slice(0));
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength).slice();
  throw new TypeError(`a body is a string, an ArrayBuffer or a typed array, got ${inspect(body, 1, [])}`);
}

class Body {
  #bytes;
  constructor(body) { this.#bytes = bodyBytes(body); }
  bytes() { return this.#bytes.slice(); }
  arrayBuffer() { return this.bytes().buffer; }
  text() { return httpDecoder.decode(this.#bytes); }
  json() { return JSON.parse(this.text()); }
}

class Request extends Body {
  #init;
  constructor(url, init = {}) {
    super(init.body);
    this.#init = { uri: `${url}`, method: init.method ?? "GET", headers: new Headers(init.headers), version: init.version ?? HTTP_VERSIONS[HTTP_11] };
  }
  get method() { return this.#init.method; }
  get uri() { return this.#init.uri; }
  get url() { return this.#init.uri; }
  get headers() { return this.#init.headers; }
  get version() { return this.#init.version; }
}

class SyncResponse extends Body {
  #init;
  constructor(body, init = {}) {
    super(body);
    const status = init.status ?? 200;
    if (!Number.isInteger(status) || status < 100 || status > 599) throw new RangeError(`${status} is not the status of a response`);
    this.#init = { status, statusText: init.statusText ?? "", headers: new Headers(init.headers), version: init.version ?? HTTP_VERSIONS[HTTP_11], url: init.url ?? "" };
  }
  get status() { return this.#init.status; }
  get statusText() { return this.#init.statusText; }
  get ok() { return this.status >= 200 && this.status <= 299; }
  get headers() { return this.#init.headers; }
  get version() { return this.#init.version; }
  get url() { return this.#init.url; }
  get type() { return this.#init.url === "" ? "default" : "basic"; }
}

// Natives pass headers as one flat array of names and values.
const flatHeaders = headers => [...headers].flat();
function pairedHeaders(flat) {
  const headers = new Headers();
  for (let i = 0; i < flat.length; i += 2) headers.append(flat[i], flat[i + 1]);
  return headers;
}
const versionNumber = version => {
  const number = HTTP_VERSIONS.findIndex(({ tag }) => tag === version?.tag);
  return number < 0 ? HTTP_11 : number;
};

function fetch(url, init = {}) {
  const given = init.method ?? "GET";
  const method = METHODS.includes(given.toUpperCase()) ? given.toUpperCase() : given;
  const { timeout } = init;
  if (timeout !== undefined && !(timeout instanceof TimeDuration)) throw new TypeError("the timeout of fetch() is a TimeDuration");
  const headers = flatHeaders(new Headers(init.headers));
  const [status, version, answered, body] = native.httpRequest(method, `${url}`, timeout?.micros, headers, bodyBytes(init.body));
  return new SyncResponse(body, { status, headers: pairedHeaders(answered), version: HTTP_VERSIONS[version], url: `${url}` });
}

// Called by the host for a request: runs a handler and takes its response apart.
function callHandler(handler, ctx, [method, uri, version, headers, body]) {
  const request = new Request(uri, { method, headers: pairedHeaders(headers), version: HTTP_VERSIONS[version], body });
  const response = handler(ctx, request);
  if (!(response instanceof SyncResponse)) throw new TypeError(`an HTTP handler must return a SyncResponse, got ${inspect(response, 1, [])}`);
  return [response.status, versionNumber(response.version), flatHeaders(response.headers), response.bytes()];
}

const ROUTE_PATH = /^(\/[a-z0-9\-_~/]*)?$/;

const joinPaths = (prefix, path) => {
  if (prefix === "/") return path;
  if (path === "/") return prefix;
  return `${prefix.replace(/\/+$/, "")}/${path.replace(/^\/+/, "")}`;
};

// Which handler answers which request. Immutable: every method returns another router.
class Router {
  #routes;
  constructor(routes = []) { this.#routes = routes; }
  any(path, handler) { return this.route(undefined, path, handler); }
  route(method, path, handler) {
    if (typeof path !== "string" || !ROUTE_PATH.test(path)) {
      throw new TypeError(`the path of a route begins with / and has lower-case letters, digits and -_~/ only: ${stringify(path)}`);
    }
    const clash = other => other.path === path && (other.method === undefined || method === undefined || other.method === method);
    if (this.#routes.some(clash)) throw new TypeError(`there are two routes for ${method ?? "any method"} "${path}"`);
    return new Router([...this.#routes, { method, path, handler }]);
  }
  nest(path, router) {
    if (this.#routes.some(route => route.path.startsWith(path))) throw new TypeError(`there are routes that begin with "${path}" already`);
    return router.#routes.reduce((all, route) => all.route(route.method, joinPaths(path, route.path), route.handler), this);
  }
  merge(router) { return router.#routes.reduce((all, route) => all.route(route.method, route.path, route.handler), this); }
  intoRoutes() { return [...this.#routes]; }
}
for (const method of METHODS) {
  hidden(Router.prototype, method.toLowerCase(), function (path, handler) { return this.route(method, path, handler); });
}

return { Headers, Request, Router, SyncResponse, callHandler, fetch };
})

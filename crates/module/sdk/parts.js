// Parts of the SDK that most modules do without. Each is a script of its own, which is read and run when something of it is first
// asked for; the names of ours that it uses are handed to it.

const QUERY = HostSymbol("tine.query");

const once = make => {
  let made;
  return () => (made ??= make());
};
const shared = {
  ConnectionId, HostObject, HostString, HostSymbol, Identity, QUERY, TextDecoder, TextEncoder, TimeDuration, Timestamp, Uuid, freeze,
  hidden, inspect, isArray, native, stringify,
};
const query = once(() => native.part(0)(shared));
const http = once(() => native.part(1)(shared));

// The SQL of a query that a view returned; undefined for everything else.
const querySql = value => (value?.[QUERY] === true ? value.toSql() : undefined);

/** Types of `/tine/client.js`. */

/** Values as rows hold them. See the head of `client.js` for how column types map to them. */
export type Value =
  | boolean
  | number
  | bigint
  | string
  | null
  | Uint8Array
  | Value[]
  | { tag: string; value?: Value }
  | { [column: string]: Value };

/** A row: columns by their names in SQL. */
export type Row = Record<string, any>;

/** What one message changed in one table. */
export interface TableChange<R = Row> {
  inserts: R[];
  updates: { old: R; new: R }[];
  deletes: R[];
}

/** What one message changed, by table name. */
export interface Change {
  tables: Map<string, TableChange>;
}

export interface ConnectOptions {
  /** Name or identity of a database, or `name@fork`. */
  database: string;
  /** Origin of the server; the page's own by default. */
  url?: string | URL;
  /** Token of the identity to act as; without it the server makes a new identity. */
  token?: string | null;
  /** Whether messages wait until their commit is on stable storage; by default they do on durable forks. */
  confirmed?: boolean;
  /**
   * Connect again, ever more patiently, when the connection is lost, and subscribe again. Rows stay
   * until the new ones are there; the difference is told as one change. Off by default.
   */
  reconnect?: boolean;
  /** Called once for each message that changed rows. */
  onChange?: (change: Change) => void;
  /** Called when the state changes. */
  onState?: (state: ConnectionState) => void;
  /** Called once, when the connection has ended for good; not after `close()`. */
  onClose?: (reason: TineError) => void;
}

export type ConnectionState = "connecting" | "open" | "reconnecting" | "closed";

/**
 * Why something failed: `sender` (the module refused the call on purpose), `internal` (the call
 * failed), `query` (a query was refused), `schema` (no such table or function), `refused` (no
 * connection was made), `lost` and `closed` (the connection ended), `protocol`.
 */
export class TineError extends Error {
  constructor(kind: TineError["kind"], message: string);
  readonly kind: "sender" | "internal" | "query" | "schema" | "refused" | "lost" | "closed" | "protocol";
}

/** The rows of one table that the subscriptions select; changes as commits arrive. */
export interface LiveTable<R = Row> extends Iterable<R> {
  readonly name: string;
  readonly size: number;
  /** The row with this primary key; an array of values when the key has several columns. */
  get(key: unknown): R | undefined;
  /** Each returns a function that ends it. */
  onInsert(callback: (row: R) => void): () => void;
  onUpdate(callback: (old: R, row: R) => void): () => void;
  onDelete(callback: (row: R) => void): () => void;
}

export interface Subscription {
  readonly queries: string[];
  unsubscribe(): Promise<void>;
}

export interface Connection {
  /** 64 hexadecimal digits. */
  readonly identity: string;
  /** 32 hexadecimal digits. */
  readonly connectionId: string;
  /** Keep it to come back as the same identity. */
  readonly token: string;
  readonly schema: Schema;
  readonly state: ConnectionState;
  table<R = Row>(name: string): LiveTable<R>;
  rows<R = Row>(name: string): LiveTable<R>;
  onChange(callback: (change: Change) => void): () => void;
  subscribe(queries: string | string[]): Promise<Subscription>;
  /** Calls a reducer (resolves to undefined) or a procedure (resolves to its value). */
  call(name: string, args?: Record<string, unknown> | unknown[]): Promise<any>;
  close(): void;
}

/** Resolves when the server has accepted the connection. */
export function connect(options: ConnectOptions): Promise<Connection>;

/** The server's rule for names in SQL. */
export function snakeCase(name: string): string;

/** Tables and functions of a database. */
export class Schema {
  constructor(definition: unknown);
  readonly tables: Map<string, unknown>;
  readonly reducers: Map<string, unknown>;
  readonly procedures: Map<string, unknown>;
}

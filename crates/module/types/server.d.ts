/**
 * Types of `tine:server`, the SDK built into Tine, for editors and `tsc`.
 *
 * Put this file next to a module as `tine.d.ts`. Tine itself does not check types: it removes them.
 */
declare module "tine:server" {

  /** Who somebody is: a user, or a database. 256 bits. */
  export class Identity {
    constructor(value: bigint | string);
    readonly __identity__: bigint;
    isEqual(other: Identity): boolean;
    equals(other: Identity): boolean;
    /** 64 hexadecimal digits. */
    toHexString(): string;
    toString(): string;
    /** 32 bytes, least significant first. */
    toUint8Array(): Uint8Array;
    static fromString(hex: string): Identity;
    static zero(): Identity;
  }

  /** One connection of a client. 128 bits. */
  export class ConnectionId {
    constructor(value: bigint);
    readonly __connection_id__: bigint;
    isEqual(other: ConnectionId): boolean;
    equals(other: ConnectionId): boolean;
    isZero(): boolean;
    toHexString(): string;
    toString(): string;
    toUint8Array(): Uint8Array;
    static fromString(hex: string): ConnectionId;
    static fromStringOrNull(hex: string): ConnectionId | null;
    static nullIfZero(id: ConnectionId): ConnectionId | null;
    static random(): ConnectionId;
  }

  /** A point in time, in microseconds since the Unix epoch. */
  export class Timestamp {
    constructor(microsSinceUnixEpoch: bigint);
    readonly __timestamp_micros_since_unix_epoch__: bigint;
    readonly microsSinceUnixEpoch: bigint;
    toMillis(): bigint;
    toDate(): Date;
    /** With six digits of fraction. */
    toISOString(): string;
    since(other: Timestamp): TimeDuration;
    static readonly UNIX_EPOCH: Timestamp;
    /** The time of the running call. */
    static now(): Timestamp;
    static fromDate(date: Date): Timestamp;
  }

  /** A span of time in microseconds; may be negative. */
  export class TimeDuration {
    constructor(micros: bigint);
    readonly __time_duration_micros__: bigint;
    readonly micros: bigint;
    readonly millis: number;
    toString(): string;
    static fromMillis(millis: number): TimeDuration;
  }

  export type UuidVersion = "Nil" | "V4" | "V7" | "Max";

  export class Uuid {
    constructor(value: bigint);
    readonly __uuid__: bigint;
    asBigInt(): bigint;
    toString(): string;
    toHexString(): string;
    /** 16 bytes, most significant first. */
    toBytes(): Uint8Array;
    isEqual(other: Uuid): boolean;
    compareTo(other: Uuid): number;
    getVersion(): UuidVersion;
    getCounter(): number;
    static readonly NIL: Uuid;
    static readonly MAX: Uuid;
    static readonly MAX_UUID_BIGINT: bigint;
    static parse(text: string): Uuid;
    static fromRandomBytesV4(bytes: Uint8Array): Uuid;
    static fromCounterV7(counter: { value: number }, now: Timestamp, randomBytes: Uint8Array): Uuid;
  }

  /** When a row of a schedule table is due: again and again, or once. */
  export type ScheduleAt = { tag: "Interval"; value: TimeDuration } | { tag: "Time"; value: Timestamp };
  export const ScheduleAt: {
    readonly interval: (micros: bigint) => { tag: "Interval"; value: TimeDuration };
    readonly time: (microsSinceUnixEpoch: bigint) => { tag: "Time"; value: Timestamp };
  };

  /** One end of a {@link Range}. */
  export type Bound<T> = { tag: "included"; value: T } | { tag: "excluded"; value: T } | { tag: "unbounded" };

  /** What an index scan covers; an end that is left out is open. */
  export class Range<T> {
    constructor(from?: Bound<T> | null, to?: Bound<T> | null);
    readonly from: Bound<T>;
    readonly to: Bound<T>;
  }


  /** Thrown by a reducer to tell its caller something: the message reaches the client as it is. */
  export class SenderError extends Error {
    constructor(message: string);
  }

  /** What tables and transactions throw. */
  export class SpacetimeHostError extends Error {
    constructor(message: string);
  }

  type HostErrorName =
    | "HostCallFailure" | "NotInTransaction" | "BsatnDecodeError" | "NoSuchTable" | "NoSuchIndex" | "NoSuchIter"
    | "NoSuchConsoleTimer" | "NoSuchBytes" | "NoSpace" | "BufferTooSmall" | "UniqueAlreadyExists" | "ScheduleAtDelayTooLong"
    | "IndexNotUnique" | "NoSuchRow" | "AutoIncOverflow" | "WouldBlockTransaction" | "TransactionNotAnonymous"
    | "TransactionIsReadOnly" | "TransactionIsMut" | "HttpError";
  export const errors: { readonly [N in HostErrorName]: new (message: string) => SpacetimeHostError };


  type IndexAlgorithm = "btree" | "hash" | "direct";
  type Metadata = { index?: IndexAlgorithm; unique?: true; primaryKey?: true; autoInc?: true; default?: true };

  /** A type whose values are `T` in TypeScript. */
  export class TypeBuilder<T> {
    private readonly __type: T;
    optional(): OptionBuilder<TypeBuilder<T>>;
    /** Makes an index over this column. */
    index(): ColumnBuilder<T, { index: "btree" }>;
    index<A extends IndexAlgorithm>(algorithm: A): ColumnBuilder<T, { index: A }>;
    /** No two rows have the same value here. */
    unique(): ColumnBuilder<T, { unique: true }>;
    primaryKey(): ColumnBuilder<T, { primaryKey: true }>;
    /** An inserted zero is replaced by the next number. Integers only. */
    autoInc(): ColumnBuilder<T, { autoInc: true }>;
    /** What existing rows get when the column is added. */
    default(value: T): ColumnBuilder<T, { default: true }>;
    name(name: string): ColumnBuilder<T, {}>;
  }

  /** A type with what is said about the column. */
  export class ColumnBuilder<T, M extends Metadata = {}> {
    readonly typeBuilder: TypeBuilder<T>;
    readonly columnMetadata: M;
    private readonly __type: T;
    index(): ColumnBuilder<T, M & { index: "btree" }>;
    index<A extends IndexAlgorithm>(algorithm: A): ColumnBuilder<T, M & { index: A }>;
    unique(): ColumnBuilder<T, M & { unique: true }>;
    primaryKey(): ColumnBuilder<T, M & { primaryKey: true }>;
    autoInc(): ColumnBuilder<T, M & { autoInc: true }>;
    default(value: T): ColumnBuilder<T, M & { default: true }>;
    name(name: string): ColumnBuilder<T, M>;
  }

  type AnyType = TypeBuilder<any>;
  type AnyColumn = TypeBuilder<any> | ColumnBuilder<any, any>;
  type Members = Record<string, AnyType>;
  type Columns = Record<string, AnyColumn>;

  /** The TypeScript type of a type, a column, or an object of them. */
  export type Infer<B> =
    B extends TypeBuilder<infer T> ? T :
    B extends ColumnBuilder<infer T, any> ? T :
    B extends Columns ? InferTypeOfRow<B> : never;

  type OptionalKeys<C extends Columns> = { [K in keyof C]-?: undefined extends Infer<C[K]> ? K : never }[keyof C];
  export type InferTypeOfRow<C extends Columns> =
    { [K in Exclude<keyof C, OptionalKeys<C>>]: Infer<C[K]> } & { [K in OptionalKeys<C>]?: Infer<C[K]> };

  export class ArrayBuilder<E extends AnyType> extends TypeBuilder<Infer<E>[]> {
    readonly element: E;
  }
  export class OptionBuilder<V extends AnyType> extends TypeBuilder<Infer<V> | undefined> {
    readonly value: V;
  }
  export class ResultBuilder<O extends AnyType, E extends AnyType> extends TypeBuilder<{ ok: Infer<O> } | { err: Infer<E> }> {
    readonly ok: O;
    readonly err: E;
  }
  export class ProductBuilder<E extends Members> extends TypeBuilder<{ [K in keyof E]: Infer<E[K]> }> {
    readonly elements: E;
  }
  export class RowBuilder<C extends Columns> extends TypeBuilder<InferTypeOfRow<C>> {
    readonly row: C;
  }

  type Unit = TypeBuilder<{}> & { readonly __unit: true };
  type Variant<K, B> = B extends Unit ? { tag: K } : { tag: K; value: Infer<B> };
  type SumValue<V extends Members> = { [K in keyof V]: Variant<K, V[K]> }[keyof V];
  export class SumBuilder<V extends Members> extends TypeBuilder<SumValue<V>> {
    readonly variants: V;
  }
  /** A sum whose variants are values (`Shape.Dot`) or functions that make values (`Shape.Circle(1)`). */
  type Sum<V extends Members> = SumBuilder<V> & {
    readonly [K in keyof V]: V[K] extends Unit ? { tag: K } : (value: Infer<V[K]>) => { tag: K; value: Infer<V[K]> };
  };

  /** Makers of types. */
  export const t: {
    bool(): TypeBuilder<boolean>;
    string(): TypeBuilder<string>;
    /** The same as `f64`. */
    number(): TypeBuilder<number>;
    i8(): TypeBuilder<number>;
    u8(): TypeBuilder<number>;
    i16(): TypeBuilder<number>;
    u16(): TypeBuilder<number>;
    i32(): TypeBuilder<number>;
    u32(): TypeBuilder<number>;
    i64(): TypeBuilder<bigint>;
    u64(): TypeBuilder<bigint>;
    i128(): TypeBuilder<bigint>;
    u128(): TypeBuilder<bigint>;
    i256(): TypeBuilder<bigint>;
    u256(): TypeBuilder<bigint>;
    f32(): TypeBuilder<number>;
    f64(): TypeBuilder<number>;
    unit(): Unit;
    byteArray(): TypeBuilder<Uint8Array>;
    identity(): TypeBuilder<Identity>;
    connectionId(): TypeBuilder<ConnectionId>;
    timestamp(): TypeBuilder<Timestamp>;
    timeDuration(): TypeBuilder<TimeDuration>;
    scheduleAt(): TypeBuilder<ScheduleAt>;
    uuid(): TypeBuilder<Uuid>;
    array<E extends AnyType>(element: E): ArrayBuilder<E>;
    option<V extends AnyType>(value: V): OptionBuilder<V>;
    result<O extends AnyType, E extends AnyType>(ok: O, err: E): ResultBuilder<O, E>;
    object<E extends Members>(name: string, fields: E): ProductBuilder<E>;
    row<C extends Columns>(columns: C): RowBuilder<C>;
    row<C extends Columns>(name: string, columns: C): RowBuilder<C>;
    enum<const V extends readonly string[]>(name: string, variants: V): Sum<{ [K in V[number]]: Unit }>;
    enum<V extends Members>(name: string, variants: V): Sum<V>;
    /** A type that is looked up when it is needed, for types that refer to one another. */
    lazy<B extends AnyType>(thunk: () => B): B;
  };


  type IndexOptions<C extends string> = { accessor: string; name?: string } & (
    | { algorithm: "btree" | "hash"; columns: readonly C[] }
    | { algorithm: "direct"; column: C }
  );

  export type TableOptions<C extends Columns> = {
    /** The table's name in the database; by default that of its key in `schema()`. */
    name?: string;
    /** Whether clients may read it. */
    public?: boolean;
    indexes?: readonly IndexOptions<keyof C & string>[];
    constraints?: readonly { name?: string; constraint: "unique"; columns: readonly (keyof C & string)[] }[];
    /** The function that is called for each row when it is due. `onSchedule` of the function says the same. */
    scheduled?: () => ModuleExport;
    /** Rows are sent to subscribers and not kept. */
    event?: boolean;
  };

  /** What `table()` returns: a description, for `schema()`. */
  export interface TableSchema<C extends Columns, O> {
    readonly tableName?: string;
    readonly rowType: RowBuilder<C>;
    readonly __options?: O;
  }

  export function table<C extends Columns, const O extends TableOptions<C>>(options: O, row: C | RowBuilder<C>): TableSchema<C, O>;

  /** The iterators that tables return have the helpers of the language: `map`, `filter`, `take`, `toArray` and so on. */
  export type Rows<R> = IteratorObject<R, undefined>;

  export interface TableMethods<R> {
    /** Adds a row and returns it with the numbers that were generated. */
    insert(row: R): R;
    /** Deletes the row that equals this one. */
    delete(row: R): boolean;
    /** Deletes all rows and returns how many there were. */
    clear(): bigint;
    count(): bigint;
    /** All rows, as they are now. */
    iter(): Rows<R>;
    [Symbol.iterator](): Rows<R>;
  }

  export interface UniqueIndex<R, K> {
    find(key: K): R | null;
    /** Replaces the row that has this key. */
    update(row: R): R;
    delete(key: K): boolean;
  }

  export interface PointIndex<R, K> {
    filter(key: K): Rows<R>;
    /** Returns how many rows were deleted. */
    delete(key: K): number;
  }

  export interface RangedIndex<R, B> {
    filter(range: B): Rows<R>;
    /** Returns how many rows were deleted. */
    delete(range: B): number;
  }

  type MetadataOf<B> = B extends ColumnBuilder<any, infer M> ? M : {};
  type ColumnIndex<R, B> =
    MetadataOf<B> extends { unique: true } | { primaryKey: true } ? UniqueIndex<R, Infer<B>> :
    MetadataOf<B> extends { index: "hash" } ? PointIndex<R, Infer<B>> :
    MetadataOf<B> extends { index: IndexAlgorithm } ? RangedIndex<R, Infer<B> | Range<Infer<B>>> : never;
  type ColumnIndexes<C extends Columns> = {
    readonly [K in keyof C as ColumnIndex<unknown, C[K]> extends never ? never : K]: ColumnIndex<InferTypeOfRow<C>, C[K]>;
  };

  type ColumnsOf<I> = I extends { columns: infer L extends readonly string[] } ? L : I extends { column: infer N extends string } ? readonly [N] : never;
  type KeyOf<C extends Columns, L extends readonly string[]> =
    L extends readonly [infer H extends string, ...infer T extends readonly string[]] ? [Infer<C[H]>, ...KeyOf<C, T>] : [];
  type Prefixes<K extends readonly unknown[]> =
    K extends readonly [...infer P, infer L] ? readonly [...P, L | Range<L>] | (P extends readonly [unknown, ...unknown[]] ? Prefixes<P> : never) : never;
  type Alone<K extends readonly unknown[]> = K extends readonly [infer F] ? F | Range<F> : never;
  type OneOrAll<K extends readonly unknown[]> = K extends readonly [infer F] ? F : K;
  type TableIndexes<C extends Columns, O> = O extends { indexes: infer L extends readonly { accessor: string }[] }
    ? {
        readonly [I in L[number] as I["accessor"]]: I extends { algorithm: "hash" }
          ? PointIndex<InferTypeOfRow<C>, OneOrAll<KeyOf<C, ColumnsOf<I>>>>
          : RangedIndex<InferTypeOfRow<C>, Prefixes<KeyOf<C, ColumnsOf<I>>> | Alone<KeyOf<C, ColumnsOf<I>>>>
            & UniqueIndex<InferTypeOfRow<C>, OneOrAll<KeyOf<C, ColumnsOf<I>>>>;
      }
    : {};

  export type Table<S> = S extends TableSchema<infer C, infer O> ? TableMethods<InferTypeOfRow<C>> & ColumnIndexes<C> & TableIndexes<C, O> : never;
  type Tables = Record<string, TableSchema<any, any>>;

  /** What a schema is made of: its tables, and the modules it uses. */
  export type SchemaParts = { tables: Tables; namespaces?: Record<string, SchemaParts> };
  type Namespaces<S extends SchemaParts> = S extends { namespaces: infer N extends Record<string, SchemaParts> } ? N : {};

  /** The tables of a schema, open for reading and writing; those of a module it uses under the module's name. */
  export type DbView<S extends SchemaParts> = { readonly [K in keyof S["tables"]]: Table<S["tables"][K]> } & {
    readonly [K in keyof Namespaces<S>]: DbView<Extract<Namespaces<S>[K], SchemaParts>>;
  };

  type ReadOnlyIndex<I> = I extends unknown ? { readonly [K in Extract<keyof I, "find" | "filter">]: I[K] } : never;
  type ReadOnlyTable<T> = { readonly [K in Extract<keyof T, "iter" | "count" | typeof Symbol.iterator>]: T[K] } & {
    readonly [K in Exclude<keyof T, keyof TableMethods<any>>]: ReadOnlyIndex<T[K]>;
  };
  /** The tables of a schema, open for reading. */
  export type ReadonlyDbView<S extends SchemaParts> = { readonly [K in keyof S["tables"]]: ReadOnlyTable<Table<S["tables"][K]>> };

  /** A condition of a query. */
  export class BooleanExpr {
    private constructor();
    and(other: BooleanExpr): BooleanExpr;
    or(other: BooleanExpr): BooleanExpr;
    not(): BooleanExpr;
  }
  export function and(...clauses: BooleanExpr[]): BooleanExpr;
  export function or(...clauses: BooleanExpr[]): BooleanExpr;
  export function not(clause: BooleanExpr): BooleanExpr;

  /** A column in a condition. */
  export interface ColumnExpression<T> {
    eq(other: T | ColumnExpression<T>): BooleanExpr;
    ne(other: T | ColumnExpression<T>): BooleanExpr;
    lt(other: T | ColumnExpression<T>): BooleanExpr;
    lte(other: T | ColumnExpression<T>): BooleanExpr;
    gt(other: T | ColumnExpression<T>): BooleanExpr;
    gte(other: T | ColumnExpression<T>): BooleanExpr;
  }
  type ColumnExpressions<C extends Columns> = { readonly [K in keyof C]: ColumnExpression<Infer<C[K]>> };
  type Condition = BooleanExpr | ColumnExpression<boolean> | boolean;

  /** A query whose rows are `R`: a view may return it instead of rows. */
  export interface Query<R> {
    readonly __row?: R;
    toSql(): string;
  }
  export interface From<C extends Columns> extends Query<InferTypeOfRow<C>> {
    where(predicate: (row: ColumnExpressions<C>) => Condition): From<C>;
    /** The rows of this table that have a match in another. */
    leftSemijoin<D extends Columns>(other: From<D>, on: (left: ColumnExpressions<C>, right: ColumnExpressions<D>) => BooleanExpr): Semijoin<C>;
    /** The rows of the other table that have a match here. */
    rightSemijoin<D extends Columns>(other: From<D>, on: (left: ColumnExpressions<C>, right: ColumnExpressions<D>) => BooleanExpr): Semijoin<D>;
  }
  export interface Semijoin<C extends Columns> extends Query<InferTypeOfRow<C>> {
    where(predicate: (row: ColumnExpressions<C>) => Condition): Semijoin<C>;
  }
  export type QueryBuilder<S extends SchemaParts> = {
    readonly [K in keyof S["tables"]]: S["tables"][K] extends TableSchema<infer C, any> ? From<C> : never;
  };

  /** What an anonymous view gets: it returns the same for everybody. */
  export interface AnonymousViewCtx<S extends SchemaParts> {
    readonly db: ReadonlyDbView<S>;
    readonly from: QueryBuilder<S>;
  }
  export interface ViewCtx<S extends SchemaParts> extends AnonymousViewCtx<S> {
    /** Who asks. */
    readonly sender: Identity;
  }
  type ViewRows<R extends AnyType> = Infer<R> extends readonly (infer E)[] ? readonly E[] | Query<E> : Infer<R> | null | Query<NonNullable<Infer<R>>>;

  /** A body of HTTP. */
  export type BodyInit = string | ArrayBuffer | ArrayBufferView;
  export type HeadersInit = Iterable<readonly [string, string]> | Record<string, string | readonly string[]> | Headers;
  export type HttpVersion = { tag: "Http09" | "Http10" | "Http11" | "Http2" | "Http3" };
  export class Headers {
    constructor(init?: HeadersInit);
    append(name: string, value: string): void;
    set(name: string, value: string): void;
    delete(name: string): void;
    get(name: string): string | null;
    has(name: string): boolean;
    getSetCookie(): string[];
    entries(): IteratorObject<[string, string], undefined>;
    keys(): IteratorObject<string, undefined>;
    values(): IteratorObject<string, undefined>;
    [Symbol.iterator](): IteratorObject<[string, string], undefined>;
    forEach(callback: (value: string, name: string, headers: Headers) => void): void;
  }
  interface Body {
    bytes(): Uint8Array;
    arrayBuffer(): ArrayBuffer;
    text(): string;
    json(): any;
  }
  /** What a handler is asked. */
  export class Request {
    constructor(url: string, init?: { method?: string; headers?: HeadersInit; body?: BodyInit | null; version?: HttpVersion });
    readonly method: string;
    /** Path and query. */
    readonly uri: string;
    /** The same as `uri`. */
    readonly url: string;
    readonly headers: Headers;
    readonly version: HttpVersion;
  }
  export interface Request extends Body {}
  /** What a handler answers, and what `fetch` returns. */
  export class SyncResponse {
    constructor(body?: BodyInit | null, init?: { status?: number; statusText?: string; headers?: HeadersInit; version?: HttpVersion });
    readonly status: number;
    readonly statusText: string;
    readonly ok: boolean;
    readonly headers: Headers;
    readonly version: HttpVersion;
    readonly url: string;
    readonly type: "default" | "basic";
  }
  export interface SyncResponse extends Body {}
  export interface HttpClient {
    /** Sends a request and waits for the answer. Not inside a transaction, and only where the server's operator allows. */
    fetch(url: string, init?: { method?: string; headers?: HeadersInit; body?: BodyInit | null; timeout?: TimeDuration }): SyncResponse;
  }
  export type HttpHandler<S extends SchemaParts> = (ctx: HandlerContext<S>, request: Request) => SyncResponse;
  export type HttpHandlerExport<S extends SchemaParts> = HttpHandler<S> & ModuleExport & { readonly __handler?: never };
  /** Which handler answers which request. Every method returns another router. */
  export class Router {
    get(path: string, handler: HttpHandlerExport<any>): Router;
    head(path: string, handler: HttpHandlerExport<any>): Router;
    post(path: string, handler: HttpHandlerExport<any>): Router;
    put(path: string, handler: HttpHandlerExport<any>): Router;
    delete(path: string, handler: HttpHandlerExport<any>): Router;
    connect(path: string, handler: HttpHandlerExport<any>): Router;
    options(path: string, handler: HttpHandlerExport<any>): Router;
    trace(path: string, handler: HttpHandlerExport<any>): Router;
    patch(path: string, handler: HttpHandlerExport<any>): Router;
    /** Any method. */
    any(path: string, handler: HttpHandlerExport<any>): Router;
    nest(path: string, router: Router): Router;
    merge(router: Router): Router;
  }


  type IntegerArray = Int8Array | Uint8Array | Uint8ClampedArray | Int16Array | Uint16Array | Int32Array | Uint32Array | BigInt64Array | BigUint64Array;

  /** Random numbers that come from the call's seed: a call that is replayed gets the same ones. */
  export interface Random {
    /** From 0 up to, but not, 1. */
    (): number;
    fill<A extends IntegerArray>(array: A): A;
    uint32(): number;
    /** Both ends included. */
    integerInRange(min: number, max: number): number;
    bigintInRange(min: bigint, max: bigint): bigint;
  }

  export interface JwtClaims {
    readonly rawPayload: string;
    readonly subject: string;
    readonly issuer: string;
    readonly audience: readonly string[];
    readonly identity: Identity;
    readonly fullPayload: { [claim: string]: unknown };
  }

  export interface AuthCtx {
    /** Whether the database itself calls, as for schedules. */
    readonly isInternal: boolean;
    readonly hasJWT: boolean;
    readonly jwt: JwtClaims | null;
  }

  interface CallCtx {
    /** Who calls. */
    readonly sender: Identity;
    readonly connectionId: ConnectionId | null;
    readonly timestamp: Timestamp;
    readonly databaseIdentity: Identity;
    /** The same as `databaseIdentity`. */
    readonly identity: Identity;
    readonly senderAuth: AuthCtx;
    readonly random: Random;
    newUuidV4(): Uuid;
    newUuidV7(): Uuid;
  }

  /** What a reducer gets: one transaction, committed when it returns and undone when it throws. */
  export interface ReducerCtx<S extends SchemaParts> extends CallCtx {
    readonly db: DbView<S>;
    /** The same for the modules that this one uses. */
    readonly as: { readonly [K in keyof Namespaces<S>]: ReducerCtx<Extract<Namespaces<S>[K], SchemaParts>> };
  }
  export type TransactionCtx<S extends SchemaParts> = ReducerCtx<S>;

  /** What a procedure gets: it may run several transactions. */
  export interface ProcedureCtx<S extends SchemaParts> extends CallCtx {
    readonly http: HttpClient;
    readonly as: { readonly [K in keyof Namespaces<S>]: ProcedureCtx<Extract<Namespaces<S>[K], SchemaParts>> };
    /** Runs `body` in a transaction. If the commit is refused, `body` runs a second time. */
    withTx<T>(body: (ctx: TransactionCtx<S>) => T): T;
  }

  /** What an HTTP handler gets. Nobody is its sender. */
  export type HandlerContext<S extends SchemaParts> =
    Pick<ProcedureCtx<S>, "timestamp" | "http" | "identity" | "random" | "withTx" | "newUuidV4" | "newUuidV7">;

  /** Something that a module may export. */
  export interface ModuleExport {
    readonly __export?: never;
  }

  type Params = Record<string, AnyColumn>;
  export type Reducer<S extends SchemaParts, P extends Params> = (ctx: ReducerCtx<S>, args: InferTypeOfRow<P>) => void;
  export type ReducerExport<S extends SchemaParts, P extends Params> = Reducer<S, P> & ModuleExport;
  export type Procedure<S extends SchemaParts, P extends Params, R> = (ctx: ProcedureCtx<S>, args: InferTypeOfRow<P>) => R;
  export type ProcedureExport<S extends SchemaParts, P extends Params, R> = Procedure<S, P, R> & ModuleExport;

  type FunctionOptions = { name?: string; onSchedule?: TableSchema<any, any> };
  type NamedOptions = FunctionOptions & { name: string };
  type ViewOptions = { name?: string; public: true };

  /** The tables of a module, and the makers of its functions. A module exports it as default. */
  export interface Schema<S extends SchemaParts> {
    readonly schemaType: S;
    reducer(fn: Reducer<S, {}>): ReducerExport<S, {}>;
    reducer(options: NamedOptions, fn: Reducer<S, {}>): ReducerExport<S, {}>;
    reducer<P extends Params>(params: P, fn: Reducer<S, P>): ReducerExport<S, P>;
    reducer<P extends Params>(options: FunctionOptions, params: P, fn: Reducer<S, P>): ReducerExport<S, P>;
    /** Runs once, when the database is made. */
    init(fn: Reducer<S, {}>): ReducerExport<S, {}>;
    init(options: NamedOptions, fn: Reducer<S, {}>): ReducerExport<S, {}>;
    /** Runs when a client connects; throwing refuses it. */
    clientConnected(fn: Reducer<S, {}>): ReducerExport<S, {}>;
    clientConnected(options: NamedOptions, fn: Reducer<S, {}>): ReducerExport<S, {}>;
    clientDisconnected(fn: Reducer<S, {}>): ReducerExport<S, {}>;
    clientDisconnected(options: NamedOptions, fn: Reducer<S, {}>): ReducerExport<S, {}>;
    procedure<R extends AnyType>(ret: R, fn: Procedure<S, {}, Infer<R>>): ProcedureExport<S, {}, Infer<R>>;
    procedure<R extends AnyType>(options: NamedOptions, ret: R, fn: Procedure<S, {}, Infer<R>>): ProcedureExport<S, {}, Infer<R>>;
    procedure<P extends Params, R extends AnyType>(params: P, ret: R, fn: Procedure<S, P, Infer<R>>): ProcedureExport<S, P, Infer<R>>;
    procedure<P extends Params, R extends AnyType>(options: FunctionOptions, params: P, ret: R, fn: Procedure<S, P, Infer<R>>): ProcedureExport<S, P, Infer<R>>;
    /** Rows that clients read like a table, worked out anew when what they were made of changes. Each client sees its own. */
    view<R extends AnyType>(options: ViewOptions, ret: R, fn: (ctx: ViewCtx<S>) => ViewRows<R>): ModuleExport;
    /** The same rows for everybody. */
    anonymousView<R extends AnyType>(options: ViewOptions, ret: R, fn: (ctx: AnonymousViewCtx<S>) => ViewRows<R>): ModuleExport;
    httpHandler(fn: HttpHandler<S>): HttpHandlerExport<S>;
    httpHandler(options: { name: string }, fn: HttpHandler<S>): HttpHandlerExport<S>;
    /** Answers requests below `/v1/database/NAME/route`. */
    httpRouter(router: Router): ModuleExport;
    /** Says by a query which rows of its table clients may see. */
    readonly clientVisibilityFilter: { sql(query: string): ModuleExport };
    exportGroup(members: Record<string, ModuleExport>): ModuleExport;
  }

  export type InferSchema<D> = D extends Schema<infer S> ? S : never;

  /** How names in TypeScript become names in the database. */
  export type CaseConversionPolicy = { readonly tag: "None" } | { readonly tag: "SnakeCase" };
  export const CaseConversionPolicy: { readonly None: { readonly tag: "None" }; readonly SnakeCase: { readonly tag: "SnakeCase" } };

  /** A module to be used within another: `import * as name from "./module"`. */
  type UsedModule = { readonly default: Schema<any> };
  type TablesOf<T> = { [K in keyof T as T[K] extends TableSchema<any, any> ? K : never]: Extract<T[K], TableSchema<any, any>> };
  type NamespacesOf<T> = { [K in keyof T as T[K] extends UsedModule ? K : never]: T[K] extends { default: Schema<infer S> } ? S : never };

  export function schema<const T extends Record<string, TableSchema<any, any> | UsedModule>>(
    entries: T,
    settings?: { CASE_CONVERSION_POLICY?: CaseConversionPolicy },
  ): Schema<{ tables: TablesOf<T>; namespaces: NamespacesOf<T> }>;

  export function toCamelCase(text: string): string;
}

declare module "spacetimedb/server" {
  export * from "tine:server";
}

declare module "spacetimedb" {
  export * from "tine:server";
}

/** The module's log. */
interface Console {
  error(...items: unknown[]): void;
  warn(...items: unknown[]): void;
  info(...items: unknown[]): void;
  log(...items: unknown[]): void;
  debug(...items: unknown[]): void;
  trace(...items: unknown[]): void;
  assert(condition?: boolean, ...items: unknown[]): void;
  count(label?: string): void;
  countReset(label?: string): void;
  /** Begins to measure; the time is for the log alone. */
  time(label?: string): void;
  /** Logs the time since the timer began. */
  timeLog(label?: string, ...items: unknown[]): void;
  /** Logs the time and ends the timer. */
  timeEnd(label?: string): void;
}
declare var console: Console;

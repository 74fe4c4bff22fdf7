// Queries that views return instead of rows: `ctx.from.person.where(row => row.age.gte(18))`. A query is a value that knows its
// SQL; whoever asks for the view's rows gets those of the query, kept up to date from the changes alone.

"use strict";
(function ({ ConnectionId, HostObject, HostString, Identity, QUERY, Timestamp, Uuid, freeze, hidden, inspect }) {
const quoteName = name => name.split(".").map(part => `"${part.replaceAll('"', '""')}"`).join(".");

function literalText(value) {
  if (value instanceof Identity || value instanceof ConnectionId || value instanceof Uuid) return `0x${value.toHexString()}`;
  if (value instanceof Timestamp) return `'${value.toISOString()}'`;
  switch (typeof value) {
    case "number":
    case "bigint":
      return HostString(value);
    case "boolean":
      return value ? "TRUE" : "FALSE";
    case "string":
      return `'${value.replaceAll("'", "''")}'`;
    default:
      throw new TypeError(`a column of a query cannot be compared with ${inspect(value, 1, [])}`);
  }
}

const operand = value => (value instanceof ColumnExpression ? value.text : literalText(value));

class BooleanExpr {
  constructor(text) {
    this.text = text;
    freeze(this);
  }
  and(other) { return and(this, other); }
  or(other) { return or(this, other); }
  not() { return new BooleanExpr(`NOT (${this.text})`); }
}

class ColumnExpression {
  constructor(table, column) {
    this.text = `${quoteName(table)}.${quoteName(column)}`;
    freeze(this);
  }
}
for (const [name, operator] of HostObject.entries({ eq: "=", ne: "<>", lt: "<", lte: "<=", gt: ">", gte: ">=" })) {
  hidden(ColumnExpression.prototype, name, function (other) {
    return new BooleanExpr(`${this.text} ${operator} ${operand(other)}`);
  });
}

// What a predicate may return: a condition, a column of type bool, or a constant.
function condition(value) {
  if (value instanceof BooleanExpr) return value;
  if (value instanceof ColumnExpression) return value.eq(true);
  if (typeof value === "boolean") return new BooleanExpr(value ? "TRUE" : "FALSE");
  throw new TypeError(`a condition of a query must compare columns, got ${inspect(value, 1, [])}`);
}

const joined = operator => (...clauses) => new BooleanExpr(clauses.map(clause => `(${condition(clause).text})`).join(` ${operator} `));
const and = joined("AND");
const or = joined("OR");
const not = clause => condition(clause).not();

const where = clauses => (clauses.length === 0 ? "" : ` WHERE ${clauses.length === 1 ? clauses[0].text : and(...clauses).text}`);

class Semijoin {
  constructor(source, filter, on) {
    if (source.table.name === filter.table.name) throw new TypeError("a query cannot join a table with itself");
    this.source = source;
    this.filter = filter;
    this.on = on;
    hidden(this, QUERY, true);
    freeze(this);
  }
  where(predicate) { return new Semijoin(this.source.where(predicate), this.filter, this.on); }
  build() { return this; }
  toSql() {
    const [left, right] = [quoteName(this.filter.table.name), quoteName(this.source.table.name)];
    const clauses = [...this.filter.clauses, ...this.source.clauses];
    return `SELECT ${right}.* FROM ${left} JOIN ${right} ON ${this.on.text}${where(clauses)}`;
  }
}

class From {
  constructor(table, clauses) {
    this.table = table;
    this.clauses = clauses;
    hidden(this, QUERY, true);
    freeze(this);
  }
  where(predicate) { return new From(this.table, [...this.clauses, condition(predicate(this.table.columns))]); }
  // The rows of this table that have a match in another, or the rows of the other that have one here.
  leftSemijoin(other, on) { return new Semijoin(this, from(other), condition(on(this.table.columns, from(other).table.columns))); }
  rightSemijoin(other, on) { return new Semijoin(from(other), this, condition(on(this.table.columns, from(other).table.columns))); }
  build() { return this; }
  toSql() { return `SELECT * FROM ${quoteName(this.table.name)}${where(this.clauses)}`; }
}

function from(query) {
  if (query instanceof From) return query;
  throw new TypeError("a query is joined with a table of ctx.from");
}

// The object behind `ctx.from`: a query for each table, all rows of it as long as nothing is added.
function makeFrom(tables, prefix) {
  const queries = HostObject.create(null);
  for (const [accessor, { options, rowType }] of HostObject.entries(tables)) {
    const name = `${prefix}${options.name ?? accessor}`;
    const columns = HostObject.create(null);
    for (const [column, { columnMetadata }] of HostObject.entries(rowType.row)) {
      columns[column] = new ColumnExpression(name, columnMetadata.name ?? column);
    }
    queries[accessor] = new From(freeze({ name, columns: freeze(columns) }), []);
  }
  return freeze(queries);
}

return { BooleanExpr, and, makeFrom, not, or };
})

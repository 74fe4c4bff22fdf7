//! `tine subscribe`

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};
use tine_client::{
    ClientError, ConnectOptions, Connection,
    protocol::{QueryRows, RowList, ServerMessage, TableUpdate, TableUpdateRows},
    schema::{Schema, Table},
};
use tine_types::{Timestamp, bsatn::Reader, json::bsatn_to_json};

use super::Context;
use crate::{args::SubscribeArgs, failure::Failure, output::Output, values::row_text};

/// The one set of queries this verb makes.
const QUERY_SET: u32 = 1;
/// Code of the refusal to confirm what an ephemeral fork does.
const NEVER_CONFIRMED: &str = "TN0612";
/// How long a wait for messages may last when no end was asked for; the connection's own watch over
/// silent servers ends it sooner.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Prints the rows of queries and then their changes, until it is stopped.
///
/// # Errors
/// The client's, and a query the server refuses.
pub fn run(context: &Context, args: &SubscribeArgs) -> Result<(), Failure> {
    let schema = context.http.schema(&args.database)?;
    let queries = queries(args, &schema)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            followed = follow(context, args, &schema, &queries) => followed,
            stopped = tokio::signal::ctrl_c() => Ok(stopped?),
        }
    })
}

async fn follow(
    context: &Context<'_>,
    args: &SubscribeArgs,
    schema: &Schema,
    queries: &[String],
) -> Result<(), Failure> {
    let deadline = Instant::now() + args.timeout_s.map_or(WAIT_MAX, Duration::from_secs).min(WAIT_MAX);
    let options =
        ConnectOptions::new(&context.url, &args.database).with_token(&context.token).with_confirmed(!args.unconfirmed);
    let mut connection = Connection::connect(options).await.map_err(explain)?;
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let rows = connection.subscribe(QUERY_SET, &queries).await?;
    let mut printer = Printer { output: context.output, schema, changes_left: args.changes.unwrap_or(u64::MAX) };
    printer.initial(&rows)?;
    while printer.changes_left > 0 {
        match connection.recv_until(deadline).await {
            Ok(message) => printer.message(&message)?,
            Err(ClientError::Deadline { .. }) if args.timeout_s.is_some() => break,
            Err(error) => return Err(error.into()),
        }
    }
    connection.close().await?;
    Ok(())
}

/// Advice that fits subscribing.
fn explain(error: ClientError) -> Failure {
    if error.shown_code() == NEVER_CONFIRMED {
        let next = Some("add --unconfirmed: nothing on an ephemeral fork is ever on disk".to_owned());
        return Failure::Client { source: error, next };
    }
    error.into()
}

/// The given queries, or one per public table.
fn queries(args: &SubscribeArgs, schema: &Schema) -> Result<Vec<String>, Failure> {
    if !args.queries.is_empty() {
        return Ok(args.queries.clone());
    }
    let public = schema.tables.iter().filter(|table| table.public);
    let queries: Vec<String> = public.map(|table| format!("SELECT * FROM \"{}\"", table.name)).collect();
    if queries.is_empty() {
        return Err(Failure::NotFound {
            message: format!("`{}` has no public table", args.database),
            next: Some("name a query; its owner may read private tables".to_owned()),
        });
    }
    Ok(queries)
}

struct Printer<'a> {
    output: &'a Output,
    schema: &'a Schema,
    changes_left: u64,
}

/// What happened to a row.
#[derive(Clone, Copy)]
enum Operation {
    Initial,
    Insert,
    Delete,
    Update,
    Event,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Initial => "initial",
            Operation::Insert => "insert",
            Operation::Delete => "delete",
            Operation::Update => "update",
            Operation::Event => "event",
        }
    }

    fn mark(self) -> char {
        match self {
            Operation::Initial => '=',
            Operation::Insert => '+',
            Operation::Delete => '-',
            Operation::Update => '~',
            Operation::Event => '!',
        }
    }
}

type Row = Map<String, Value>;

impl<'a> Printer<'a> {
    fn initial(&mut self, rows: &QueryRows) -> Result<(), Failure> {
        let mut count = 0;
        for table_rows in &rows.tables {
            let table = self.table(&table_rows.table)?;
            for row in decode(table, &table_rows.rows)? {
                self.print(table, Operation::Initial, &row, None)?;
                count += 1;
            }
        }
        if self.output.is_json() {
            return self.output.json(&json!({ "op": "applied", "rows": count }));
        }
        self.output.line(&format!("-- {count} row{} now; changes follow", if count == 1 { "" } else { "s" }))
    }

    fn message(&mut self, message: &ServerMessage) -> Result<(), Failure> {
        match message {
            ServerMessage::TransactionUpdate(update) => {
                for query_set in &update.query_sets {
                    for table in &query_set.tables {
                        self.update(table)?;
                    }
                }
                Ok(())
            }
            ServerMessage::SubscriptionError { error, .. } => Err(ClientError::Query { message: error.clone() }.into()),
            _ => Ok(()),
        }
    }

    fn update(&mut self, update: &TableUpdate) -> Result<(), Failure> {
        let table = self.table(&update.table)?;
        match &update.rows {
            TableUpdateRows::Event { events } => {
                for row in decode(table, events)? {
                    self.change(table, Operation::Event, &row, None)?;
                }
            }
            TableUpdateRows::Persistent { inserts, deletes } => {
                let mut deleted: Vec<Option<Row>> = decode(table, deletes)?.into_iter().map(Some).collect();
                let inserted = decode(table, inserts)?;
                let pairs: Vec<Option<Row>> =
                    inserted.iter().map(|row| take_same_key(table, &mut deleted, row)).collect();
                for row in deleted.iter().flatten() {
                    self.change(table, Operation::Delete, row, None)?;
                }
                for (row, old) in inserted.iter().zip(&pairs) {
                    let operation = if old.is_some() { Operation::Update } else { Operation::Insert };
                    self.change(table, operation, row, old.as_ref())?;
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, table: &Table, operation: Operation, row: &Row, old: Option<&Row>) -> Result<(), Failure> {
        if self.changes_left == 0 {
            return Ok(());
        }
        self.changes_left -= 1;
        self.print(table, operation, row, old)
    }

    fn print(&self, table: &Table, operation: Operation, row: &Row, old: Option<&Row>) -> Result<(), Failure> {
        if self.output.is_json() {
            let mut line = json!({ "op": operation.name(), "table": table.name, "row": row });
            if let Some(old) = old {
                line["old"] = json!(old);
            }
            return self.output.json(&line);
        }
        let null = Value::Null;
        let columns = table
            .columns
            .iter()
            .map(|column| (column.name.as_str(), &column.ty, row.get(&column.name).unwrap_or(&null)));
        self.output.line(&format!("{} {} {}  {}", clock_text(), operation.mark(), table.name, row_text(columns)))
    }

    /// A table the server named. The schema was read before the subscription; a table that was added
    /// since cannot be in it.
    fn table(&self, name: &str) -> Result<&'a Table, Failure> {
        let unknown = || ClientError::Protocol(format!("rows of an unknown table `{name}`"));
        let schema = self.schema;
        schema.table(name).ok_or_else(|| unknown().into())
    }
}

/// The deleted row with the primary key of `inserted`, taken out: the two are one update.
fn take_same_key(table: &Table, deleted: &mut [Option<Row>], inserted: &Row) -> Option<Row> {
    if table.primary_key.is_empty() {
        return None;
    }
    let key = |row: &Row| -> Vec<Option<Value>> {
        let columns = table.primary_key.iter().filter_map(|&position| table.columns.get(position));
        columns.map(|column| row.get(&column.name).cloned()).collect()
    };
    let wanted = key(inserted);
    deleted.iter_mut().find(|row| row.as_ref().is_some_and(|row| key(row) == wanted)).and_then(Option::take)
}

fn decode(table: &Table, rows: &RowList) -> Result<Vec<Row>, Failure> {
    let wrong =
        |reason: String| Failure::from(ClientError::Protocol(format!("a row of table `{}`: {reason}", table.name)));
    let decode = |row: &[u8]| {
        let mut reader = Reader::new(row);
        match bsatn_to_json(&table.row_type, &mut reader) {
            Ok(Value::Object(row)) if reader.remaining() == 0 => Ok(row),
            Ok(_) => Err(wrong("it does not have the shape of the table".to_owned())),
            Err(error) => Err(wrong(error.to_string())),
        }
    };
    rows.rows().map(decode).collect()
}

/// Time of day, UTC.
fn clock_text() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let text = Timestamp::from_micros(now.as_micros() as i64).to_rfc3339();
    text.get(11..23).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tine_client::schema::Schema;

    use super::{Row, take_same_key};

    #[test]
    fn updates_are_pairs_with_the_same_key() {
        let field = |name: &str| json!({ "name": { "some": name }, "algebraic_type": { "U32": [] } });
        let schema = Schema::from_json(&json!({ "sections": [
            { "Typespace": { "types": [{ "Product": { "elements": [field("id"), field("age")] } }] } },
            { "Tables": [{ "source_name": "person", "product_type_ref": 0, "primary_key": [0] },
                         { "source_name": "note", "product_type_ref": 0, "primary_key": [] }] },
        ]}))
        .expect("a schema");
        let row =
            |id: u32, age: u32| -> Row { json!({ "id": id, "age": age }).as_object().expect("an object").clone() };
        let mut deleted = vec![Some(row(1, 10)), Some(row(2, 20))];
        let person = schema.table("person").expect("there");
        assert_eq!(take_same_key(person, &mut deleted, &row(2, 21)), Some(row(2, 20)));
        assert_eq!(take_same_key(person, &mut deleted, &row(2, 22)), None, "a row is paired once");
        assert_eq!(take_same_key(person, &mut deleted, &row(3, 10)), None);
        let note = schema.table("note").expect("there");
        assert_eq!(take_same_key(note, &mut deleted, &row(1, 10)), None, "no key, no pairs");
    }
}

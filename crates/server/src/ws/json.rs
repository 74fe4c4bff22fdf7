//! The subprotocol `v1.json.spacetimedb`: text messages, as tools and scripts speak them.
//!
//! It is an older protocol than the binary ones, with other messages. Requests are turned into today's and replies back, so that the
//! host knows nothing of it, and every guarantee about order holds here, too. What a reply must say of its request is kept until then.
//!
//! A message is an object with one entry, its kind. Values are SATS-JSON; rows and arguments are strings that hold JSON. Rows that a
//! query found have names (`row_to_json`); those of transactions are in the untyped form, since that is how the peer's tools get
//! them. Of others' transactions today's messages do not tell who made them: `reducer_call` is empty there, and the caller is zero.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json};
use tine_host::ForkHandle;
use tine_types::bsatn::Reader;
use tine_types::json::{bsatn_to_json, json_to_bsatn, product_from_json, product_to_sql_json, row_to_json};
use tine_types::protocol::{
    ClientMessage, ProcedureStatus, QueryRows, QuerySetUpdate, ReducerOutcome, RowList, ServerMessage, TableUpdateRows,
    TransactionUpdate,
};
use tine_types::{AlgebraicType, ConnectionId, Identity, Timestamp};

/// The query set of `Subscribe`, which has none of its own: each replaces the one before.
const WHOLE_SET: u32 = u32::MAX;
/// The flag of a call that only failures are to be told of.
const NO_SUCCESS_NOTIFY: u64 = 1;

/// What requests without a reply were, and who the client is.
pub(crate) struct JsonSession {
    fork: ForkHandle,
    /// Updates without their transaction.
    is_light: bool,
    identity: Identity,
    connection_id: ConnectionId,
    /// By the request id that stands for the client's own, which tools often leave at zero.
    calls: HashMap<u32, Call>,
    calls_made: u32,
    /// Sets by the kind of request that made them.
    sets: HashMap<u32, Set>,
    /// Replies to unsubscriptions that nobody asked for.
    unasked: u32,
    /// By the request id that stands for it.
    queries: HashMap<u32, Value>,
    queries_made: u32,
}

struct Call {
    request_id: u32,
    function: String,
    arguments: String,
    is_quiet: bool,
    /// What is wrong with the arguments: then the lane is asked for [`NO_FUNCTION`], and refuses in the request's turn.
    error: Option<String>,
}

/// A name that no function has.
const NO_FUNCTION: &str = "";

/// In which form rows are written.
#[derive(Clone, Copy)]
enum RowsOf {
    Query,
    Transaction,
}

struct Set {
    kind: SetKind,
    is_applied: bool,
}

impl From<SetKind> for Set {
    fn from(kind: SetKind) -> Set {
        Set { kind, is_applied: false }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SetKind {
    Single,
    Multi,
    Whole,
}

impl JsonSession {
    pub fn new(fork: ForkHandle, is_light: bool) -> JsonSession {
        JsonSession {
            fork,
            is_light,
            identity: Identity::from_le_bytes([0; 32]),
            connection_id: ConnectionId::ZERO,
            calls: HashMap::new(),
            calls_made: 0,
            sets: HashMap::new(),
            unasked: 0,
            queries: HashMap::new(),
            queries_made: 0,
        }
    }

    /// Appends what a text message asks for to `out`.
    ///
    /// # Errors
    /// What is wrong with the message, for the close frame.
    pub fn decode(&mut self, text: &str, out: &mut Vec<ClientMessage>) -> Result<(), String> {
        let message: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
        let mut entries = message.as_object().into_iter().flatten();
        let (Some((kind, body)), None) = (entries.next(), entries.next()) else {
            return Err("a message is an object with one entry, its kind".to_owned());
        };
        match kind.as_str() {
            "CallReducer" => {
                let (request_id, reducer, args) = self.call(body, "reducer")?;
                out.push(ClientMessage::CallReducer { request_id, reducer, args });
            }
            "CallProcedure" => {
                let (request_id, procedure, args) = self.call(body, "procedure")?;
                out.push(ClientMessage::CallProcedure { request_id, procedure, args });
            }
            "Subscribe" => {
                let request_id = number(body, "request_id")?;
                if self.sets.insert(WHOLE_SET, SetKind::Whole.into()).is_some() {
                    self.unasked += 1;
                    let (query_set_id, send_dropped_rows) = (WHOLE_SET, false);
                    out.push(ClientMessage::Unsubscribe { request_id, query_set_id, send_dropped_rows });
                }
                let queries = texts(body, "query_strings")?;
                out.push(ClientMessage::Subscribe { request_id, query_set_id: WHOLE_SET, queries });
            }
            "SubscribeSingle" | "SubscribeMulti" => {
                let (request_id, query_set_id) = (number(body, "request_id")?, query_id(body)?);
                let (set, queries) = match kind.as_str() {
                    "SubscribeSingle" => (SetKind::Single, vec![word(body, "query")?.into()]),
                    _ => (SetKind::Multi, texts(body, "query_strings")?),
                };
                self.sets.entry(query_set_id).or_insert(set.into());
                out.push(ClientMessage::Subscribe { request_id, query_set_id, queries });
            }
            "Unsubscribe" | "UnsubscribeMulti" => {
                let (request_id, query_set_id) = (number(body, "request_id")?, query_id(body)?);
                out.push(ClientMessage::Unsubscribe { request_id, query_set_id, send_dropped_rows: true });
            }
            "OneOffQuery" => {
                let request_id = self.queries_made;
                self.queries_made = self.queries_made.wrapping_add(1);
                let message_id = bytes_text(body.get("message_id"))?;
                self.queries.insert(request_id, message_id);
                out.push(ClientMessage::OneOffQuery { request_id, query: word(body, "query_string")?.into() });
            }
            other => return Err(format!("unknown kind of message `{other}`")),
        }
        Ok(())
    }

    /// Reads a call and keeps what its result must repeat. Returns the request id that stands for it, the function and its arguments.
    fn call(&mut self, body: &Value, name: &str) -> Result<(u32, Box<str>, Bytes), String> {
        let (request_id, function) = (number(body, "request_id")?, word(body, name)?);
        let given = body.get("args").ok_or("`args` is missing")?;
        // A string holds JSON; tools may as well send the JSON itself.
        let (value, arguments) = match given {
            Value::String(text) => {
                (serde_json::from_str(text).map_err(|error| format!("`args` is no JSON: {error}")), text.clone())
            }
            value => (Ok(value.clone()), value.to_string()),
        };
        let mut args = Vec::new();
        let encoded = match (self.fork.module().parameters(function), value) {
            (Some(parameters), Ok(value)) => product_from_json(parameters, &value, &mut args)
                .map_err(|error| format!("invalid arguments for `{function}`: {error}")),
            (Some(_), Err(error)) => Err(error),
            // A function that is not there is refused in its turn, by the lane.
            (None, _) => Ok(()),
        };
        let error = encoded.err();
        let asked = if error.is_some() { NO_FUNCTION } else { function };
        let is_quiet = body.get("flags").and_then(Value::as_u64) == Some(NO_SUCCESS_NOTIFY);
        let own_id = self.calls_made;
        self.calls_made = self.calls_made.wrapping_add(1);
        self.calls.insert(own_id, Call { request_id, function: function.to_owned(), arguments, is_quiet, error });
        Ok((own_id, asked.into(), args.into()))
    }

    /// The text of a message to the client; none for one that this protocol has no use for.
    pub fn encode(&mut self, message: &ServerMessage) -> Option<String> {
        let value = match message {
            ServerMessage::InitialConnection { identity, connection_id, token } => {
                (self.identity, self.connection_id) = (*identity, *connection_id);
                json!({ "IdentityToken": {
                    "identity": identity_json(*identity),
                    "token": token,
                    "connection_id": connection_json(*connection_id),
                } })
            }
            ServerMessage::SubscribeApplied { request_id, query_set_id, rows } => {
                if let Some(set) = self.sets.get_mut(query_set_id) {
                    set.is_applied = true;
                }
                self.applied("SubscribeApplied", "SubscribeMultiApplied", *request_id, *query_set_id, rows, true)
            }
            ServerMessage::UnsubscribeApplied { query_set_id: WHOLE_SET, .. } if self.unasked > 0 => {
                self.unasked -= 1;
                return None;
            }
            ServerMessage::UnsubscribeApplied { request_id, query_set_id, rows } => {
                let (none, kinds) =
                    (QueryRows { tables: Vec::new() }, ("UnsubscribeApplied", "UnsubscribeMultiApplied"));
                let rows = rows.as_ref().unwrap_or(&none);
                let value = self.applied(kinds.0, kinds.1, *request_id, *query_set_id, rows, false);
                self.sets.remove(query_set_id);
                value
            }
            ServerMessage::SubscriptionError { request_id, query_set_id, error } => {
                // A set that was applied lives on when a request with its number is refused.
                if request_id.is_none() || !self.sets.get(query_set_id).is_some_and(|set| set.is_applied) {
                    self.sets.remove(query_set_id);
                }
                json!({ "SubscriptionError": {
                    "total_host_execution_duration_micros": 0,
                    "request_id": option(request_id.map(Value::from)),
                    "query_id": option((*query_set_id != WHOLE_SET).then(|| Value::from(*query_set_id))),
                    "table_id": option(None),
                    "error": error,
                } })
            }
            ServerMessage::TransactionUpdate(update) => {
                let update = self.database_update(update);
                match self.is_light {
                    true => json!({ "TransactionUpdateLight": { "request_id": 0, "update": update } }),
                    false => {
                        let nobody = (Identity::from_le_bytes([0; 32]), ConnectionId::ZERO);
                        transaction(json!({ "Committed": update }), 0, nobody, None)
                    }
                }
            }
            ServerMessage::OneOffQueryResult { request_id, result } => self.query_result(*request_id, result),
            ServerMessage::ReducerResult { request_id, timestamp, outcome } => {
                return self.reducer_result(*request_id, *timestamp, outcome);
            }
            ServerMessage::ProcedureResult { status, timestamp, duration, request_id } => {
                let called = self.calls.remove(request_id).expect("every call is kept until its result");
                let status = match status {
                    ProcedureStatus::Returned(value) => json!({ "Returned": self.returned(&called.function, value) }),
                    ProcedureStatus::InternalError(error) => {
                        json!({ "InternalError": called.error.as_ref().unwrap_or(error) })
                    }
                };
                json!({ "ProcedureResult": {
                    "status": status,
                    "timestamp": timestamp_json(*timestamp),
                    "total_host_execution_duration": duration_json(duration.micros()),
                    "request_id": called.request_id,
                } })
            }
        };
        Some(value.to_string())
    }

    fn applied(&self, single: &str, multi: &str, request_id: u32, set: u32, rows: &QueryRows, inserted: bool) -> Value {
        let update = |value: Value| match inserted {
            true => json!({ "deletes": [], "inserts": value }),
            false => json!({ "deletes": value, "inserts": [] }),
        };
        let mut tables = rows.tables.iter().map(|table| {
            let (count, rows) = (table.rows.len(), self.rows(&table.table, &table.rows, RowsOf::Query));
            table_json(&table.table, count, update(rows))
        });
        match self.sets.get(&set).map(|set| set.kind) {
            Some(SetKind::Single) => {
                let table_rows = tables.next().unwrap_or_else(|| table_json("", 0, update(json!([]))));
                json!({ single: {
                    "request_id": request_id,
                    "total_host_execution_duration_micros": 0,
                    "query_id": { "id": set },
                    "rows": { "table_id": 0, "table_name": table_rows["table_name"].clone(), "table_rows": table_rows },
                } })
            }
            Some(SetKind::Whole) => json!({ "InitialSubscription": {
                "database_update": { "tables": tables.collect::<Vec<_>>() },
                "request_id": request_id,
                "total_host_execution_duration": duration_json(0),
            } }),
            _ => json!({ multi: {
                "request_id": request_id,
                "total_host_execution_duration_micros": 0,
                "query_id": { "id": set },
                "update": { "tables": tables.collect::<Vec<_>>() },
            } }),
        }
    }

    fn reducer_result(&mut self, request_id: u32, timestamp: Timestamp, outcome: &ReducerOutcome) -> Option<String> {
        let called = self.calls.remove(&request_id).expect("every call is kept until its result");
        let status = match outcome {
            ReducerOutcome::Ok { update, .. } => {
                if called.is_quiet && update.query_sets.is_empty() {
                    return None;
                }
                json!({ "Committed": self.database_update(update) })
            }
            ReducerOutcome::OkEmpty => json!({ "Committed": { "tables": [] } }),
            ReducerOutcome::Err(error) => {
                let text = Reader::new(error).str().map_or_else(|_| "the reducer failed".to_owned(), str::to_owned);
                json!({ "Failed": text })
            }
            ReducerOutcome::InternalError(error) => json!({ "Failed": called.error.as_ref().unwrap_or(error) }),
        };
        let caller = (self.identity, self.connection_id);
        Some(transaction(status, timestamp.micros(), caller, Some(called)).to_string())
    }

    fn query_result(&mut self, request_id: u32, result: &Result<QueryRows, String>) -> Value {
        let message_id = self.queries.remove(&request_id).unwrap_or(Value::from(""));
        let (error, tables) = match result {
            Ok(rows) => {
                let tables = rows.tables.iter();
                let table = tables.map(|table| {
                    let rows = self.rows(&table.table, &table.rows, RowsOf::Query);
                    json!({ "table_name": &*table.table, "rows": rows })
                });
                (None, table.collect())
            }
            Err(error) => (Some(Value::from(error.as_str())), Vec::new()),
        };
        json!({ "OneOffQueryResponse": {
            "message_id": message_id,
            "error": option(error),
            "tables": tables,
            "total_host_execution_duration": duration_json(0),
        } })
    }

    /// What a procedure returned, as JSON in a string.
    fn returned(&self, function: &str, value: &Bytes) -> Value {
        let module = self.fork.module();
        let ty = module.return_type(function);
        let json = ty.and_then(|ty| bsatn_to_json(ty, &mut Reader::new(value)).ok());
        Value::from(json.unwrap_or(Value::Array(Vec::new())).to_string())
    }

    fn database_update(&self, update: &TransactionUpdate) -> Value {
        let tables = update.query_sets.iter().flat_map(|set: &QuerySetUpdate| &set.tables);
        let tables = tables.map(|table| {
            let none = RowList::empty();
            let (inserts, deletes) = match &table.rows {
                TableUpdateRows::Persistent { inserts, deletes } => (inserts, deletes),
                TableUpdateRows::Event { events } => (events, &none),
            };
            let texts = |rows| self.rows(&table.table, rows, RowsOf::Transaction);
            let rows = json!({ "deletes": texts(deletes), "inserts": texts(inserts) });
            table_json(&table.table, inserts.len() + deletes.len(), rows)
        });
        json!({ "tables": tables.collect::<Vec<_>>() })
    }

    /// Rows as strings of JSON. A table that a publish has taken away meanwhile has none that could be read.
    fn rows(&self, table: &str, rows: &RowList, of: RowsOf) -> Value {
        let Some(ty) = self.fork.module().row_type(table) else { return json!([]) };
        let json = |row: &[u8]| match of {
            RowsOf::Query => row_to_json(&ty, &mut Reader::new(row)),
            RowsOf::Transaction => product_to_sql_json(&ty, &mut Reader::new(row)),
        };
        let text = |row: &[u8]| json(row).ok().map(|row| row.to_string());
        rows.rows().filter_map(text).collect()
    }
}

fn transaction(
    status: Value,
    timestamp_micros: i64,
    (identity, connection_id): (Identity, ConnectionId),
    called: Option<Call>,
) -> Value {
    let (name, args, request_id) =
        called.map(|call| (call.function, call.arguments, call.request_id)).unwrap_or_default();
    json!({ "TransactionUpdate": {
        "status": status,
        "timestamp": { "__timestamp_micros_since_unix_epoch__": timestamp_micros },
        "caller_identity": identity_json(identity),
        "caller_connection_id": connection_json(connection_id),
        "reducer_call": { "reducer_name": name, "reducer_id": 0, "args": args, "request_id": request_id },
        "energy_quanta_used": { "quanta": 0 },
        "total_host_execution_duration": duration_json(0),
    } })
}

fn table_json(name: &str, rows: usize, update: Value) -> Value {
    json!({ "table_id": 0, "table_name": name, "num_rows": rows, "updates": [update] })
}

fn identity_json(identity: Identity) -> Value {
    json!({ "__identity__": format!("0x{}", identity.to_hex()) })
}

fn connection_json(connection_id: ConnectionId) -> Value {
    json!({ "__connection_id__": connection_id.get() })
}

fn timestamp_json(timestamp: Timestamp) -> Value {
    json!({ "__timestamp_micros_since_unix_epoch__": timestamp.micros() })
}

fn duration_json(micros: i64) -> Value {
    json!({ "__time_duration_micros__": micros })
}

fn option(value: Option<Value>) -> Value {
    value.map_or_else(|| json!({ "none": [] }), |value| json!({ "some": value }))
}

fn number(body: &Value, name: &str) -> Result<u32, String> {
    let value = body.get(name).and_then(Value::as_u64).and_then(|value| u32::try_from(value).ok());
    value.ok_or_else(|| format!("`{name}` is to be a number of 32 bits"))
}

fn word<'v>(body: &'v Value, name: &str) -> Result<&'v str, String> {
    body.get(name).and_then(Value::as_str).ok_or_else(|| format!("`{name}` is to be a string"))
}

fn texts(body: &Value, name: &str) -> Result<Vec<Box<str>>, String> {
    let wrong = || format!("`{name}` is to be an array of strings");
    let list = body.get(name).and_then(Value::as_array).ok_or_else(wrong)?;
    list.iter().map(|text| text.as_str().map(Into::into).ok_or_else(wrong)).collect()
}

/// Bytes as hexadecimal digits: a string of them, or an array of numbers.
fn bytes_text(value: Option<&Value>) -> Result<Value, String> {
    let wrong = || "`message_id` is to be bytes".to_owned();
    let mut bytes = Vec::new();
    let value = value.ok_or("`message_id` is missing")?;
    json_to_bsatn(&AlgebraicType::bytes(), value, &mut bytes).map_err(|_| wrong())?;
    Ok(bsatn_to_json(&AlgebraicType::bytes(), &mut Reader::new(&bytes)).expect("they were bytes just now"))
}

/// `{"id": n}`, `[n]`, or the number itself.
fn query_id(body: &Value) -> Result<u32, String> {
    let id = body.get("query_id").ok_or("`query_id` is missing")?;
    let id = id.get("id").or_else(|| id.get(0)).unwrap_or(id).as_u64().and_then(|id| u32::try_from(id).ok());
    id.filter(|id| *id != WHOLE_SET).ok_or_else(|| "`query_id` is to be a number of 32 bits".to_owned())
}

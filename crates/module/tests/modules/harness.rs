//! A module, its instance and its database, in few words.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tine_base::SystemEnv;
use tine_module::isolation::Isolation;
use tine_module::{
    CallContext, CallError, CallHost, CompileError, CompiledModule, HandlerIndex, Instance, Limits, LoadError,
    LogEntry, ProcedureIndex, ReducerIndex, SourceBundle, SyscallError, ViewIndex, ViewOutcome, ViewRows,
    compile_isolated,
};
use tine_sandbox::{Sandbox, SandboxOptions};
use tine_store::{ForkId, Store, StoreOptions};
use tine_tables::{DatabaseSchema, SchemaError, TableRead, TableWriter};
use tine_types::bsatn::{Reader, encode_value};
use tine_types::http::{HttpRequest, HttpResponse, HttpVersion};
use tine_types::{AlgebraicType, AlgebraicValue, ConnectionId, Identity, Timestamp, json};

/// What most tests of calls begin with.
pub const PERSON: &str = r#"
import { schema, table, t, SenderError, errors, Range, ScheduleAt } from "tine:server";
const db = schema({
  person: table({ public: true }, { id: t.u64().primaryKey().autoInc(), name: t.string(), age: t.u32().index() }),
});
export default db;
"#;

pub fn limits() -> Limits {
    Limits { memory_bytes: 32 << 20, stack_bytes: 256 << 10, load_deadline: Duration::from_secs(5) }
}

/// The pool of workers of this test program, if it has its modules in workers.
fn isolation() -> Option<&'static Isolation> {
    static ISOLATION: OnceLock<(Sandbox, Isolation)> = OnceLock::new();
    let started = || {
        let sandbox = Sandbox::start(SandboxOptions::default()).expect("a sandbox starts");
        let isolation = Isolation::start(&sandbox, &limits()).expect("a pool starts");
        (sandbox, isolation)
    };
    crate::IS_ISOLATED.then(|| &ISOLATION.get_or_init(started).1)
}

/// Compiles a module where this test program has them.
pub fn compile(bundle: &SourceBundle, limits: &Limits) -> Result<Arc<CompiledModule>, CompileError> {
    match isolation() {
        Some(isolation) => compile_isolated(bundle, limits, isolation),
        None => tine_module::compile(bundle, limits),
    }
}

/// Makes an instance where this test program has them.
pub fn instantiate(
    module: &CompiledModule,
    schema: &Arc<DatabaseSchema>,
    limits: &Limits,
) -> Result<Instance, LoadError> {
    match isolation() {
        Some(isolation) => module.instantiate_isolated(schema, limits, isolation),
        None => module.instantiate(schema, limits),
    }
}

/// The host of a test: one transaction at a time, and a list of what was logged.
pub struct TestHost {
    pub tables: TableWriter,
    pub in_transaction: bool,
    /// Refuse to begin and end transactions, as the host of a reducer does.
    pub is_reducer: bool,
    pub log: Vec<LogEntry>,
    pub transactions: u32,
    pub commits_to_refuse: u32,
    pub now_micros: i64,
    /// What procedures sent, answered with an echo of the body.
    pub sent: Vec<HttpRequest>,
}

impl TestHost {
    fn check_procedure(&self) -> Result<(), SyscallError> {
        if self.in_transaction && !self.is_reducer {
            return Ok(());
        }
        Err(SyscallError::new(SyscallError::TRANSACTION_NOT_ANONYMOUS, "no transaction of a procedure is open"))
    }
}

impl CallHost for TestHost {
    fn tables(&mut self) -> Option<&mut TableWriter> {
        self.in_transaction.then_some(&mut self.tables)
    }

    fn log(&mut self, entry: LogEntry) {
        self.log.push(entry);
    }

    fn begin_transaction(&mut self) -> Result<Timestamp, SyscallError> {
        if self.in_transaction {
            return Err(SyscallError::new(SyscallError::WOULD_BLOCK_TRANSACTION, "a transaction is open already"));
        }
        self.in_transaction = true;
        self.transactions += 1;
        self.now_micros += 1_000_000;
        Ok(Timestamp::from_micros(self.now_micros))
    }

    fn commit_transaction(&mut self) -> Result<(), SyscallError> {
        self.check_procedure()?;
        assert!(std::mem::take(&mut self.in_transaction), "no transaction");
        if self.commits_to_refuse > 0 {
            self.commits_to_refuse -= 1;
            self.tables.rollback();
            return Err(SyscallError::new(SyscallError::HOST_CALL_FAILURE, "refused"));
        }
        self.tables.commit(b"", self.now_micros).expect("commits");
        Ok(())
    }

    fn abort_transaction(&mut self) -> Result<(), SyscallError> {
        self.check_procedure()?;
        assert!(std::mem::take(&mut self.in_transaction), "no transaction");
        self.tables.rollback();
        Ok(())
    }

    fn http_request(&mut self, request: &[u8], body: &[u8]) -> Result<(Vec<u8>, Vec<u8>), SyscallError> {
        if self.in_transaction {
            return Err(SyscallError::new(SyscallError::WOULD_BLOCK_TRANSACTION, "a transaction is open"));
        }
        let request = HttpRequest::decode(request)
            .map_err(|error| SyscallError::new(SyscallError::BSATN_DECODE_ERROR, error.to_string()))?;
        if !request.uri.starts_with("https://echo/") {
            return Err(SyscallError::new(SyscallError::HTTP_ERROR, format!("{} is not allowed", request.uri)));
        }
        let response = HttpResponse { headers: request.headers.clone(), version: HttpVersion::HTTP_2, code: 207 };
        self.sent.push(request);
        Ok((response.encode(), body.to_vec()))
    }
}

/// A module that runs.
pub struct Fixture {
    pub module: Arc<CompiledModule>,
    pub schema: Arc<DatabaseSchema>,
    pub instance: Instance,
    pub host: TestHost,
    pub context: CallContext,
    _directory: TempDir,
}

pub fn compile_source(source: &str) -> Result<Arc<CompiledModule>, CompileError> {
    compile(&SourceBundle::single("index.ts", source), &limits())
}

/// The definition behind [`PERSON`] with more code.
pub fn person(code: &str) -> Fixture {
    Fixture::new(&format!("{PERSON}{code}"))
}

impl Fixture {
    pub fn new(source: &str) -> Fixture {
        Fixture::of(compile_source(source).unwrap_or_else(|error| panic!("{error}")))
    }

    pub fn of(module: Arc<CompiledModule>) -> Fixture {
        Fixture::with_limits(module, &limits())
    }

    pub fn with_limits(module: Arc<CompiledModule>, limits: &Limits) -> Fixture {
        let directory = TempDir::new().expect("temporary directory");
        let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).expect("opens");
        let mut allocate = |count| match store.allocate_keyspaces(count) {
            Ok(first) => Ok(first.get()),
            Err(error) => Err(SchemaError::Allocate(Box::new(error))),
        };
        let schema = DatabaseSchema::from_module_def(module.def(), None, &mut allocate).expect("a valid definition");
        let schema = Arc::new(schema);
        let instance = instantiate(&module, &schema, limits).unwrap_or_else(|error| panic!("{error}"));
        let tables = TableWriter::new(store.writer(ForkId::MAIN).expect("free"), Arc::clone(&schema));
        let host = TestHost {
            tables,
            in_transaction: false,
            is_reducer: false,
            log: Vec::new(),
            transactions: 0,
            commits_to_refuse: 0,
            now_micros: 1_700_000_000_000_000,
            sent: Vec::new(),
        };
        Fixture { module, schema, instance, host, context: context(), _directory: directory }
    }

    pub fn reducer_index(&self, name: &str) -> ReducerIndex {
        let reducers = &self.module.def().reducers;
        let index = reducers.iter().position(|reducer| *reducer.source_name == *name);
        ReducerIndex(index.unwrap_or_else(|| panic!("no reducer {name}")) as u32)
    }

    /// Calls a reducer in a transaction of its own.
    pub fn call(&mut self, name: &str, args: Vec<AlgebraicValue>) -> Result<(), CallError> {
        self.call_raw(name, &encode(args))
    }

    pub fn call_raw(&mut self, name: &str, args: &[u8]) -> Result<(), CallError> {
        let index = self.reducer_index(name);
        self.call_index(index, args)
    }

    /// Calls the reducer with a number, submodules' included.
    pub fn call_at(&mut self, index: u32, args: Vec<AlgebraicValue>) -> Result<(), CallError> {
        self.call_index(ReducerIndex(index), &encode(args))
    }

    fn call_index(&mut self, index: ReducerIndex, args: &[u8]) -> Result<(), CallError> {
        self.host.in_transaction = true;
        let outcome = self.instance.call_reducer(index, &self.context, args, &mut self.host);
        self.host.in_transaction = false;
        match outcome {
            Ok(result) => {
                assert!(result.is_empty(), "reducers return nothing");
                self.host.tables.commit(b"", self.host.now_micros).expect("commits");
                Ok(())
            }
            Err(error) => {
                self.host.tables.rollback();
                Err(error)
            }
        }
    }

    /// Calls a reducer that must succeed.
    pub fn run(&mut self, name: &str, args: Vec<AlgebraicValue>) {
        self.call(name, args).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Calls a reducer that must fail, and returns how.
    pub fn fail(&mut self, name: &str) -> CallError {
        self.call(name, Vec::new()).expect_err("must fail")
    }

    /// Calls a procedure; the result is JSON.
    pub fn procedure(&mut self, name: &str, args: Vec<AlgebraicValue>) -> Result<String, CallError> {
        let def = Arc::clone(self.module.def());
        let index = def.procedures.iter().position(|procedure| *procedure.source_name == *name).expect("exists");
        let bytes =
            self.instance.call_procedure(ProcedureIndex(index as u32), &self.context, &encode(args), &mut self.host)?;
        let ty = def.typespace.inline(&def.procedures[index].return_type).expect("inlines");
        Ok(show(&ty, &bytes))
    }

    /// Runs a view in an open transaction, which is rolled back.
    pub fn view(&mut self, name: &str) -> Result<ViewOutcome, CallError> {
        let modules = self.module.def().flatten();
        let mut views = modules.iter().flat_map(|(prefix, def)| def.views.iter().map(move |view| (prefix, view)));
        let index = views.position(|(prefix, view)| format!("{prefix}{}", view.source_name) == name).expect("exists");
        self.host.in_transaction = true;
        let outcome = self.instance.call_view(ViewIndex(index as u32), &self.context, &mut self.host);
        self.host.in_transaction = false;
        self.host.tables.rollback();
        outcome
    }

    /// The rows of a view as JSON.
    pub fn view_rows(&mut self, name: &str, row: &AlgebraicType) -> String {
        match self.view(name).unwrap_or_else(|error| panic!("{name}: {error}")).rows {
            ViewRows::Rows(rows) => show(&AlgebraicType::Array(Box::new(row.clone())), &rows),
            ViewRows::Query(query) => query,
        }
    }

    /// Sends a request to a handler; status and body of its response.
    pub fn handle(
        &mut self,
        name: &str,
        request: &HttpRequest,
        body: &[u8],
    ) -> Result<(HttpResponse, Bytes), CallError> {
        let handlers = &self.module.def().http_handlers;
        let index = handlers.iter().position(|handler| *handler.source_name == *name).expect("exists");
        let index = HandlerIndex(index as u32);
        let outcome = self.instance.call_handler(index, &self.context, &request.encode(), body, &mut self.host)?;
        Ok((HttpResponse::decode(&outcome.response).expect("a response"), outcome.body))
    }

    /// The committed rows of a table as JSON, in key order.
    pub fn rows(&self, table: &str) -> Vec<String> {
        let table = self.schema.table_named(table).expect("exists");
        let ty = AlgebraicType::Product(table.row_type.clone());
        let mut cursor = self.host.tables.scan(table.id);
        let mut rows = Vec::new();
        while let Some(row) = cursor.next().expect("reads") {
            rows.push(show(&ty, row));
        }
        rows
    }

    /// The messages logged so far, which are forgotten.
    pub fn logged(&mut self) -> Vec<String> {
        self.host.log.drain(..).map(|entry| entry.message).collect()
    }
}

fn show(ty: &AlgebraicType, bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes);
    let value = json::bsatn_to_json(ty, &mut reader).expect("valid");
    assert_eq!(reader.remaining(), 0);
    value.to_string()
}

pub fn encode(args: Vec<AlgebraicValue>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_value(&AlgebraicValue::Product(args), &mut bytes);
    bytes
}

pub fn text(value: &str) -> AlgebraicValue {
    AlgebraicValue::String(value.into())
}

pub fn sender() -> Identity {
    Identity::from_claims("test", "alice")
}

pub fn context() -> CallContext {
    CallContext {
        sender: sender(),
        connection_id: Some(ConnectionId::new(0x1234)),
        timestamp: Timestamp::from_micros(1_700_000_000_123_456),
        seed: 42,
        database_identity: Identity::from_claims("test", "database"),
        deadline: Duration::from_secs(10),
        jwt_payload: None,
    }
}

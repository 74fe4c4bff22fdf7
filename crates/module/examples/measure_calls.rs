//! Measures calls, loading and memory: `cargo run --release -p tine-module --example measure_calls`.
//!
//! Everything is real but the network: rows go to a store in a temporary directory, committed every thousand calls.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tine_base::SystemEnv;
use tine_module::isolation::Isolation;
use tine_module::{CallContext, CallHost, Limits, LogEntry, ReducerIndex, SourceBundle, SyscallError, compile};
use tine_sandbox::{Sandbox, SandboxOptions};
use tine_store::{ForkId, Store, StoreOptions};
use tine_tables::{DatabaseSchema, SchemaError, TableWriter};
use tine_types::bsatn::BsatnWrite;
use tine_types::{ConnectionId, Identity, Timestamp};

const MODULE: &str = r#"
import { schema, table, t } from "tine:server";
const db = schema({
  person: table({ public: true }, { id: t.u64().primaryKey().autoInc(), name: t.string(), age: t.u32() }),
  account: table({}, { id: t.u64().primaryKey(), owner: t.identity(), at: t.timestamp(), coins: t.i64(), note: t.string() }),
});
export default db;
export const noop = db.reducer(() => {});
export const insert = db.reducer({ name: t.string(), age: t.u32() }, (ctx, { name, age }) => { ctx.db.person.insert({ id: 0n, name, age }); });
export const fill = db.reducer(ctx => {
  for (let i = 0n; i < 1000n; i++) ctx.db.account.insert({ id: i, owner: ctx.sender, at: ctx.timestamp, coins: i, note: "n" });
});
export const update = db.reducer({ id: t.u64() }, (ctx, { id }) => {
  const row = ctx.db.account.id.find(id);
  ctx.db.account.id.update({ ...row, coins: row.coins + 1n });
});
export const scan = db.reducer(ctx => { let sum = 0n; for (const row of ctx.db.account) sum += row.coins; });
export const inspect = db.reducer(ctx => { ctx.sender; ctx.timestamp; ctx.random(); });
"#;

struct Host {
    tables: TableWriter,
}

impl CallHost for Host {
    fn tables(&mut self) -> Option<&mut TableWriter> {
        Some(&mut self.tables)
    }
    fn log(&mut self, _: LogEntry) {}
    fn begin_transaction(&mut self) -> Result<Timestamp, SyscallError> {
        Err(SyscallError::new(SyscallError::WOULD_BLOCK_TRANSACTION, "only reducers are measured"))
    }
    fn commit_transaction(&mut self) -> Result<(), SyscallError> {
        Ok(())
    }
    fn abort_transaction(&mut self) -> Result<(), SyscallError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tine_sandbox::init(&[tine_module::isolation::ENTRY]);
    let sandbox = Sandbox::start(SandboxOptions::default())?;
    let limits = Limits::default();
    let bundle = SourceBundle::single("index.ts", MODULE);
    let module = compile(&bundle, &limits)?;
    let started = Instant::now();
    compile(&bundle, &limits)?;
    println!("compile            {:>10.2} ms ({} bytes of bytecode)", ms(started.elapsed()), module.code_bytes());

    let directory = tempfile::tempdir()?;
    let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv))?;
    let mut allocate = |count| match store.allocate_keyspaces(count) {
        Ok(first) => Ok(first.get()),
        Err(error) => Err(SchemaError::Allocate(Box::new(error))),
    };
    let schema = Arc::new(DatabaseSchema::from_module_def(module.def(), None, &mut allocate)?);
    let started = Instant::now();
    let mut instances: Vec<_> = (0..50).map(|_| module.instantiate(&schema, &limits)).collect::<Result<_, _>>()?;
    println!("instantiate        {:>10.2} ms", ms(started.elapsed()) / 50.0);
    println!("memory of instance {:>10.2} MB", instances[0].memory_bytes() as f64 / 1e6);
    let mut instance = instances.swap_remove(0);
    let isolation = Isolation::start(&sandbox, &limits)?;
    let mut isolated = module.instantiate_isolated(&schema, &limits, &isolation)?;

    let mut host = Host { tables: TableWriter::new(store.writer(ForkId::MAIN)?, Arc::clone(&schema)) };
    let context = CallContext {
        sender: Identity::from_claims("measure", "caller"),
        connection_id: Some(ConnectionId::new(1)),
        timestamp: Timestamp::from_micros(1_700_000_000_000_000),
        seed: 1,
        database_identity: Identity::from_claims("measure", "database"),
        deadline: Duration::from_secs(2),
        jwt_payload: None,
    };
    let index = |name: &str| {
        let position = module.def().reducers.iter().position(|reducer| *reducer.source_name == *name);
        ReducerIndex(position.expect("defined above") as u32)
    };
    let mut insert_args = Vec::new();
    insert_args.put_str("Ada Lovelace");
    insert_args.put_u32(36);
    instance.call_reducer(index("fill"), &context, &[], &mut host)?;
    let update_args = 500u64.to_le_bytes();
    let cases: [(&str, &[u8], u32); 5] = [
        ("noop", &[], 300_000),
        ("inspect", &[], 100_000),
        ("insert", &insert_args, 200_000),
        ("update", &update_args, 100_000),
        ("scan", &[], 300),
    ];
    for (name, args, count) in cases {
        let reducer = index(name);
        // Beside the tables, and in a process of its own.
        let mut best = [f64::MAX; 2];
        for round in 0..6 {
            let side = round % 2;
            let instance = if side == 0 { &mut instance } else { &mut isolated };
            let started = Instant::now();
            let mut committing = Duration::ZERO;
            for call in 0..count {
                black_box(instance.call_reducer(reducer, &context, args, &mut host)?);
                if call % 1000 == 999 {
                    let before = Instant::now();
                    host.tables.commit(&[], context.timestamp.micros())?;
                    committing += before.elapsed();
                }
            }
            best[side] = best[side].min((started.elapsed() - committing).as_secs_f64() * 1e6 / f64::from(count));
        }
        let [here, away] = best;
        println!("{name:<18} {here:>10.3} us per call, {away:.3} us isolated, commits not counted");
    }
    // What the tables alone cost, without any module.
    let table = schema.table_named("person").ok_or("no table")?.id;
    let mut row = 0u64.to_le_bytes().to_vec();
    row.extend_from_slice(&insert_args);
    let mut generated = Vec::new();
    let started = Instant::now();
    for call in 0..100_000 {
        host.tables.insert(table, &row, &mut generated)?;
        if call % 1000 == 999 {
            host.tables.commit(&[], context.timestamp.micros())?;
        }
    }
    println!("tables alone       {:>10.3} us per insert, commits counted", started.elapsed().as_secs_f64() * 10.0);
    println!("memory after calls {:>10.2} MB", instance.memory_bytes() as f64 / 1e6);
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

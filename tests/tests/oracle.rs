//! Random calls against a random schema, with a model in memory as oracle: every call must succeed or fail as the model says, and
//! what a client follows (tables, views that return rows, views that return queries) must be what the model has.
//!
//! `TINE_TESTS_LONG=1` runs twenty times as many. A failure names its seed.

#[path = "oracle/model.rs"]
mod model;
#[path = "oracle/schema.rs"]
mod schema;
#[path = "oracle/session.rs"]
mod session;

use tine_module::SourceBundle;
use tine_tests::{npm, skip};

use model::Model;
use schema::{Random, Schema};
use session::Session;

/// Schemas, and calls against each: fifty thousand altogether.
const SCHEMAS: u64 = 5;
const CALLS: usize = 10_000;
/// Calls that are sent together.
const BATCH: usize = 50;

fn is_long() -> bool {
    std::env::var_os("TINE_TESTS_LONG").is_some()
}

/// Makes random calls of a published module and compares.
fn run(seed: u64, schema: &Schema, program: Vec<u8>, calls: usize) {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut model = Model::new(schema);
    let mut session = Session::start(program, schema);
    let mut succeeded = 0;
    for batch in 0..calls / BATCH {
        let made: Vec<_> = (0..BATCH).map(|_| schema.random_call(&mut random, &model)).collect();
        let expected: Vec<bool> = made.iter().map(|call| model.apply(schema, call)).collect();
        succeeded += expected.iter().filter(|is_ok| **is_ok).count();
        let answers = session.call(schema, &made);
        for ((call, expected), answer) in made.iter().zip(&expected).zip(&answers) {
            assert_eq!(
                *expected,
                answer.is_ok(),
                "seed {seed}, batch {batch}: {call:?} answered {answer:?}\n{}",
                schema.source()
            );
        }
        for (name, rows) in model.relations(schema) {
            let seen = session.rows(&name);
            assert_eq!(seen, rows, "seed {seed}, batch {batch}: {name}\n{}", schema.source());
        }
    }
    // A schema that refuses nearly everything, or nothing, would test little.
    assert!(succeeded > calls / 10 && succeeded < calls, "{succeeded} of {calls} succeeded");
}

#[test]
fn random_calls_do_what_the_model_says() {
    let rounds = if is_long() { 20 * SCHEMAS } else { SCHEMAS };
    for seed in 1..=rounds {
        let schema = Schema::random(&mut Random::new(seed));
        run(seed, &schema, SourceBundle::single("index.ts", schema.source()).encode(), CALLS);
    }
}

#[test]
fn random_calls_of_a_bundle_do_what_the_model_says() {
    let folder = match npm::folder() {
        Ok(folder) => folder,
        Err(missing) => return skip(missing),
    };
    let seed = 1_000;
    let schema = Schema::random(&mut Random::new(seed));
    let bundle = npm::bundle(&folder, "oracle", &[("index.ts", &schema.source())]);
    let text = std::fs::read_to_string(bundle).expect("the bundle is there");
    run(seed, &schema, SourceBundle::single("bundle.js", text).encode(), if is_long() { 5 * CALLS } else { CALLS });
}

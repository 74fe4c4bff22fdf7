//! Publishing over data that is there: what is kept, what is refused, who stays connected.

use bytes::Bytes;
use serde_json::{Value, json};
use tine_client::{
    ClientError, ConnectOptions, Connection,
    http::{CONTENT_TYPE_SOURCE, HttpClient, PublishOptions, PublishPlan},
};
use tine_module::SourceBundle;
use tine_tests::{
    command::{Ran, run, tine},
    keep::TestDirectory,
    rows,
    server::{TestServer, single_file},
};

/// A module that can be varied: two tables with data, one of them without a key.
#[derive(Clone, Default)]
struct Variant {
    /// More columns of `person` and `note`.
    columns: &'static str,
    /// More tables, declared and listed.
    tables: (&'static str, &'static str),
    /// More functions.
    functions: &'static str,
    /// Modifiers of the column `name` of `person`.
    name: &'static str,
    /// Throws in `init`.
    init_fails: bool,
}

impl Variant {
    fn bundle(&self) -> SourceBundle {
        let Variant { columns, tables: (declared, listed), functions, name, init_fails } = self;
        let fail = if *init_fails { "throw new Error('init is broken');" } else { "" };
        single_file(&format!(
            "import {{ schema, t, table }} from 'tine:server';
const person = table({{ public: true }}, {{ id: t.u64().primaryKey().autoInc(), name: t.string(){name}{columns} }});
const note = table({{ public: true }}, {{ text: t.string().index('btree'){columns} }});
const secret = table({{}}, {{ id: t.u32().primaryKey(){columns} }});
const visit = table({{ public: true }}, {{ connection: t.connectionId().primaryKey() }});
{declared}
const s = schema({{ person, note, secret, visit, {listed} }});
export default s;
export const init = s.init(ctx => {{ {fail} ctx.db.secret.insert({{ id: 1, age: 1, mood: 'new' }} as any); }});
export const come = s.clientConnected(ctx => {{ if (ctx.connectionId) ctx.db.visit.insert({{ connection: ctx.connectionId }}); }});
export const go = s.clientDisconnected(ctx => {{ if (ctx.connectionId) ctx.db.visit.connection.delete(ctx.connectionId); }});
export const add = s.reducer({{ name: t.string() }}, (ctx, {{ name }}) => {{
  ctx.db.person.insert({{ id: 0n, name, age: 0, mood: 'new' }} as any);
  ctx.db.note.insert({{ text: name, age: 0, mood: 'new' }} as any);
}});
{functions}
"
        ))
    }
}

const COLUMNS: &str = ", age: t.u32().default(7), mood: t.string().default('calm')";

fn publish(client: &HttpClient, database: &str, variant: &Variant) -> Result<(), ClientError> {
    let program = variant.bundle().encode();
    client.publish(Some(database), CONTENT_TYPE_SOURCE, program, PublishOptions::default()).map(drop)
}

fn plan(client: &HttpClient, database: &str, variant: &Variant) -> PublishPlan {
    client.pre_publish(database, CONTENT_TYPE_SOURCE, variant.bundle().encode(), false).expect("there is a plan")
}

#[track_caller]
fn sql(client: &HttpClient, database: &str, statement: &str) -> Vec<Vec<Value>> {
    client.sql(database, statement).expect("the query runs").remove(0).rows
}

#[track_caller]
fn refusal(result: Result<(), ClientError>) -> (Option<u16>, String, String) {
    let error = result.expect_err("refused");
    (error.status(), error.shown_code().to_owned(), error.to_string())
}

async fn connect(server: &TestServer, database: &str) -> Connection {
    Connection::connect(ConnectOptions::new(server.url(), database)).await.expect("connected")
}

async fn closed_with_1001(connection: &mut Connection) {
    loop {
        match connection.recv().await {
            Ok(_) => {}
            Err(ClientError::Closed { close_code: Some(1001), .. }) => return,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn compatible_changes_keep_data_sockets_and_subscriptions() {
    let server = TestServer::shared();
    let owned = server.publish("grows", &Variant::default().bundle());
    let client = &owned.client;
    for name in ["Ada", "Bo"] {
        client.call("grows", "add", &json!([name])).expect("added");
    }
    let mut connection = connect(server, "grows").await;
    connection.subscribe(1, &["SELECT * FROM person"]).await.expect("subscribed");

    let grown = Variant {
        tables: ("const extra = table({ public: true }, { id: t.u32().primaryKey().autoInc() });", "extra"),
        name: ".index('btree')",
        functions: "export const more = s.reducer(ctx => { ctx.db.extra.insert({ id: 0 }); });",
        ..Variant::default()
    };
    let PublishPlan::Update { text, breaks_clients, steps, .. } = plan(client, "grows", &grown) else {
        panic!("the change is compatible")
    };
    assert!(!breaks_clients, "{text}");
    let texts: Vec<&str> = steps.as_array().expect("a list").iter().filter_map(|step| step["text"].as_str()).collect();
    assert_eq!(
        texts,
        [
            "add index `person_name_idx_btree` on (name) to table `person`",
            "add public table `extra`",
            "add reducer `more`"
        ]
    );
    assert!(texts.iter().all(|step| text.contains(step)), "{text}");

    publish(client, "grows", &grown).expect("published");
    assert_eq!(sql(client, "grows", "SELECT * FROM person WHERE name = 'Bo'"), [[json!(2), json!("Bo")]]);
    client.call("grows", "more", &json!([])).expect("the new reducer runs");
    assert_eq!(sql(client, "grows", "SELECT id FROM extra"), [[json!(1)]]);
    // The socket and its subscription went on, and so did the sequence.
    let reply = connection.call_reducer("add", rows::text("Cy")).await.expect("added over the old socket");
    assert_eq!(reply.update.query_sets.len(), 1, "the subscription lives");
    assert_eq!(sql(client, "grows", "SELECT id FROM person WHERE name = 'Cy'"), [[json!(3)]]);

    // And back again: what is gone is in the plan too.
    let PublishPlan::Update { steps, .. } =
        plan(client, "grows", &Variant { name: "", functions: "", ..grown.clone() })
    else {
        panic!("the change is compatible")
    };
    let text = steps.to_string();
    assert!(text.contains("remove index") && text.contains("remove reducer `more`"), "{text}");
    connection.call_reducer("add", rows::text("Di")).await.expect("a plan changes nothing");
}

#[tokio::test]
async fn appended_columns_take_their_default_and_ask_before_they_disconnect() {
    let mut server = TestServer::start();
    let owned = server.publish("columns", &Variant::default().bundle());
    let client = &owned.client;
    for name in ["Ada", "Bo"] {
        client.call("columns", "add", &json!([name])).expect("added");
    }
    client.create_fork("columns", "before", false).expect("forked");
    let mut connection = connect(&server, "columns").await;
    // The request that counts is a visit itself.
    let visits = || sql(client, "columns", "SELECT * FROM visit").len() - 1;
    assert_eq!(visits(), 1);

    let wider = Variant { columns: COLUMNS, ..Variant::default() };
    let PublishPlan::Update { text, breaks_clients, token, .. } = plan(client, "columns", &wider) else {
        panic!("the change is compatible")
    };
    assert!(breaks_clients && text.contains("add column `age` (U32, 7 in the rows there are)"), "{text}");
    let (status, code, message) = refusal(publish(client, "columns", &wider));
    assert_eq!((status, code.as_str()), (Some(400), "TN0617"), "{message}");
    assert!(message.contains("Database update rejected") && message.contains("`age`"), "{message}");
    let send = |token: &str| {
        let options = PublishOptions { break_clients: Some(token.to_owned()), ..PublishOptions::default() };
        client.publish(Some("columns"), CONTENT_TYPE_SOURCE, wider.bundle().encode(), options).map(drop)
    };
    assert_eq!(refusal(send(&"0".repeat(64))).1, "TN0618");
    connection.call_reducer("add", rows::text("Cy")).await.expect("nothing has happened yet");

    send(&token).expect("agreed to");
    closed_with_1001(&mut connection).await;
    let check = |client: &HttpClient| {
        let people = sql(client, "columns", "SELECT * FROM person");
        assert_eq!(people[1], [json!(2), json!("Bo"), json!(7), json!("calm")]);
        assert_eq!((people.len(), people[2][1].clone()), (3, json!("Cy")));
        // A table without a key is keyed by its rows, which are others now.
        assert_eq!(
            sql(client, "columns", "SELECT * FROM note WHERE text = 'Ada'"),
            [[json!("Ada"), json!(7), json!("calm")]]
        );
        assert_eq!(
            sql(client, "columns@before", "SELECT * FROM person"),
            [[json!(1), json!("Ada")], [json!(2), json!("Bo")]]
        );
    };
    check(client);
    tine_tests::wait::until_true("the module hears that the client went", || visits() == 0);
    assert_eq!(refusal(send(&token)).1, "TN0618", "the token was of another plan");
    client.call("columns", "add", &json!(["Di"])).expect("added");
    let row = sql(client, "columns", "SELECT * FROM person WHERE name = 'Di'");
    assert_eq!(row, [[json!(4), json!("Di"), json!(0), json!("new")]]);
    client.call("columns@before", "add", &json!(["Ed"])).expect("the fork has its own module");

    server.kill();
    server.restart();
    let client = server.anonymous().with_token(&owned.token);
    let people = sql(&client, "columns", "SELECT * FROM person");
    assert_eq!((people.len(), &people[0][3]), (4, &json!("calm")));
    // An unchanged program breaks nobody.
    publish(&client, "columns", &wider).expect("published again");
}

/// The rows of a private table look different too, but only the owner can be subscribed to it: that subscription ends.
#[tokio::test]
async fn subscriptions_to_changed_private_tables_end() {
    let server = TestServer::shared();
    let source = |column: &str| {
        single_file(&format!(
            "import {{ schema, t, table }} from 'tine:server';
const hidden = table({{}}, {{ id: t.u32().primaryKey(){column} }});
const shown = table({{ public: true }}, {{ id: t.u32().primaryKey() }});
const s = schema({{ hidden, shown }});
export default s;
export const add = s.reducer({{ id: t.u32() }}, (ctx, {{ id }}) => {{
  ctx.db.shown.insert({{ id }});
}});
"
        ))
    };
    let owned = server.publish("hidden", &source(""));
    let options = ConnectOptions::new(server.url(), "hidden").with_token(&owned.token);
    let mut owner = Connection::connect(options).await.expect("connected");
    owner.subscribe(1, &["SELECT * FROM hidden"]).await.expect("subscribed");
    owner.subscribe(2, &["SELECT * FROM shown"]).await.expect("subscribed");
    let program = source(", more: t.u8().default(1)").encode();
    owned.client.publish(Some("hidden"), CONTENT_TYPE_SOURCE, program, PublishOptions::default()).expect("published");
    let ended = owner.recv().await.expect("a message");
    assert!(
        matches!(&ended, tine_client::protocol::ServerMessage::SubscriptionError { query_set_id: 1, .. }),
        "{ended:?}"
    );
    let mut out = Vec::new();
    tine_types::bsatn::BsatnWrite::put_u32(&mut out, 5);
    let reply = owner.call_reducer("add", out.into()).await.expect("the connection stays");
    assert_eq!(reply.update.query_sets.len(), 1, "the other subscription stays");
}

#[test]
fn what_the_data_does_not_fit_is_refused_with_reasons() {
    let server = TestServer::shared();
    let owned = server.publish("misfit", &Variant::default().bundle());
    let client = &owned.client;
    for name in ["same", "same"] {
        client.call("misfit", "add", &json!([name])).expect("added");
    }
    let no_default = Variant { columns: ", age: t.u32()", ..Variant::default() };
    let PublishPlan::Incompatible { text, changes } = plan(client, "misfit", &no_default) else {
        panic!("rows would have no value")
    };
    assert_eq!(changes.as_array().map(Vec::len), Some(3), "{changes}");
    assert!(text.contains("column `age` was added to table `person` without a default value"), "{text}");
    assert!(text.contains(".default(value)"), "the text says what to do: {text}");
    let (status, code, message) = refusal(publish(client, "misfit", &no_default));
    assert_eq!((status, code.as_str()), (Some(400), "TN0352"));
    assert!(message.contains("Database update rejected: the data of the database does not fit"), "{message}");

    // The schema fits, the rows do not: found out while migrating, and all of it is taken back.
    let unique = Variant { name: ".unique()", columns: COLUMNS, ..Variant::default() };
    let PublishPlan::Update { token, .. } = plan(client, "misfit", &unique) else { panic!("the schema fits") };
    let options = PublishOptions { break_clients: Some(token), ..PublishOptions::default() };
    let result = client.publish(Some("misfit"), CONTENT_TYPE_SOURCE, unique.bundle().encode(), options).map(drop);
    let (status, code, message) = refusal(result);
    assert_eq!((status, code.as_str()), (Some(400), "TN0306"), "{message}");
    assert!(message.contains("same"), "{message}");
    assert_eq!(sql(client, "misfit", "SELECT * FROM person").len(), 2);
    assert_eq!(sql(client, "misfit", "SELECT * FROM person")[0].len(), 2, "the columns are as they were");
    client.call("misfit", "add", &json!(["third"])).expect("the old module runs on");

    let (stranger, _) = server.newcomer();
    let asked = stranger.pre_publish("misfit", CONTENT_TYPE_SOURCE, Variant::default().bundle().encode(), false);
    assert_eq!(asked.expect_err("not the owner").status(), Some(403));
    assert_eq!(stranger.reset("misfit").expect_err("not the owner").status(), Some(403));
    let asked = client.pre_publish("no-such", CONTENT_TYPE_SOURCE, Variant::default().bundle().encode(), false);
    assert_eq!(asked.expect_err("not there").status(), Some(404));
}

#[tokio::test]
async fn clearing_starts_over_and_leaves_forks_alone() {
    let mut server = TestServer::start();
    let owned = server.publish("cleared", &Variant::default().bundle());
    let client = &owned.client;
    client.call("cleared", "add", &json!(["Ada"])).expect("added");
    client.create_fork("cleared", "kept", false).expect("forked");
    let before = client.fork("cleared", "main").expect("shown");
    let mut connection = connect(&server, "cleared").await;
    let other = Variant { columns: ", age: t.u32()", ..Variant::default() };
    let clear = |variant: &Variant| {
        let options = PublishOptions { clear: true, ..PublishOptions::default() };
        client.publish(Some("cleared"), CONTENT_TYPE_SOURCE, variant.bundle().encode(), options).map(drop)
    };

    // A module that cannot begin leaves everything as it was.
    let failed = refusal(clear(&Variant { init_fails: true, ..other.clone() }));
    assert_eq!(failed.1, "TN0608", "{failed:?}");
    connection.call_reducer("add", rows::text("Bo")).await.expect("the old module runs on");
    assert_eq!(client.forks("cleared").expect("listed").len(), 2, "nothing is left of the attempt");

    clear(&other).expect("cleared");
    closed_with_1001(&mut connection).await;
    let check = |client: &HttpClient, kept: usize| {
        assert_eq!(sql(client, "cleared", "SELECT * FROM person").len(), 0);
        assert_eq!(sql(client, "cleared", "SELECT * FROM secret").len(), 1, "init ran");
        let names = sql(client, "cleared@kept", "SELECT name FROM person");
        assert_eq!((names.len(), &names[0][0]), (kept, &json!("Ada")), "forks stay (G8)");
        let after = client.fork("cleared", "main").expect("shown");
        assert_ne!(after.id, before.id, "LSNs never decrease on a fork: the name has moved to another");
        assert_eq!(client.forks("cleared").expect("listed").len(), 2);
    };
    check(client, 1);
    client.call("cleared@kept", "add", &json!(["Cy"])).expect("the fork lives");
    server.kill();
    server.restart();
    let client = &server.anonymous().with_token(&owned.token);
    check(client, 2);

    // Main can still not be deleted alone, and what was made of the old one is as good a fork as any.
    assert!(client.delete_fork("cleared", "main").is_err());
    client.call("cleared", "add", &json!(["again"])).expect("added");
    client.reset("cleared").expect("the module it has, without its data");
    assert_eq!(sql(client, "cleared", "SELECT * FROM person").len(), 0);
    assert_eq!(sql(client, "cleared", "SELECT * FROM secret").len(), 1);
    client.reset("cleared@kept").expect("a fork can be reset as well");
    assert_eq!(sql(client, "cleared@kept", "SELECT * FROM person").len(), 0);
    let identity = owned.published.database_identity.as_str();
    assert_eq!(sql(client, identity, "SELECT * FROM secret").len(), 1, "the database keeps its identity");
}

/// Schedules of a database that is cleared run on.
#[test]
fn schedules_run_after_clearing() {
    let server = TestServer::shared();
    let owned = server.publish_probe("reborn");
    let options = PublishOptions { clear: true, ..PublishOptions::default() };
    let program = tine_tests::server::module("tests/modules/probe.ts").encode();
    owned.client.publish(Some("reborn"), CONTENT_TYPE_SOURCE, program, options).expect("cleared");
    owned.client.call("reborn", "remind", &json!(["later", 10])).expect("scheduled");
    tine_tests::wait::until_true("the schedule runs", || {
        sql(&owned.client, "reborn", "SELECT * FROM reminded").len() == 1
    });
}

#[test]
fn publishing_to_a_fork_changes_that_fork_only() {
    let server = TestServer::shared();
    let owned = server.publish("branch", &Variant::default().bundle());
    let client = &owned.client;
    client.call("branch", "add", &json!(["Ada"])).expect("added");
    client.create_fork("branch", "next", false).expect("forked");
    let wider = Variant { columns: COLUMNS, ..Variant::default() };
    let PublishPlan::Update { token, .. } = plan(client, "branch@next", &wider) else { panic!("compatible") };
    let PublishPlan::Update { token: other, .. } = plan(client, "branch", &wider) else { panic!("compatible") };
    assert_ne!(token, other, "a plan is for one fork");
    let options = PublishOptions { break_clients: Some(token), ..PublishOptions::default() };
    client.publish(Some("branch@next"), CONTENT_TYPE_SOURCE, wider.bundle().encode(), options).expect("published");
    client.create_fork("branch@next", "later", false).expect("forked");
    for (database, columns) in [("branch", 2), ("branch@next", 4), ("branch@later", 4)] {
        client.call(database, "add", &json!(["Bo"])).expect("added");
        let people = sql(client, database, "SELECT * FROM person");
        assert_eq!((people.len(), people[0].len()), (2, columns), "{database}");
    }
}

/// A person at a terminal.
struct Desk {
    server: TestServer,
    home: TestDirectory,
}

impl Desk {
    fn publish(&self, variant: &Variant, arguments: &[&str]) -> Ran {
        let path = self.home.path().join("index.ts");
        std::fs::write(&path, &variant.bundle().files["index.ts"]).expect("written");
        let mut command = tine(self.home.path());
        command.args(["publish", "desk", path.to_str().expect("a path of text")]).args(arguments);
        run(command.env("TINE_DATA_DIR", self.server.data()).env("TINE_SERVER", self.server.url()))
    }
}

#[test]
fn the_command_line_tells_plans_and_asks_for_consent() {
    let desk = Desk { server: TestServer::start(), home: TestDirectory::new("publishing") };
    let ran = desk.publish(&Variant::default(), &["--dry-run"]).expect(0);
    assert!(ran.stdout.contains("would be created"), "{ran:?}");
    let broken = Variant { functions: "this is no code", ..Variant::default() };
    assert!(desk.publish(&broken, &["--dry-run"]).expect(1).stderr.contains("index.ts"), "errors have their place");
    desk.publish(&Variant::default(), &[]).expect(0);
    assert!(desk.publish(&Variant::default(), &["--dry-run"]).expect(0).stdout.contains("Only code changes"));

    let wider = Variant { columns: COLUMNS, ..Variant::default() };
    let ran = desk.publish(&wider, &["--dry-run"]).expect(0);
    assert!(ran.stdout.contains("  + add column `age`") && ran.stdout.contains("disconnected"), "{ran:?}");
    assert!(!ran.stdout.contains('\u{1b}'), "no colours in a pipe");
    let plan = desk.publish(&wider, &["--dry-run", "--json"]).expect(0).json();
    assert_eq!((&plan["compatible"], &plan["break_clients"]), (&json!(true), &json!(true)), "{plan}");
    let ran = desk.publish(&wider, &[]).expect(2);
    assert!(ran.stderr.contains("add column `age`") && ran.stderr.contains("--yes"), "{ran:?}");
    desk.publish(&wider, &["--yes=break-clients"]).expect(0);

    let misfit = Variant { columns: ", age: t.i32().default(7), mood: t.string().default('')", ..Variant::default() };
    let ran = desk.publish(&misfit, &["--dry-run"]).expect(1);
    assert!(ran.stdout.contains("x column `age` of table `person` changed from U32 to I32"), "{ran:?}");
    let plan = desk.publish(&misfit, &["--dry-run", "--json"]).expect(1).json();
    assert_eq!(plan["compatible"], json!(false));
    assert!(plan["changes"][0]["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{plan}");
    let ran = desk.publish(&misfit, &[]).expect(1);
    assert!(ran.stderr.contains("error[TN0352]") && ran.stderr.contains("--clear"), "{ran:?}");
    assert!(ran.stderr.contains("keep the type"), "the plan is shown: {ran:?}");
    desk.publish(&misfit, &["--clear"]).expect(2);
    desk.publish(&misfit, &["--clear", "--yes=clear"]).expect(0);
    assert!(desk.publish(&misfit, &["--dry-run"]).expect(0).stdout.contains("Only code changes"));
}

#[tokio::test]
async fn callers_of_changed_functions_get_errors_and_stay_connected() {
    let server = TestServer::shared();
    let old = Variant {
        functions: "export const take = s.reducer({ n: t.u32() }, () => {});\nexport const drop = s.reducer(() => {});",
        ..Variant::default()
    };
    let owned = server.publish("signatures", &old.bundle());
    let mut connection = connect(server, "signatures").await;
    let new = Variant { functions: "export const take = s.reducer({ text: t.string() }, () => {});", ..old.clone() };
    let PublishPlan::Update { breaks_clients: false, steps, .. } = plan(&owned.client, "signatures", &new) else {
        panic!("compatible")
    };
    let steps = steps.to_string();
    assert!(
        steps.contains("change the signature of reducer `take`") && steps.contains("remove reducer `drop`"),
        "{steps}"
    );
    publish(&owned.client, "signatures", &new).expect("published");
    let failed = connection.call_reducer("take", Bytes::from_static(&[7, 0, 0, 0])).await;
    assert!(matches!(failed, Err(ClientError::Call { .. })), "{failed:?}");
    let failed = connection.call_reducer("drop", Bytes::new()).await;
    assert!(matches!(failed, Err(ClientError::Call { .. })), "{failed:?}");
    connection.call_reducer("take", rows::text("x")).await.expect("the new form works");
}

/// A server killed while it starts databases over has either the old data or the new, and nothing half made.
#[test]
fn clearing_survives_kill_nine() {
    let mut server = TestServer::start();
    let owned = server.publish("restless", &Variant::default().bundle());
    let identity = owned.published.database_identity.clone();
    for round in 0..6_u64 {
        let client = server.anonymous().with_token(&owned.token);
        client.call("restless", "add", &json!(["Ada"])).expect("added");
        let before = client.fork("restless", "main").expect("shown").id;
        let clearing = std::thread::spawn(move || {
            let mut cleared = 0;
            while client.reset("restless").is_ok() {
                cleared += 1;
            }
            cleared
        });
        std::thread::sleep(std::time::Duration::from_millis(7 + round * 13));
        server.kill();
        let cleared = clearing.join().expect("the thread ends");
        server.restart();
        let client = server.anonymous().with_token(&owned.token);
        let after = client.fork("restless", "main").expect("shown").id;
        let people = sql(&client, "restless", "SELECT * FROM person").len();
        assert_eq!(people, usize::from(after == before), "round {round}: {cleared} confirmed");
        assert!(cleared == 0 || after != before, "a confirmed reset stays");
        assert_eq!(sql(&client, "restless", "SELECT * FROM secret").len(), 1, "init ran, once");
        client.reset("restless").expect("and it can be done again");
    }
    server.stop();
    let directory = server.data().join("databases").join(identity);
    let store =
        tine_store::Store::open(tine_store::StoreOptions::new(directory), std::sync::Arc::new(tine_base::SystemEnv));
    let names: Vec<String> = store.expect("it opens").forks().into_iter().map(|fork| fork.name).collect();
    assert_eq!(names, ["main"], "nothing is left of attempts");
}

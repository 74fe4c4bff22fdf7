//! History, verification and replay as a person and a program use them: the command line and the HTTP routes of a real server, whose
//! calls run again in worker processes.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tine_client::{
    ClientError, ConnectOptions, Connection,
    http::{HistoryOptions, HttpClient, RedoLine, RedoOptions},
};
use tine_tests::{
    command::{Ran, run, tine},
    keep::TestDirectory,
    server::{Owned, TestServer, single_file},
    wait,
};

/// Accounts that pay one another; `RULES` is what another version changes.
const SHOP: &str = r#"
import { schema, SenderError, t, table } from "tine:server";
const db = schema({ account: table({ public: true }, { id: t.u32().primaryKey(), balance: t.i32() }) });
export default db;
RULES
export const open = db.reducer({ id: t.u32() }, (ctx, { id }) => { ctx.db.account.insert({ id, balance: 100 }); });
export const take = db.reducer({ id: t.u32(), amount: t.i32() }, (ctx, { id, amount }) => {
  const found = ctx.db.account.id.find(id);
  if (!found) throw new SenderError("no such account");
  if (found.balance - amount < lowest) throw new SenderError("too poor");
  ctx.db.account.id.update({ ...found, balance: found.balance - amount });
});
/** Takes its time, so that a run of many can be caught in the middle. */
export const work = db.reducer({ rounds: t.u32() }, (ctx, { rounds }) => {
  let sum = 0;
  for (let round = 0; round < rounds; round++) sum = (sum + round) | 0;
  const found = ctx.db.account.id.find(1)!;
  ctx.db.account.id.update({ ...found, balance: found.balance + (sum & 1) });
});
"#;

fn shop(rules: &str) -> String {
    SHOP.replace("RULES", rules)
}

/// A person at a terminal who owns a shop.
struct Desk {
    server: TestServer,
    home: TestDirectory,
    owned: Owned,
}

impl Desk {
    /// With a history of six commits: the publish, two accounts, and 30, 60 and 5 taken of the first; 90 more were refused.
    fn new() -> Desk {
        let server = TestServer::start();
        let owned = server.publish("shop", &single_file(&shop("const lowest = 0;")));
        for (function, arguments) in [
            ("open", json!([1])),
            ("open", json!([2])),
            ("take", json!([1, 30])),
            ("take", json!([1, 60])),
            ("take", json!([1, 5])),
        ] {
            owned.client.call("shop", function, &arguments).unwrap_or_else(|error| panic!("{function}: {error}"));
        }
        owned.client.call("shop", "take", &json!([1, 90])).expect_err("too poor");
        Desk { server, home: TestDirectory::new("home"), owned }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tine(self.home.path());
        command.args(arguments).env("TINE_DATA_DIR", self.server.data()).env("TINE_SERVER", self.server.url());
        command.env("TINE_TOKEN", &self.owned.token);
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Runs what must fail with this code.
    #[track_caller]
    fn refused(&self, arguments: &[&str], code: &str) {
        let ran = self.run(arguments);
        assert!(ran.status > 0 && ran.stderr.contains(code), "{ran:?}");
    }
}

fn outcomes(report: &Value, function: &str) -> Value {
    report["functions"][function]["outcomes"].clone()
}

#[test]
fn the_command_line_lists_checks_and_replays() {
    let desk = Desk::new();
    let history = desk.run(&["history", "shop"]).expect(0).stdout;
    assert!(history.contains("take") && history.contains("open"), "{history}");
    let commits = desk.run(&["history", "shop", "--json"]).expect(0).json();
    assert_eq!(commits.as_array().or(commits["entries"].as_array()).map(Vec::len), Some(6), "{commits}");

    let ran = desk.run(&["verify", "shop"]).expect(0).stdout;
    assert!(ran.contains("6 calls, 0 differ"), "{ran}");
    assert!(!ran.contains("not in a worker process"), "{ran}");

    // A dry run shows the rows and changes none; the past answers, by number and by time.
    let dry = desk.run(&["call", "shop", "take", "1", "5", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(dry["rows"]["account"]["inserted"], json!([{"id": 1, "balance": 0}]), "{dry}");
    let balance = "SELECT balance FROM account WHERE id = 1";
    let past = desk.run(&["sql", "shop", balance, "--at", "3"]).expect(0).stdout;
    assert!(past.contains("100"), "{past}");
    assert!(desk.run(&["sql", "shop", balance]).expect(0).stdout.contains('5'));
    desk.refused(&["sql", "shop", balance, "--at", "2000-01-01T00:00:00Z"], "TN0");
    desk.run(&["fork", "create", "shop", "before", "--at", "3"]).expect(0);
    assert!(desk.run(&["sql", "shop@before", balance]).expect(0).stdout.contains("100"));

    // Other rules: 60 of 70 is one more than they allow, so that the rest goes other ways, too.
    let strict = desk.home.path().join("strict.ts");
    std::fs::write(&strict, shop("const lowest = 11;")).expect("written");
    let strict = strict.to_str().expect("text");
    let report = desk.run(&["replay", "shop", "--as", "strict", "--module", strict, "--json"]).expect(0).json();
    assert_eq!(report["ran_in"], "workers", "{report}");
    assert_eq!((&report["calls"], &report["differences"]), (&json!(6), &json!(2)), "{report}");
    assert_eq!(outcomes(&report, "open"), json!({ "same": 2 }));
    assert_eq!(outcomes(&report, "take"), json!({ "same": 2, "different": 1, "newly_failing": 1 }), "{report}");
    assert_eq!(report["tables"][0]["table"], "account");
    assert!(desk.run(&["sql", "shop@strict", balance]).expect(0).stdout.contains("65"));

    let stopped = ["replay", "shop", "--as", "first", "--module", strict, "--stop-at-first-difference"];
    let text = desk.run(&stopped).expect(0).stdout;
    assert!(text.contains("stopped at commit 5, the first difference"), "{text}");
    assert!(text.contains("newly failing: take") && text.contains("too poor"), "{text}");
    desk.refused(&["replay", "shop", "--as", "first"], "TN0602");
    desk.refused(&["replay", "shop", "--as", "never", "--resume"], "TN0653");
    let ranged = desk.run(&["verify", "shop", "--from", "4", "--to", "5", "--json"]).expect(0).json();
    assert_eq!((&ranged["calls"], &ranged["from"], &ranged["to"]), (&json!(2), &json!(4), &json!(5)), "{ranged}");
    desk.refused(&["verify", "shop", "--from", "4", "--to", "400"], "TN0651");
}

#[test]
fn the_routes_refuse_what_they_must() {
    let desk = Desk::new();
    let client = &desk.owned.client;
    let (stranger, _) = desk.server.newcomer();
    let status = |result: Result<(), ClientError>| result.expect_err("refused").status();
    let range = |from, to| RedoOptions { from, to, stop_at_first_difference: false };
    let verify =
        |client: &HttpClient, database: &str, options: &RedoOptions| client.verify(database, options).map(drop);
    assert_eq!(status(verify(&stranger, "shop", &range(None, None))), Some(403));
    assert_eq!(status(stranger.replay("shop", "x", &range(None, None), None, false).map(drop)), Some(403));
    assert_eq!(
        status(stranger.history("shop", &HistoryOptions { limit: 10, ..HistoryOptions::default() }).map(drop)),
        Some(403)
    );
    assert_eq!(status(stranger.dry_run("shop", "take", &json!([1, 5])).map(drop)), Some(403));
    assert_eq!(status(verify(client, "nowhere", &range(None, None))), Some(404));
    assert_eq!(status(verify(client, "shop", &range(Some(5), Some(2)))), Some(400));
    assert_eq!(status(verify(client, "shop", &range(Some(1), None))), Some(400), "before the first module");
    assert_eq!(status(client.replay("shop", "main", &range(None, None), None, false).map(drop)), Some(409));
    let broken = single_file("export default 1;").encode();
    assert_eq!(status(client.replay("shop", "x", &range(None, None), Some(broken), false).map(drop)), Some(400));
    let forks = client.forks("shop").expect("listed");
    assert_eq!(forks.len(), 1, "nothing is left of what was refused: {forks:?}");
    let entries = client.history("shop", &HistoryOptions { limit: 10, uncommitted: true, ..HistoryOptions::default() });
    let last = entries.expect("listed").pop().expect("an entry");
    assert_eq!((&last["function"], &last["lsn"], &last["failure"]), (&json!("take"), &Value::Null, &json!("TN0623")));
}

/// Calls recorded for a replay that is interrupted, and the time each of them takes at least: together several times longer than what
/// is between two reports of progress.
const CALLS: u32 = 600;
const CALL_TIME: Duration = Duration::from_millis(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_after_its_worker_and_its_server_were_killed() {
    let mut desk = tokio::task::spawn_blocking(Desk::new).await.expect("set up");
    let options = ConnectOptions::new(desk.server.url(), "shop").with_token(&desk.owned.token);
    let mut connection = Connection::connect(options).await.expect("connected");
    let mut rounds = 16u32;
    for _ in 0..CALLS {
        let started = Instant::now();
        connection.call_reducer("work", Bytes::copy_from_slice(&rounds.to_le_bytes())).await.expect("worked");
        // However fast this build of the engine is.
        if started.elapsed() < CALL_TIME {
            rounds *= 2;
        }
    }
    drop(connection);
    tokio::task::spawn_blocking(move || {
        let start = |desk: &Desk, resume| {
            let client = desk.server.anonymous().with_token(&desk.owned.token);
            let lines = client.replay("shop", "again", &RedoOptions::default(), None, resume);
            lines.unwrap_or_else(|error| panic!("{error}"))
        };
        let mut lines = start(&desk, false);
        let first = lines.next().expect("a line").expect("readable");
        assert!(
            matches!(first, RedoLine::Progress(_)),
            "so many calls take longer than until the first report: {first:?}"
        );
        desk.server.kill();
        drop(lines);
        desk.server.restart();
        let client = desk.server.anonymous().with_token(&desk.owned.token);
        client.fork("shop", "again").expect_err("nobody sees it before it is done");
        let mut killed = 0;
        let mut report = None;
        for line in start(&desk, true) {
            match line.expect("readable") {
                // Once: of a call that meets two ends of workers it would be said that it caused them.
                RedoLine::Progress(_) if killed == 0 => killed = kill_workers(desk.server.pid()),
                RedoLine::Progress(_) => {}
                RedoLine::Report(found) => report = Some(found),
                RedoLine::Error { code, message } => panic!("{code}: {message}"),
            }
        }
        let report = report.expect("a report");
        assert!(killed > 0, "no worker was there to be killed");
        assert_eq!((&report["differences"], &report["tables"]), (&json!(0), &json!([])), "{report}");
        assert_eq!(report["calls"], json!(6 + CALLS), "{report}");
        let balance =
            |database: &str| client.sql(database, "SELECT id, balance FROM account").expect("read").remove(0).rows;
        assert_eq!(balance("shop"), balance("shop@again"));
        wait::until_true("all workers of the replay ended", || workers(desk.server.pid()).len() <= 1);
    })
    .await
    .expect("no panic");
}

/// The workers of a server.
fn workers(server: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{server}/task")).expect("the server runs").flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let mut pids: Vec<i32> =
        children.flat_map(|pids| pids.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    pids.retain(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "tine-worker")
    });
    pids
}

/// Kills the workers of a server, and says how many.
fn kill_workers(server: u32) -> usize {
    let pids = workers(server);
    for &pid in &pids {
        // SAFETY: takes plain numbers. A worker that just ended is a zombie of the server or not there.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    pids.len()
}

//! An application of the npm SDK, server and client: the same results on `main`, on a fork, and where its module is published as it is
//! written. What it covers becomes the table in docs/compatibility.md.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use tine_client::http::{CONTENT_TYPE_JAVASCRIPT, CONTENT_TYPE_SOURCE, PublishOptions};
use tine_tests::browser::{Browser, chromium};
use tine_tests::command::run_within;
use tine_tests::compatibility::Application;
use tine_tests::server::TestServer;
use tine_tests::{npm, root, skip};

/// How long all cases may take on one database or fork.
const CASES_WITHIN: Duration = Duration::from_secs(120);
/// How long the page may take to show something.
const PAGE_WITHIN: Duration = Duration::from_secs(20);

/// The application with bindings, checked; `None` skips the test.
fn application() -> Option<&'static Application> {
    static APPLICATION: OnceLock<Result<Application, &str>> = OnceLock::new();
    let made = APPLICATION.get_or_init(|| {
        let application = Application::prepare()?;
        let home = TestServer::shared().folder();
        let module = application.module.to_string_lossy().into_owned();
        application.generate(home, "bindings", &["--module-path", &module]).expect(0);
        Ok(application)
    });
    match made {
        Ok(application) => Some(application),
        Err(missing) => {
            skip(missing);
            None
        }
    }
}

/// Publishes the club as its bundle under `name`, with a fork `exp`, and returns the owner's token.
fn publish(server: &TestServer, application: &Application, name: &str) -> String {
    let program = std::fs::read(&application.module).expect("the bundle is there");
    publish_as(server, name, CONTENT_TYPE_JAVASCRIPT, program)
}

fn publish_as(server: &TestServer, name: &str, content_type: &'static str, program: Vec<u8>) -> String {
    let (client, token) = server.newcomer();
    let publisher = server.anonymous().with_token(&token).with_admin_token(server.admin_token());
    publisher
        .publish(Some(name), content_type, program, PublishOptions::default())
        .unwrap_or_else(|error| panic!("{error}"));
    client.create_fork(name, "exp", false).expect("forked");
    token
}

/// Runs the client's cases and returns name and result of each.
fn run_cases(application: &Application, url: &str, database: &str, token: &str) -> Vec<(String, Value)> {
    let mut command = npm::node(&application.npm);
    command.arg(application.client.join("app.mjs")).args([url, database, token]);
    let ran = run_within(&mut command, CASES_WITHIN);
    assert_eq!(ran.status, 0, "{database}: {}\n{}", ran.stdout, ran.stderr);
    let lines = ran.stdout.lines().filter(|line| line.starts_with('['));
    lines
        .map(|line| {
            let case: Value = serde_json::from_str(line).expect("a case is a line of JSON");
            assert!(case[2].is_null(), "{database}: {}: {}", case[0], case[2].as_str().unwrap_or_default());
            (case[0].as_str().expect("a case has a name").to_owned(), case[1].clone())
        })
        .collect()
}

#[test]
fn the_application_gives_the_same_results_everywhere() {
    let Some(application) = application() else { return };
    let checked = application.check();
    assert_eq!(checked.status, 0, "the bindings or the client are not strict TypeScript:\n{}", checked.stdout);
    application.bundle("app.ts", "app.mjs", "node");
    let server = TestServer::start();
    let token = publish(&server, application, "club");
    let source_token = publish_as(&server, "source", CONTENT_TYPE_SOURCE, application.source.encode());
    let expected: Value = serde_json::from_str(include_str!("../compat/expected.json")).expect("JSON");
    let expected = expected.as_object().expect("an object");
    let mut names = Vec::new();
    for (database, token) in [("club", &token), ("club@exp", &token), ("source", &source_token)] {
        let results = run_cases(application, server.url(), database, token);
        for (name, result) in &results {
            assert_eq!(expected.get(name), Some(result), "{database}: {name}");
        }
        assert_eq!(results.len(), expected.len(), "{database}: every case ran");
        names = results.into_iter().map(|(name, _)| name).collect();
    }
    compare_table(&names);
}

/// The table of the documentation is that of this run. `TINE_UPDATE_DOCS=1` writes it.
fn compare_table(cases: &[String]) {
    const BEGIN: &str = "<!-- written by the test run: begin -->\n";
    const END: &str = "<!-- written by the test run: end -->";
    let mut table = String::from("| feature | test | bundle | fork | source |\n|---|---|---|---|---|\n");
    for name in cases {
        writeln!(table, "| {name} | `tests/compat`, `{name}` | as expected | same | same |").expect("memory suffices");
    }
    let path = root().join("docs/compatibility.md");
    let text = std::fs::read_to_string(&path).expect("the page is there");
    let (before, rest) = text.split_once(BEGIN).expect("the page says where the table begins");
    let (present, after) = rest.split_once(END).expect("the page says where the table ends");
    if present == table {
        return;
    }
    assert!(
        std::env::var_os("TINE_UPDATE_DOCS").is_some(),
        "docs/compatibility.md has another table; TINE_UPDATE_DOCS=1 writes:\n{table}"
    );
    std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("the page can be written");
}

#[test]
fn bindings_of_a_database_are_those_of_its_module() {
    let Some(application) = application() else { return };
    let server = TestServer::start();
    publish(&server, application, "club");
    let address = ["--server", server.url(), "--database", "club@exp"];
    application.generate(server.folder(), "again", &address).expect(0);
    for name in ["index.ts", "types.ts", "tine.ts", "tine_client.d.ts"] {
        let read = |folder: &str| std::fs::read_to_string(application.client.join(folder).join(name)).expect("written");
        assert!(read("bindings") == read("again"), "{name}");
    }
    let unchanged = application.generate(server.folder(), "again", &address).expect(0);
    assert!(unchanged.stdout.contains("nothing changed"), "{}", unchanged.stdout);
    // They are no part of the client.
    std::fs::remove_dir_all(application.client.join("again")).expect("they can be removed");
}

/// The page `name`, with the script of that name, built of `source`.
fn write_page(application: &Application, name: &str, source: &str) -> String {
    application.bundle(source, &format!("{name}.js"), "browser");
    let page = format!("<!doctype html><meta charset=utf-8><body><div id=root></div><script src={name}.js></script>");
    let path = application.client.join(format!("{name}.html"));
    std::fs::write(&path, page).expect("the page can be written");
    format!("file://{}", path.display())
}

/// Opens a page and returns what it writes, which is JSON.
async fn result_of(browser: &mut Browser, address: &str) -> Value {
    browser.open("about:blank").await.expect("opened");
    browser.open(address).await.expect("opened");
    let written = "location.protocol === 'file:' && (document.body?.innerText ?? '') !== ''";
    browser.until("a result", written, CASES_WITHIN).await.expect("the page ends");
    let result = browser.evaluate("document.body.innerText").await.expect("the page answers");
    serde_json::from_str(result.as_str().expect("text")).unwrap_or_else(|_| panic!("{address}: {result}"))
}

/// In a browser messages are compressed as the SDK asks, and taken in order nevertheless. So are those of the server's own client,
/// with the types that are generated for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_takes_compressed_messages_in_order_and_typed_rows() {
    let Some(application) = tokio::task::block_in_place(application) else { return };
    let Some(program) = chromium() else { return skip("there is no Chromium") };
    let (server, case_page, wrapper_page) = tokio::task::block_in_place(|| {
        let server = TestServer::start();
        publish(&server, application, "club");
        let pages = ["browser", "wrapper"].map(|name| write_page(application, name, &format!("{name}.ts")));
        let [case_page, wrapper_page] = pages;
        (server, case_page, wrapper_page)
    });
    let mut browser = Browser::start(&program, server.folder()).await.expect("it starts");
    let case = "compression%20as%20asked%20for%2C%20in%20order";
    let address = format!("{case_page}?url={}&database=club&case={case}", server.url());
    let expected = [("none", vec![0]), ("gzip", vec![0, 2]), ("as the SDK asks by default", vec![0, 2])];
    let expected: Vec<Value> = expected.into_iter().map(|(asked, tags)| json!([asked, tags, true, 24])).collect();
    assert_eq!(result_of(&mut browser, &address).await, Value::Array(expected));
    for database in ["club", "club%40exp"] {
        let address = format!("{wrapper_page}?url={}&database={database}", server.url());
        let found = result_of(&mut browser, &address).await;
        let (opened, kept) = ("from the wrapper", json!([["WRAPPED"], ["WRAPPED"]]));
        let expected = json!([opened, "wrapped", [opened], kept, "hall", "0n", "sender: politely", "the same"]);
        assert_eq!(found, expected, "{database}");
    }
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn react_hooks_work_in_a_browser_on_main_and_on_a_fork() {
    let Some(application) = tokio::task::block_in_place(application) else { return };
    let Some(program) = chromium() else { return skip("there is no Chromium") };
    let (server, page) = tokio::task::block_in_place(|| {
        let server = TestServer::start();
        publish(&server, application, "club");
        (server, write_page(application, "page", "page.tsx"))
    });
    let mut browser = Browser::start(&program, server.folder()).await.expect("it starts");
    for database in ["club", "club%40exp"] {
        let address = format!("{page}?url={}&database={database}", server.url());
        browser.open(&address).await.expect("opened");
        let steps = [
            ("the first room", "document.querySelector('ul')?.innerText.trim() === 'hall'", "open"),
            ("the new room", "document.querySelector('ul').innerText.includes('from the page')", "hide"),
            ("nothing hidden", "!document.querySelector('ul').innerText.includes('hidden')", "ask"),
            ("the procedure's answer", "document.querySelector('output').innerText === 'hall'", ""),
        ];
        for (what, shown, click) in steps {
            browser.until(what, shown, PAGE_WITHIN).await.unwrap_or_else(|error| panic!("{database}: {error}"));
            if !click.is_empty() {
                browser.evaluate(&format!("document.getElementById('{click}').click()")).await.expect("clicked");
            }
        }
    }
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

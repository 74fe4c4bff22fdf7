//! An application of the npm SDK, server and client, on `main` and on a fork: the same results on both. What it covers becomes the
//! table in docs/compatibility.md.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tine_client::http::{CONTENT_TYPE_JAVASCRIPT, PublishOptions};
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

/// Publishes the club under `name`, with a fork `exp`, and returns the owner's token.
fn publish(server: &TestServer, application: &Application, name: &str) -> String {
    let (client, token) = server.newcomer();
    let publisher = server.anonymous().with_token(&token).with_admin_token(server.admin_token());
    let program = std::fs::read(&application.module).expect("the bundle is there");
    publisher
        .publish(Some(name), CONTENT_TYPE_JAVASCRIPT, program, PublishOptions::default())
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
fn the_application_gives_the_same_results_on_main_and_on_a_fork() {
    let Some(application) = application() else { return };
    let checked = application.check();
    assert_eq!(checked.status, 0, "the bindings or the client are not strict TypeScript:\n{}", checked.stdout);
    application.bundle("app.ts", "app.mjs", "node");
    let server = TestServer::start();
    let token = publish(&server, application, "club");
    let on_main = run_cases(application, server.url(), "club", &token);
    let on_fork = run_cases(application, server.url(), "club@exp", &token);
    assert!(on_main.len() >= 20, "{} cases ran", on_main.len());
    for ((name, main), (_, fork)) in on_main.iter().zip(&on_fork) {
        assert_eq!(main, fork, "{name}");
    }
    assert_eq!(on_main.len(), on_fork.len());
    let expected: Value = serde_json::from_str(include_str!("../compat/expected.json")).expect("JSON");
    for (name, result) in &on_main {
        assert_eq!(expected.get(name), Some(result), "{name}");
    }
    compare_table(&on_main);
}

/// The table of the documentation is that of this run. `TINE_UPDATE_DOCS=1` writes it.
fn compare_table(cases: &[(String, Value)]) {
    const BEGIN: &str = "<!-- written by the test run: begin -->\n";
    const END: &str = "<!-- written by the test run: end -->";
    let mut table = String::from("| feature | test | main | fork |\n|---|---|---|---|\n");
    for (name, _) in cases {
        writeln!(table, "| {name} | `tests/compat`, `{name}` | same | same |").expect("writing to a string works");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn react_hooks_work_in_a_browser_on_main_and_on_a_fork() {
    let Some(application) = tokio::task::block_in_place(application) else { return };
    let Some(program) = chromium() else { return skip("there is no Chromium") };
    let server = tokio::task::block_in_place(|| {
        let server = TestServer::start();
        publish(&server, application, "club");
        application.bundle("page.tsx", "page.js", "browser");
        let page = "<!doctype html><meta charset=utf-8><div id=root></div><script src=page.js></script>";
        std::fs::write(application.client.join("page.html"), page).expect("the page can be written");
        server
    });
    let mut browser = Browser::start(&program, server.folder()).await.expect("it starts");
    for database in ["club", "club%40exp"] {
        let page = application.client.join("page.html");
        let address = format!("file://{}?url={}&database={database}", page.display(), server.url());
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

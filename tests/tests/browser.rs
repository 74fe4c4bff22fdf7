//! The live page of the market in headless Chromium: rows move without a reload, and a switch shows
//! another fork.

use std::time::Duration;

use serde_json::json;
use tine_tests::{
    browser::{Browser, chromium},
    keep::TestDirectory,
    root,
    server::{TestServer, module},
    skip,
    wait::SOON,
};

/// A mark that a reload would wipe away.
const MARK: &str = "window.untouched = true";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_move_without_reload_and_a_switch_shows_another_fork() {
    let Some(program) = chromium() else {
        return skip("Chromium is not installed; `cargo xtask setup` installs it");
    };
    let page = root().join("examples/market/page");
    let server = TestServer::start_with(&["--static", page.to_str().expect("a path of text")]);
    let owned = server.publish("market", &module("examples/market/index.ts"));
    let (rival, _) = server.newcomer();
    let client = &owned.client;
    client.call("market", "join", &json!(["Ada"])).expect("joined");
    rival.call("market", "join", &json!(["Bo"])).expect("joined");
    // One lot that stays open while the page is looked at.
    client.call("market", "sell", &json!([1, 0, 5, 100, 60_000])).expect("offered");

    let folder = TestDirectory::new("browser");
    let mut browser = Browser::start(&program, folder.path()).await.expect("the browser starts");
    browser.open(&format!("{}/app/", server.url())).await.expect("the page opens");
    let live = "document.querySelector('#status')?.dataset.state === 'live'";
    browser.until("a live page", live, SOON).await.expect("live");
    browser.evaluate(MARK).await.expect("marked");
    let lot = |best: u32| format!("document.querySelector('#floor tr[data-best=\"{best}\"]') !== null");
    browser.until("the lot", &lot(0), SOON).await.expect("shown");
    let names = "['Ada','Bo'].every(name => document.querySelector('#agents').innerText.includes(name))";
    browser.until("the agents", names, SOON).await.expect("shown");
    let balanced = "document.querySelector('#books').dataset.balanced === 'true'";
    browser.until("balanced books", balanced, SOON).await.expect("shown");

    rival.call("market", "bid", &json!([1, 1, 120])).expect("bid");
    browser.until("the bid", &lot(120), SOON).await.expect("the row moves");

    client.create_fork("market", "exp1", false).expect("forked");
    let switch = "document.querySelector('#forks button[data-fork=\"exp1\"]')";
    browser.until("the switch", &format!("{switch} !== null"), SOON).await.expect("the new fork is offered");
    let third = server.newcomer().0;
    third.call("market@exp1", "join", &json!(["Cleo"])).expect("joined");
    third.call("market@exp1", "bid", &json!([1, 1, 200])).expect("bid on the fork");
    browser.evaluate(&format!("{switch}.click()")).await.expect("clicked");
    let on_fork = "document.body.dataset.fork === 'exp1'";
    browser.until("the fork", &format!("{on_fork} && {}", lot(200)), SOON).await.expect("the fork's rows");
    rival.call("market@exp1", "bid", &json!([2, 1, 300])).expect("bid on the fork");
    browser.until("the fork's bid", &lot(300), SOON).await.expect("rows of the fork move");
    browser.screenshot(&folder.path().join("fork.png")).await.expect("a picture");

    let back = "document.querySelector('#forks button[data-fork=\"main\"]').click()";
    browser.evaluate(back).await.expect("clicked");
    browser
        .until("main again", &format!("document.body.dataset.fork === 'main' && {}", lot(120)), SOON)
        .await
        .expect("main's rows");
    assert_eq!(browser.evaluate("window.untouched").await.expect("asked"), json!(true), "the page was reloaded");
    assert!(browser.complaints.is_empty(), "the page complains: {:?}", browser.complaints);
}

/// The page finds its way back by itself when the server was away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_reconnects_after_a_restart() {
    let Some(program) = chromium() else {
        return skip("Chromium is not installed; `cargo xtask setup` installs it");
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let page = root().join("examples/market/page");
    let mut server = TestServer::start_with(&[
        "--static",
        page.to_str().expect("a path of text"),
        "--listen",
        &format!("127.0.0.1:{port}"),
    ]);
    let owned = server.publish("market", &module("examples/market/index.ts"));
    owned.client.call("market", "join", &json!(["Ada"])).expect("joined");
    let folder = TestDirectory::new("browser-restart");
    let mut browser = Browser::start(&program, folder.path()).await.expect("the browser starts");
    browser.open(&format!("{}/app/", server.url())).await.expect("the page opens");
    let shows = |name: &str| {
        format!(
            "document.querySelector('#status')?.dataset.state === 'live' && \
             document.querySelector('#agents').innerText.includes('{name}')"
        )
    };
    browser.until("the agent", &shows("Ada"), SOON).await.expect("shown");
    server.kill();
    let lost = "document.querySelector('#status').dataset.state !== 'live'";
    browser.until("the loss", lost, SOON).await.expect("noticed");
    server.restart();
    let client = server.anonymous().with_token(&owned.token);
    client.call("market", "join", &json!(["Ada again"])).expect("renamed");
    browser.until("the new name", &shows("Ada again"), SOON + Duration::from_secs(5)).await.expect("shown");
}

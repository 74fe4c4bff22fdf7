//! Ordering guarantees under random load, of remote and of local programs, and the proof that the checker would notice if they broke.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use tine_base::SystemEnv;
use tine_client::http::{CONTENT_TYPE_SOURCE, HttpClient, PublishOptions};
use tine_host::Sabotage;
use tine_server::{Server, ServerOptions};
use tine_tests::{
    history::{Violation, run},
    keep::TestDirectory,
    server::{TestServer, module},
};

const MODULE: &str = "tests/modules/journal.ts";
/// Runs of the whole program; `TINE_HISTORY_RUNS` asks for another number.
const RUNS: u64 = 2_000;
/// Runs at the same time: more than the cores, so that they meet.
const AT_ONCE: usize = 8;
/// Runs with local programs too; `TINE_HISTORY_RUNS` asks for another number.
const LOCAL_RUNS: u64 = 300;
/// Runs within which a broken scheduler must be noticed.
const CANARY_RUNS: u64 = 400;

/// Makes runs until one is wrong; says with which seed.
async fn first_violation(place: &run::Place, first_seed: u64, runs: u64) -> Option<(u64, Violation)> {
    let seeds = first_seed..first_seed + runs;
    let runs = futures_util::stream::iter(seeds).map(|seed| async move { (seed, one_run(place, seed).await) });
    let mut ended = std::pin::pin!(runs.buffer_unordered(AT_ONCE));
    while let Some((seed, outcome)) = ended.next().await {
        if let Err(violation) = outcome {
            return Some((seed, violation));
        }
    }
    None
}

/// A run that cannot go on, because something did not happen that had to, is wrong too.
async fn one_run(place: &run::Place, seed: u64) -> Result<(), Violation> {
    let place = place.clone();
    let ended = tokio::spawn(async move { run::run(&place, seed).await }).await;
    ended.unwrap_or_else(|panic| Err(Violation { guarantee: "G3", text: format!("the run ended early: {panic}") }))
}

/// Makes many runs on a server process.
async fn all_is_sound(server: &TestServer, runs: u64, sockets: u64, local: Vec<PathBuf>) {
    let owned = server.publish("history", &module(MODULE));
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (runs, seed) = (variable("TINE_HISTORY_RUNS").unwrap_or(runs), variable("TINE_HISTORY_SEED").unwrap_or(1));
    let place = run::Place {
        url: server.url().to_owned(),
        database: owned.name.clone(),
        token: owned.token.clone(),
        patience: Duration::from_secs(60),
        sockets,
        local,
    };
    if let Some((seed, violation)) = first_violation(&place, seed, runs).await {
        panic!("{violation}\nrepeat with TINE_HISTORY_SEED={seed} TINE_HISTORY_RUNS=100");
    }
}

/// Addresses for local programs over both transports.
fn local_paths(folder: &Path) -> Vec<PathBuf> {
    ["sock", "shm"].map(|transport| folder.join("history").with_extension(transport)).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_runs_keep_every_ordering_guarantee() {
    all_is_sound(&TestServer::start(), RUNS, run::CONNECTIONS, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_programs_keep_them_with_checkpoints_beside_others() {
    let directory = TestDirectory::new("history-local");
    let local = local_paths(directory.path());
    let options = local.iter().flat_map(|path| ["--ipc", path.to_str().expect("text")]).collect::<Vec<_>>();
    all_is_sound(&TestServer::start_with(&options), LOCAL_RUNS, 1, local.clone()).await;
}

/// Who makes the requests in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callers {
    WebSocket,
    Local,
}

/// Breaks a server in this process and looks whether the checker sees it; an unbroken one must pass.
async fn is_noticed(sabotage: Sabotage, callers: Callers) {
    let directory = TestDirectory::new("history");
    let listen: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let mut options = ServerOptions::new(listen, directory.path().join("data")).open_publish(true);
    options.host.sabotage = sabotage;
    let (sockets, local) = match callers {
        Callers::WebSocket => (run::CONNECTIONS, Vec::new()),
        Callers::Local => (0, local_paths(directory.path())),
    };
    options.ipc = local.clone();
    let server = Server::start(options, Arc::new(SystemEnv), |_| {}).await.expect("the server starts");
    let url = format!("http://{}", server.address());
    let publish_url = url.clone();
    let publish = move || {
        let client = HttpClient::new(&publish_url).expect("a good address");
        let owner = client.create_identity().expect("an identity").token;
        let (client, program) = (client.with_token(&owner), module(MODULE).encode());
        client.publish(Some("history"), CONTENT_TYPE_SOURCE, program, PublishOptions::default()).expect("published");
        owner
    };
    let token = tokio::task::spawn_blocking(publish).await.expect("publishing does not panic");
    let place =
        run::Place { url, database: "history".to_owned(), token, patience: Duration::from_secs(5), sockets, local };
    let found = first_violation(&place, 1, CANARY_RUNS).await;
    println!("{sabotage:?}, {callers:?}: {found:?}");
    match sabotage {
        Sabotage::None => assert_eq!(found, None, "nothing is broken"),
        _ => assert!(found.is_some(), "{CANARY_RUNS} runs did not notice {sabotage:?}"),
    }
    // A lane that forgot a job may hold back the end.
    let _ = tokio::time::timeout(Duration::from_secs(5), server.shutdown(Duration::from_secs(1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_server_is_sound_unless_it_is_broken() {
    is_noticed(Sabotage::None, Callers::WebSocket).await;
    is_noticed(Sabotage::None, Callers::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_swaps_requests_is_noticed() {
    is_noticed(Sabotage::SwapNeighbours, Callers::WebSocket).await;
    is_noticed(Sabotage::SwapNeighbours, Callers::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_reads_too_early_is_noticed() {
    is_noticed(Sabotage::HoistReads, Callers::WebSocket).await;
    is_noticed(Sabotage::HoistReads, Callers::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_loses_requests_is_noticed() {
    is_noticed(Sabotage::LoseJobs, Callers::WebSocket).await;
    is_noticed(Sabotage::LoseJobs, Callers::Local).await;
}

//! What the schema's service has beyond the plain protocol: forks that end with their connection, and shared memory that
//! outlives whoever dies. That it answers as the plain protocol does is compared in `differential.rs`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tine_ipc::typed::ServiceError;
use tine_ipc::{Client, ConnectOptions};
use tine_merkle::{IndexedKind, IndexedLeaf, Poseidon2, root_of};
use tine_msgpack::{Value, encode_request};
use tine_worldstate::WorldOptions;
use tine_worldstate::service::*;

mod support;

use support::{Ours, typed::connect};

/// No request of a test takes so long, nor anything else that it waits for.
const LIMIT: Duration = Duration::from_secs(60);

const NULLIFIERS: u8 = 0;
const NOTE_HASHES: u8 = 1;

/// What a process of this test acts as, and where.
const ROLE: &str = "TINE_WORLD_ROLE";
const PLACE: &str = "TINE_WORLD_PLACE";

fn element(number: u64) -> FieldElement {
    let mut element = [0; 32];
    element[24..].copy_from_slice(&number.to_be_bytes());
    FieldElement(element)
}

fn newest(fork: u64) -> Revision {
    Revision { fork, block: None, committed: false }
}

fn fork(client: &WorldStateClient, owned: Option<bool>) -> u64 {
    client.create_fork_within(&WorldStateCreateFork { block: None, owned }, LIMIT).unwrap().fork
}

fn append(client: &WorldStateClient, fork: u64, leaves: Vec<FieldElement>) -> Result<(), ServiceError> {
    let request = WorldStateAppendLeaves { fork, tree: NOTE_HASHES, leaves };
    client.append_leaves_within(&request, LIMIT).map(|_| ())
}

fn size(client: &WorldStateClient, fork: u64, tree: u8) -> u64 {
    let request = WorldStateGetTreeInfo { tree, revision: newest(fork) };
    client.get_tree_info_within(&request, LIMIT).unwrap().size
}

/// Waits until something holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a request and takes no interest in its response.
fn submit(client: &Client, name: &str, request: &impl Value) -> bool {
    client.submit(&encode_request(name, request), |_| ()).is_ok()
}

fn raw(path: &Path) -> Client {
    Client::connect(path, &ConnectOptions::new(SCHEMA_HASH)).unwrap()
}

/// A process of this test that acts as something until it is killed.
struct Process(Child);

impl Process {
    fn start(role: &str, place: &Path) -> Process {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "acts_until_it_is_killed"])
            .env(ROLE, role)
            .env(PLACE, place)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Process(child)
    }

    /// `kill -9`.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test by itself: the process that is killed.
#[test]
fn acts_until_it_is_killed() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    if role == "server" {
        let _ours = Ours::start(&WorldOptions::new(place.join("state")), &place.join("world.sock"));
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let client = connect(&place);
    let forks = [None, Some(true), Some(false)].map(|owned| fork(&client, owned));
    // Requests without end, and nobody takes the replies.
    let busy = raw(&place);
    for number in 1.. {
        let request = WorldStateAppendLeaves { fork: forks[0], tree: NOTE_HASHES, leaves: vec![element(number)] };
        let path = WorldStateGetSiblingPath { tree: NOTE_HASHES, revision: newest(forks[0]), index: number };
        let is_sent =
            submit(&busy, "WorldStateAppendLeaves", &request) && submit(&busy, "WorldStateGetSiblingPath", &path);
        assert!(is_sent, "the server outlives its clients");
    }
}

#[test]
fn owned_forks_end_with_a_killed_client() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let (mut kept, lasting) = (1, connect(&ours.typed[1]));
    let mine = fork(&lasting, None);
    append(&lasting, mine, vec![element(7)]).unwrap();
    for (round, path) in ours.typed.iter().cycle().take(6).enumerate() {
        let before = kept + 1;
        let mut client = Process::start("client", path);
        until("the client's forks", || ours.world.forks() == before + 3);
        std::thread::sleep(Duration::from_millis(3 * round as u64));
        client.kill();
        // The one that it gave away stays.
        kept += 1;
        until("the end of its other forks", || ours.world.forks() == kept + 1);
        // Whoever comes next gets replies of its own.
        let next = connect(path);
        let own = fork(&next, None);
        for number in 1..=20 {
            append(&next, own, vec![element(number)]).unwrap();
            assert_eq!(size(&next, own, NOTE_HASHES), number);
        }
        drop(next);
        until("the end of the next one's fork", || ours.world.forks() == kept + 1);
        assert_eq!(size(&lasting, mine, NOTE_HASHES), 1, "others' forks go on");
    }
}

/// A fork that is made behind a change of the chain may be made when its connection has ended.
#[test]
fn owned_forks_end_with_a_connection_that_left_before_they_were_made() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let lasting = connect(&ours.typed[0]);
    for path in ours.typed.iter().cycle().take(40) {
        let client = raw(path);
        assert!(submit(&client, "WorldStateCommit", &WorldStateCommit {}));
        for _ in 0..4 {
            let request = WorldStateCreateFork { block: None, owned: None };
            assert!(submit(&client, "WorldStateCreateFork", &request));
        }
    }
    // Everything that was taken has run when a later request to the same lane has.
    lasting.commit_within(&WorldStateCommit {}, LIMIT).unwrap();
    until("the end of all forks", || ours.world.forks() == 1);
}

#[test]
fn a_client_that_makes_and_deletes_forks_keeps_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let (client, other) = (connect(&ours.typed[1]), connect(&ours.typed[0]));
    let kept: Vec<u64> = (0..300).map(|_| fork(&client, None)).collect();
    for number in 0..1_000 {
        let made = fork(&client, None);
        // Whoever deletes it.
        let deleting = if number % 2 == 0 { &client } else { &other };
        deleting.delete_fork_within(&WorldStateDeleteFork { fork: made }, LIMIT).unwrap();
    }
    assert_eq!(ours.world.forks(), 1 + kept.len());
    assert_eq!(size(&client, kept[299], NOTE_HASHES), 0, "the others are there");
    drop(client);
    until("the end of the client's forks", || ours.world.forks() == 1);
}

#[test]
fn clients_of_a_killed_server_learn_it() {
    for transport in [0, 1] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(["world.typed.sock", "world.shm"][transport]);
        let mut server = Process::start("server", directory.path());
        let client = connect(&path);
        let mine = fork(&client, None);
        append(&client, mine, vec![element(1)]).unwrap();
        let began = Instant::now();
        std::thread::scope(|scope| {
            let calls =
                scope.spawn(|| (2..).find_map(|leaf| append(&client, mine, vec![element(leaf)]).err()).unwrap());
            std::thread::sleep(Duration::from_millis(50));
            server.kill();
            let error = calls.join().unwrap();
            assert!(matches!(error, ServiceError::Call(_)), "{error}");
        });
        assert!(began.elapsed() < LIMIT, "nobody waits for a dead server");
        // Another one serves at the same place.
        let _server = Process::start("server", directory.path());
        assert_eq!(size(&connect(&path), 0, NOTE_HASHES), 0);
    }
}

/// A response of megabytes passes through rings of some hundred kilobytes, and its witnesses hold.
#[test]
fn responses_larger_than_a_ring() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let hash = Poseidon2::new(1_157_584_160);
    for path in &ours.typed {
        let client = connect(path);
        let mine = fork(&client, None);
        let tree = NULLIFIERS;
        let info = WorldStateGetTreeInfo { tree, revision: newest(mine) };
        let before = client.get_tree_info_within(&info, LIMIT).unwrap();
        let entries = (0..512).map(|number| Entry { key: element(1_000 + 3 * number), value: element(0) }).collect();
        let insert = WorldStateSequentialInsert { fork: mine, tree, entries };
        let inserted = client.sequential_insert_within(&insert, LIMIT).unwrap();
        assert_eq!((inserted.low_leaves.len(), inserted.slots.len()), (512, 512));
        let low = &inserted.low_leaves[0];
        let leaf = IndexedLeaf {
            key: low.leaf.entry.key.0,
            value: low.leaf.entry.value.0,
            next_index: low.leaf.next_index,
            next_key: low.leaf.next_key.0,
        };
        let path: Vec<[u8; 32]> = low.path.iter().map(|element| element.0).collect();
        let root = root_of(&hash, &IndexedKind::Set.node(&hash, &leaf), low.index, &path);
        assert_eq!(root, before.root.0, "the first witness is of the tree before");
        let slot = inserted.slots[511].as_ref().expect("it is new");
        assert_eq!((slot.index, size(&client, mine, tree)), (128 + 511, 128 + 512));
    }
}

#[test]
fn refusals_have_codes() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let client = connect(&ours.typed[1]);
    let refused = |result: Result<(), ServiceError>, code: &str| match result {
        Err(ServiceError::Service { message }) => assert!(message.starts_with(&format!("{code}: ")), "{message}"),
        other => panic!("{other:?}"),
    };
    refused(append(&client, 99, vec![element(1)]), "TN1210");
    let modulus = "30644e72e131a029b85045b68181585d2833e84879b9709143e1f593f0000001";
    let beyond = FieldElement(support::bytes(modulus).try_into().unwrap());
    refused(append(&client, 0, vec![element(1), beyond]), "TN1228");
    let delete = WorldStateDeleteFork { fork: 0 };
    refused(client.delete_fork_within(&delete, LIMIT).map(|_| ()), "TN1211");
    for tree in [NULLIFIERS, 5, 255] {
        let request = WorldStateAppendLeaves { fork: 0, tree, leaves: Vec::new() };
        refused(client.append_leaves_within(&request, LIMIT).map(|_| ()), "TN1212");
    }
    let valued = vec![Entry { key: element(500), value: element(1) }];
    let request = WorldStateSequentialInsert { fork: 0, tree: NULLIFIERS, entries: valued };
    refused(client.sequential_insert_within(&request, LIMIT).map(|_| ()), "TN1228");
    let request = WorldStateCreateFork { block: Some(3), owned: None };
    refused(client.create_fork_within(&request, LIMIT).map(|_| ()), "TN1218");
    assert_eq!(size(&client, 0, NOTE_HASHES), 0, "nothing of it was done");
}

/// Leaves appended little by little, with refused and reverted ones in between, give the tree of all that stayed at once.
#[test]
fn appended_leaves_are_hashed_when_somebody_asks() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let client = connect(&ours.typed[1]);
    let range = |numbers: std::ops::Range<u64>| numbers.map(|number| element(number + 1)).collect::<Vec<_>>();
    let root = |fork| {
        let request = WorldStateGetTreeInfo { tree: NOTE_HASHES, revision: newest(fork) };
        client.get_tree_info_within(&request, LIMIT).unwrap().root
    };
    let create =
        |fork| client.create_checkpoint_within(&WorldStateCreateCheckpoint { fork }, LIMIT).map(|_| ()).unwrap();
    let commit =
        |fork| client.commit_checkpoint_within(&WorldStateCommitCheckpoint { fork }, LIMIT).map(|_| ()).unwrap();
    let revert =
        |fork| client.revert_checkpoint_within(&WorldStateRevertCheckpoint { fork }, LIMIT).map(|_| ()).unwrap();
    let (little, whole) = (fork(&client, None), fork(&client, None));
    for at in 0..40 {
        append(&client, little, range(at * 5..at * 5 + 5)).unwrap();
    }
    append(&client, little, vec![element(7), FieldElement([0xff; 32])]).unwrap_err();
    create(little);
    append(&client, little, range(900..903)).unwrap();
    create(little);
    append(&client, little, range(903..907)).unwrap();
    commit(little);
    append(&client, little, range(907..911)).unwrap();
    revert(little);
    create(little);
    append(&client, little, range(200..203)).unwrap();
    commit(little);
    append(&client, little, range(203..1_500)).unwrap();
    append(&client, little, range(1_500..1_501)).unwrap();
    append(&client, whole, range(0..1_501)).unwrap();
    assert_eq!(size(&client, little, NOTE_HASHES), 1_501);
    assert_eq!(root(little), root(whole));
    append(&client, little, range(1_501..1_503)).unwrap();
    append(&client, little, range(1_503..1_504)).unwrap();
    append(&client, whole, range(1_501..1_504)).unwrap();
    assert_eq!(root(little), root(whole));
}

/// A fork of a pruned block is refused, and one that was made before reads on.
#[test]
fn forks_of_pruned_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let client = connect(&ours.typed[1]);
    let create = |block| client.create_fork_within(&WorldStateCreateFork { block: Some(block), owned: None }, LIMIT);
    let commit = |leaf| {
        append(&client, 0, vec![element(leaf)]).unwrap();
        client.commit_within(&WorldStateCommit {}, LIMIT).unwrap().summary.tip
    };
    assert_eq!([commit(1), commit(2), commit(3), commit(4)], [1, 2, 3, 4]);
    let early = create(2).unwrap().fork;
    client.finalize_blocks_within(&WorldStateFinalizeBlocks { block: 4 }, LIMIT).unwrap();
    let removed = client.remove_historical_blocks_within(&WorldStateRemoveHistoricalBlocks { block: 4 }, LIMIT);
    assert_eq!(removed.unwrap().summary.oldest, 4);
    match create(2) {
        Err(ServiceError::Service { message }) => assert!(message.starts_with("TN1219: "), "{message}"),
        other => panic!("{other:?}"),
    }
    for block in 5..75 {
        assert_eq!(u64::from(commit(block)), block);
    }
    assert_eq!(size(&client, early, NOTE_HASHES), 2);
    append(&client, early, vec![element(5)]).unwrap();
    assert_eq!(size(&client, early, NOTE_HASHES), 3);
}

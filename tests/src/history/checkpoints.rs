//! Checkpoints in a run: on a fork of their own, one local program nests, keeps and takes them back while another writes and reads, and
//! a third watches every commit.
//!
//! A revert takes away rows of both, so positions do not tell the order any more; the watcher's stream does. It is the list of commits
//! in order (G5), replayed here into the state after each. What the others did is then placed on that list, in time linear in its
//! length for writes and reverts, and by a search for the first fitting state for reads. Each checkpoint begins with a write of its
//! own, so that every revert takes something away and shows up as one commit.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tine_ipc::typed::ServiceError;
use tine_local::{
    TineBeginCheckpoint, TineCommitCheckpoint, TineDropFork, TineFork, TineRevertCheckpoint, TineSubscribe,
};
use tokio::time::Instant;

use super::local::{Answer, Caller, decode, failing_reducer};
use super::random::Random;
use super::run::{Place, blocking};
use super::{Row, Violation};

/// What each program does, about.
const STEPS: u64 = 24;
/// Deepest nest of checkpoints.
const DEPTH_MAX: usize = 3;
/// The last write: the watcher stops there.
const LAST: u64 = u64::MAX;
const LIMIT: Duration = Duration::from_secs(30);

/// What a program asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Inserts a row.
    Write(u64),
    /// Inserts a row and fails.
    Failing(u64),
    /// Reads everything, in order.
    Read,
    /// Reads everything in the newest version.
    CommittedRead,
    /// Begins a checkpoint.
    Begin,
    /// Keeps a checkpoint.
    Commit,
    /// Takes back the checkpoint that the step of this number began.
    Revert(usize),
    /// Ends a checkpoint that is over.
    Stale,
}

/// Something a program asked for, and what it was told.
#[derive(Clone, Debug)]
pub struct Step {
    /// What.
    pub operation: Operation,
    /// Rows and LSN, none when it was refused.
    pub told: Option<(Vec<Row>, u64)>,
}

/// What a commit did, as the watcher saw it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Rows it inserted.
    pub inserts: Vec<Row>,
    /// Rows it deleted.
    pub deletes: Vec<Row>,
}

/// Everything recorded about the fork.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The LSN that the fork began with.
    pub first_lsn: u64,
    /// The rows that it began with.
    pub base: Vec<Row>,
    /// Its commits, in order.
    pub commits: Vec<Seen>,
    /// Each program's steps, in order; the first is the one with checkpoints.
    pub programs: Vec<Vec<Step>>,
}

fn violation<T>(guarantee: &'static str, text: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { guarantee, text: text.into() })
}

/// Makes and checks the part of a run that concerns checkpoints; nothing where no local programs are served.
///
/// # Errors
/// What is wrong with what was seen.
///
/// # Panics
/// When the server refuses what it should do.
pub async fn run(place: &Place, parent: &str, seed: u64) -> Result<(), Violation> {
    let paths = &place.local;
    if paths.is_empty() {
        return Ok(());
    }
    let path = |number: u64| paths[(seed + number) as usize % paths.len()].clone();
    let deadline = Instant::now() + place.patience;
    let mut owner = Caller::open(path(0), parent.to_owned()).await;
    let name = format!("h{seed:x}k");
    let (client, wanted) =
        (owner.client.clone(), TineFork { fork: owner.fork, name: Some(name.clone()), at: None, durable: false });
    let made = blocking(move || client.fork_within(&wanted, LIMIT).expect("forked while the parent is busy")).await;
    owner.fork = made.fork;
    let address = format!("{}@{name}", place.database);
    let mut other = Caller::open(path(1), address.clone()).await;
    let watcher = Caller::open(path(2), address).await;
    let patience = place.patience;
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let watched = tokio::task::spawn_blocking(move || watch(&watcher, begun, patience));
    if has_begun.await.is_err() {
        return watched.await.expect("the watcher does not panic").map(|_| ());
    }

    let randoms = [0, 1].map(|number| Random(seed.wrapping_mul(131).wrapping_add(number)));
    let [mut first, mut second] = randoms;
    let (mut nested, mut plain) = (Vec::new(), Vec::new());
    let (one, two) = tokio::join!(
        nest(&mut owner, &mut first, 1 << 50, deadline, &mut nested),
        mix(&mut other, &mut second, (1 << 50) + (1 << 20), deadline, &mut plain),
    );
    one.and(two)?;
    // The stream ends with a commit that everybody waits for.
    owner.send(nested.len(), owner.call("write", LAST)).await;
    collect(&mut owner, &mut nested, &[Operation::Write(LAST)], deadline).await?;
    let (base, commits) = watched.await.expect("the watcher does not panic")?;
    let record = Record { first_lsn: made.lsn, base, commits, programs: vec![nested, plain] };
    let (client, fork) = (owner.client.clone(), made.fork);
    if seed.is_multiple_of(2) {
        blocking(move || client.drop_fork_within(&TineDropFork { fork }, LIMIT).expect("dropped")).await;
    }
    // Else it goes with the connection that made it.
    check(&record)
}

/// Sees every commit, up to the last write.
fn watch(
    watcher: &Caller,
    begun: tokio::sync::oneshot::Sender<()>,
    patience: Duration,
) -> Result<(Vec<Row>, Vec<Seen>), Violation> {
    let queries = vec!["SELECT * FROM journal".to_owned()];
    let subscribe = TineSubscribe { fork: watcher.fork, queries, json: false };
    let mut stream = watcher.client.subscribe(&subscribe, 16).expect("subscribed");
    let mut next = || match stream.next_within(patience) {
        Ok(Some(item)) => Ok(item),
        other => violation("G5", format!("the stream of commits broke off: {other:?}")),
    };
    let first = next()?;
    if !first.initial {
        return violation("G5", "the first rows of a subscription are not marked as such");
    }
    let base = first.tables.iter().flat_map(|table| decode(&table.inserts)).collect();
    // Nobody waits any more when the run has failed already.
    let _ = begun.send(());
    let mut commits = Vec::new();
    loop {
        let item = next()?;
        let mut seen = Seen::default();
        for table in &item.tables {
            seen.inserts.extend(decode(&table.inserts));
            seen.deletes.extend(decode(&table.deletes));
        }
        let is_last = seen.inserts.iter().any(|row| row.id == LAST);
        commits.push(seen);
        if is_last {
            return Ok((base, commits));
        }
    }
}

/// Takes the answers of what is under way, in order, for the operations that are not in the log yet.
async fn collect(
    caller: &mut Caller,
    log: &mut Vec<Step>,
    sent: &[Operation],
    deadline: Instant,
) -> Result<(), Violation> {
    for operation in sent {
        let answer: Answer = match caller.take(deadline).await {
            Some((_, answer)) => answer,
            None => return violation("G3", format!("{operation:?} was never answered")),
        };
        let told = match answer {
            Ok(told) => Some(told),
            Err(ServiceError::Service { .. }) => None,
            Err(error) => return violation("G3", format!("{operation:?} was not answered: {error}")),
        };
        log.push(Step { operation: *operation, told });
    }
    Ok(())
}

/// Sends a random operation that is not about checkpoints.
async fn send_plain(caller: &mut Caller, random: &mut Random, id: u64) -> Operation {
    match random.below(8) {
        0..4 => {
            caller.send(0, caller.call("write", id)).await;
            Operation::Write(id)
        }
        4 => {
            caller.send(0, caller.call(failing_reducer(id), id)).await;
            Operation::Failing(id)
        }
        5 => {
            caller.send(0, caller.query()).await;
            Operation::Read
        }
        6 => {
            caller.send(0, caller.scan(false)).await;
            Operation::Read
        }
        _ => {
            caller.send(0, caller.scan(true)).await;
            Operation::CommittedRead
        }
    }
}

/// The program that writes and reads beside the one with checkpoints.
async fn mix(
    caller: &mut Caller,
    random: &mut Random,
    first_id: u64,
    deadline: Instant,
    log: &mut Vec<Step>,
) -> Result<(), Violation> {
    let mut sent = Vec::new();
    for number in 0..STEPS {
        sent.push(send_plain(caller, random, first_id + 2 * number).await);
        if random.below(4) == 0 {
            collect(caller, log, &std::mem::take(&mut sent), deadline).await?;
        }
    }
    collect(caller, log, &sent, deadline).await
}

/// The program with checkpoints. What ends one needs its number, so it waits for that; everything else is pipelined.
async fn nest(
    caller: &mut Caller,
    random: &mut Random,
    first_id: u64,
    deadline: Instant,
    log: &mut Vec<Step>,
) -> Result<(), Violation> {
    let (fork, client) = (caller.fork, caller.client.clone());
    // Those that are open, outermost first: number, and the step that began it.
    let mut open: Vec<(u64, usize)> = Vec::new();
    let mut over = None;
    let mut sent = Vec::new();
    for number in 0..STEPS {
        let id = first_id + 2 * number;
        match random.below(6) {
            0 | 1 if open.len() < DEPTH_MAX => {
                collect(caller, log, &std::mem::take(&mut sent), deadline).await?;
                let (number, begun) = (std::sync::Arc::new(std::sync::OnceLock::new()), log.len());
                let (told, client) = (number.clone(), client.clone());
                let begin = async move {
                    let answer = client.begin_checkpoint(&TineBeginCheckpoint { fork }).await?;
                    told.get_or_init(|| answer.checkpoint);
                    Ok((Vec::new(), answer.lsn))
                };
                caller.send(0, begin).await;
                caller.send(0, caller.call("write", id)).await;
                collect(caller, log, &[Operation::Begin, Operation::Write(id)], deadline).await?;
                match number.get() {
                    Some(checkpoint) => open.push((*checkpoint, begun)),
                    None => return violation("G6", "a checkpoint could not be begun"),
                }
            }
            2 if !open.is_empty() => {
                // Mostly the innermost; those inside of it end with it.
                let place =
                    if random.below(4) == 0 { random.below(open.len() as u64) as usize } else { open.len() - 1 };
                let (checkpoint, begun) = open[place];
                over = open.drain(place..).next_back().map(|(checkpoint, _)| checkpoint);
                let client = client.clone();
                if random.below(2) == 0 {
                    let commit = TineCommitCheckpoint { fork, checkpoint };
                    caller.send(0, async move { Ok((Vec::new(), client.commit_checkpoint(&commit).await?.lsn)) }).await;
                    sent.push(Operation::Commit);
                } else {
                    let revert = TineRevertCheckpoint { fork, checkpoint };
                    caller.send(0, async move { Ok((Vec::new(), client.revert_checkpoint(&revert).await?.lsn)) }).await;
                    sent.push(Operation::Revert(begun));
                }
            }
            3 if over.is_some() => {
                let revert = TineRevertCheckpoint { fork, checkpoint: over.take().expect("looked at") };
                let client = client.clone();
                caller.send(0, async move { Ok((Vec::new(), client.revert_checkpoint(&revert).await?.lsn)) }).await;
                sent.push(Operation::Stale);
            }
            _ => sent.push(send_plain(caller, random, id).await),
        }
    }
    collect(caller, log, &sent, deadline).await
}

/// The commits replayed: the state after each, and where each write and revert is.
struct Replay {
    /// After `n` commits: how many rows, and the exclusive or of their mixed ids.
    states: Vec<(usize, u64)>,
    /// The commit of a write, counted from 1.
    writes: HashMap<u64, usize>,
    /// The commits of reverts, counted from 1.
    reverts: Vec<usize>,
}

fn mixed(row: &Row) -> u64 {
    Random(row.id ^ row.before.rotate_left(32)).number()
}

fn state_of(rows: &[Row]) -> (usize, u64) {
    (rows.len(), rows.iter().fold(0, |sum, row| sum ^ mixed(row)))
}

impl Replay {
    fn new(record: &Record) -> Result<Replay, Violation> {
        let mut rows: HashMap<u64, u64> = record.base.iter().map(|row| (row.id, row.before)).collect();
        let mut state = state_of(&record.base);
        let mut replay = Replay { states: vec![state], writes: HashMap::new(), reverts: Vec::new() };
        for (number, commit) in (1..).zip(&record.commits) {
            match (commit.inserts.as_slice(), commit.deletes.as_slice()) {
                ([row], []) => {
                    if row.before != rows.len() as u64 {
                        return violation("G2", format!("{row:?} was written to a state of {} rows", rows.len()));
                    }
                    if replay.writes.insert(row.id, number).is_some() {
                        return violation("G5", format!("the commit of {row:?} came twice"));
                    }
                    rows.insert(row.id, row.before);
                    state = (state.0 + 1, state.1 ^ mixed(row));
                }
                ([], [_, ..]) => {
                    for row in &commit.deletes {
                        if rows.remove(&row.id) != Some(row.before) {
                            return violation("G5", format!("a revert takes {row:?}, which is not there"));
                        }
                        state = (state.0 - 1, state.1 ^ mixed(row));
                    }
                    replay.reverts.push(number);
                }
                _ => return violation("G5", format!("neither a write nor a revert: {commit:?}")),
            }
            replay.states.push(state);
        }
        Ok(replay)
    }
}

/// Checks the history of a fork with checkpoints.
///
/// # Errors
/// The first guarantee found broken.
pub fn check(record: &Record) -> Result<(), Violation> {
    let replay = Replay::new(record)?;
    let mut known = BTreeSet::new();
    let mut reverts = replay.reverts.iter().copied();
    for steps in &record.programs {
        // The commit of each step that is one.
        let mut commits = Vec::with_capacity(steps.len());
        for (number, Step { operation, told }) in steps.iter().enumerate() {
            commits.push(match (operation, told) {
                (Operation::Write(id), Some(_)) => {
                    known.insert(*id);
                    match replay.writes.get(id) {
                        Some(commit) => Some(*commit),
                        None => return violation("G6", format!("write {id} succeeded and is lost")),
                    }
                }
                (Operation::Revert(_), Some(_)) => match reverts.next() {
                    Some(commit) => Some(commit),
                    None => return violation("G5", format!("the revert of step {number} brought no commit")),
                },
                (Operation::Failing(_) | Operation::Stale, None) => None,
                (Operation::Failing(_) | Operation::Stale, Some(_)) => {
                    return violation("G6", format!("step {number}, {operation:?}, was said to have succeeded"));
                }
                (_, None) => return violation("G6", format!("step {number}, {operation:?}, was refused")),
                (_, Some(_)) => None,
            });
        }
        place(record, &replay, steps, &commits)?;
    }
    if let Some(commit) = reverts.next() {
        return violation("G6", format!("commit {commit} reverts, and nobody asked for it"));
    }
    match replay.writes.keys().find(|id| !known.contains(id)) {
        Some(id) => violation("G6", format!("write {id} left its row, though it failed")),
        None => Ok(()),
    }
}

/// G1, G2 and G4: places one program's steps on the commits, in its order, and looks at the LSNs it was told.
fn place(record: &Record, replay: &Replay, steps: &[Step], commits: &[Option<usize>]) -> Result<(), Violation> {
    let newest = replay.states.len() - 1;
    // The newest state that a step may see: that before the program's next commit.
    let mut latest = vec![newest; steps.len()];
    let mut bound = newest;
    for (place, commit) in latest.iter_mut().zip(commits).rev() {
        *place = bound;
        bound = commit.map_or(bound, |commit| commit - 1);
    }
    let (mut at, mut newest_lsn) = (0, 0);
    let mut begun = HashMap::new();
    for (number, (step, commit)) in steps.iter().zip(commits).enumerate() {
        let Some((rows, lsn)) = &step.told else { continue };
        if *lsn < newest_lsn {
            return violation("G4", format!("step {number} was told LSN {lsn} after {newest_lsn}"));
        }
        newest_lsn = *lsn;
        if let Some(commit) = commit {
            if *commit <= at {
                return violation("G1", format!("step {number}, {:?}, ran at {commit}, after {at}", step.operation));
            }
            at = *commit;
        }
        let fits = |state: usize| replay.states[state] == state_of(rows);
        match step.operation {
            Operation::Read => match (at..=latest[number]).find(|state| fits(*state)) {
                Some(state) => at = state,
                None if (0..at).any(fits) => {
                    return violation("G4", format!("step {number} read what was there before {at}"));
                }
                None => return violation("G1", format!("step {number} read no state of {at}..={}", latest[number])),
            },
            Operation::CommittedRead => {
                let state = lsn.wrapping_sub(record.first_lsn) as usize;
                if state < at || state > latest[number] {
                    return violation("G4", format!("step {number} read {state}, not in {at}..={}", latest[number]));
                }
                if !fits(state) {
                    return violation("G2", format!("step {number} was told LSN {lsn}, which has other rows"));
                }
                at = state;
            }
            Operation::Begin => {
                begun.insert(number, at..=latest[number]);
            }
            Operation::Revert(from) => {
                let Some(window) = begun.get(&from) else {
                    return violation("G6", format!("step {number} took back a checkpoint that nobody began"));
                };
                if !window.clone().any(|state| replay.states[state] == replay.states[at]) {
                    return violation("G6", format!("step {number} did not bring back a state of {window:?}"));
                }
            }
            _ => {}
        }
        if *lsn < record.first_lsn + at as u64 || *lsn > record.first_lsn + newest as u64 {
            return violation("G4", format!("step {number}, placed at {at}, was told LSN {lsn}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Row;
    use super::{Operation, Record, Seen, Step, check};

    fn row(id: u64, before: u64) -> Row {
        Row { id, before }
    }

    fn inserted(row: Row) -> Seen {
        Seen { inserts: vec![row], deletes: Vec::new() }
    }

    fn step(operation: Operation, rows: &[Row], lsn: u64) -> Step {
        Step { operation, told: Some((rows.to_vec(), lsn)) }
    }

    fn sound() -> Record {
        use Operation::{Begin, CommittedRead, Read, Revert, Stale, Write};
        let (a, b, c, d) = (row(1, 0), row(2, 1), row(3, 2), row(4, 1));
        Record {
            first_lsn: 10,
            base: Vec::new(),
            commits: vec![
                inserted(a),
                inserted(b),
                inserted(c),
                Seen { inserts: Vec::new(), deletes: vec![b, c] },
                inserted(d),
            ],
            programs: vec![
                vec![
                    step(Write(1), &[], 11),
                    step(Begin, &[], 11),
                    step(Write(2), &[], 13),
                    step(Revert(1), &[], 14),
                    step(CommittedRead, &[a], 14),
                    Step { operation: Stale, told: None },
                    step(Read, &[a, d], 15),
                ],
                vec![step(Write(3), &[], 13), step(Read, &[a], 14), step(Write(4), &[], 15)],
            ],
        }
    }

    #[test]
    fn a_sound_history_passes_and_each_change_of_it_is_noticed() {
        assert_eq!(check(&sound()), Ok(()));
        type Case = (&'static str, fn(&mut Record), &'static str);
        let cases: [Case; 9] = [
            (
                "a read of what was reverted",
                |record| record.programs[1][1] = step(Operation::Read, &[row(1, 0), row(2, 1)], 14),
                "G4",
            ),
            ("a read of no state", |record| record.programs[0][6] = step(Operation::Read, &[row(4, 1)], 15), "G1"),
            (
                "a revert too far",
                |record| {
                    record.commits[3].deletes.push(row(1, 0));
                    record.commits[4] = inserted(row(4, 0));
                },
                "G6",
            ),
            (
                "a revert that keeps something",
                |record| {
                    record.commits[3].deletes.pop();
                    record.commits[4] = inserted(row(4, 2));
                },
                "G6",
            ),
            ("a checkpoint ended twice", |record| record.programs[0][5].told = Some((Vec::new(), 14)), "G6"),
            ("an LSN too old", |record| record.programs[1][0] = step(Operation::Write(3), &[], 12), "G4"),
            (
                "another state than the LSN's",
                |record| {
                    record.programs[0][4] = step(Operation::CommittedRead, &[row(1, 0)], 15);
                },
                "G2",
            ),
            (
                "writes that ran in another order",
                |record| {
                    let (first, rest) = record.programs[1].split_at_mut(2);
                    std::mem::swap(&mut first[0].operation, &mut rest[0].operation);
                },
                "G4",
            ),
            ("a commit that came twice", |record| record.commits.push(inserted(row(4, 2))), "G5"),
        ];
        for (name, change, guarantee) in cases {
            let mut record = sound();
            change(&mut record);
            let found = check(&record).err();
            assert!(found.as_ref().is_some_and(|found| found.guarantee == guarantee), "{name}: {found:?}");
        }
    }
}

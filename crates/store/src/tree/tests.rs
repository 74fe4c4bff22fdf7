use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Displaced, TreeRoot, walk};
use crate::arena::Arena;
use crate::draft::{Draft, EditError};
use crate::ids::KeyspaceId;
use crate::page::PAGE_BYTES;
use crate::read::{Direction, StateRef};
use crate::versions::{Frozen, Pages};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const KEYSPACE: KeyspaceId = KeyspaceId::new(20);

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// Makes the present draft's state a version, and keeps it if so told.
    Freeze(bool),
    /// Lets go of a kept version.
    Release(usize),
    /// Begins a draft on a kept version beside the present one, which is kept or dropped.
    Fork {
        base: usize,
        keep: bool,
        overlays: bool,
    },
    /// Goes on with another draft.
    Switch(usize),
}

/// Few distinct keys of very different lengths, so that edits meet each other and pages fill by bytes.
fn key() -> impl Strategy<Value = Vec<u8>> {
    (0_u16..600, prop_oneof![8 => Just(0_usize), 2 => 1_usize..40, 1 => Just(1800_usize)]).prop_map(
        |(number, padding)| {
            let mut key = number.to_be_bytes().to_vec();
            key.extend(std::iter::repeat_n(7, padding));
            key
        },
    )
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), prop_oneof![6 => 0_usize..60, 2 => 900_usize..2200, 1 => Just(10_000_usize), 1 => Just(4072_usize)])
        .prop_map(|(byte, length)| vec![byte; length])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (key(), value()).prop_map(|(key, value)| Step::Put(key, value)),
        24 => key().prop_map(Step::Delete),
        3 => any::<bool>().prop_map(Step::Freeze),
        2 => any::<usize>().prop_map(Step::Release),
        2 => (any::<usize>(), any::<bool>(), any::<bool>())
            .prop_map(|(base, keep, overlays)| Step::Fork { base, keep, overlays }),
        1 => any::<usize>().prop_map(Step::Switch),
    ]
}

fn displaced_value(displaced: &Displaced, inline: Vec<u8>) -> Option<Vec<u8>> {
    match displaced {
        Displaced::Nothing => None,
        Displaced::Same => panic!("the value differs"),
        Displaced::Inline => Some(inline),
        Displaced::Large(shared) => Some(shared.to_vec()),
    }
}

/// Drafts and versions of one arena, each with what it should hold.
struct World {
    pages: Arc<Pages>,
    drafts: Vec<(Draft, Model)>,
    kept: Vec<(Arc<Frozen>, Model)>,
}

impl World {
    fn new(arena: Arena) -> World {
        let pages = Pages::new(arena);
        let drafts = vec![(Draft::new(pages.empty(), false), Model::new())];
        World { pages, drafts, kept: Vec::new() }
    }

    fn run(&mut self, step: &Step) {
        let (draft, model) = self.drafts.last_mut().expect("there is a draft");
        match step {
            Step::Put(key, value) => put(draft, model, key, value),
            Step::Delete(key) => delete(draft, model, key),
            Step::Freeze(keep) => {
                let version = draft.freeze();
                if *keep {
                    self.kept.push((version, model.clone()));
                }
            }
            Step::Release(index) => {
                if !self.kept.is_empty() {
                    self.kept.swap_remove(index % self.kept.len());
                }
            }
            Step::Fork { base, keep, overlays } => {
                if !self.kept.is_empty() {
                    let (version, model) = &self.kept[base % self.kept.len()];
                    let forked = (Draft::new(Arc::clone(version), *overlays), model.clone());
                    if !keep {
                        self.drafts.pop();
                    }
                    self.drafts.push(forked);
                }
            }
            Step::Switch(index) => {
                let index = index % self.drafts.len();
                let last = self.drafts.len() - 1;
                self.drafts.swap(index, last);
            }
        }
    }

    fn check(&self) {
        if let Err(detail) = self.pages.check() {
            panic!("{detail}");
        }
        for (draft, model) in &self.drafts {
            assert_equal(StateRef::of_draft(draft), model);
        }
        for (version, model) in &self.kept {
            assert_equal(StateRef::of_version(version), model);
            let folded = version.folded().expect("room");
            assert!(folded.overlay().is_none());
            assert_equal(StateRef::of_version(&folded), model);
        }
    }

    /// Lets go of everything and checks that nothing is left.
    fn finish(mut self) {
        self.drafts.clear();
        self.pages.check().expect("sound");
        while let Some(index) = self.kept.len().checked_sub(1) {
            self.kept.swap_remove(index / 2);
            self.pages.check().expect("sound");
        }
        let stats = self.pages.arena.stats();
        assert_eq!((self.pages.versions(), stats.allocated, stats.drafted), (0, 0, 0));
    }
}

fn root_of(trees: &[(KeyspaceId, TreeRoot)]) -> TreeRoot {
    trees.first().map_or_else(TreeRoot::default, |(_, tree)| *tree)
}

fn put(draft: &mut Draft, model: &mut Model, key: &[u8], value: &[u8]) {
    let mut old = Vec::new();
    let displaced = draft.write(KEYSPACE, key, Some(value), &mut old).expect("room");
    let before = model.insert(key.to_vec(), value.to_vec());
    if before.as_deref() == Some(value) {
        assert!(matches!(displaced, Displaced::Same));
    } else {
        assert_eq!(displaced_value(&displaced, old), before);
    }
}

fn delete(draft: &mut Draft, model: &mut Model, key: &[u8]) {
    let mut old = Vec::new();
    let displaced = draft.write(KEYSPACE, key, None, &mut old).expect("room");
    assert_eq!(displaced_value(&displaced, old), model.remove(key));
}

fn collect(state: StateRef<'_>, start: Bound<&[u8]>, end: Bound<&[u8]>, reverse: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let direction = if reverse { Direction::Reverse } else { Direction::Forward };
    let mut cursor = state.range(KEYSPACE, start, end, direction);
    let mut records = Vec::new();
    while let Some((key, value)) = cursor.next().expect("in memory") {
        records.push((key.to_vec(), value.to_vec()));
    }
    assert!(cursor.next().expect("in memory").is_none(), "a finished cursor stays finished");
    records
}

fn assert_equal(state: StateRef<'_>, model: &Model) {
    assert_eq!(state.len(KEYSPACE), model.len() as u64);
    let expected: Vec<_> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    assert!(collect(state, Bound::Unbounded, Bound::Unbounded, false) == expected);
    for (key, value) in model {
        assert_eq!(state.get(KEYSPACE, key).expect("in memory").as_deref(), Some(value.as_slice()));
    }
}

fn in_bounds(key: &[u8], start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    let above = match start {
        Bound::Included(bound) => key >= bound,
        Bound::Excluded(bound) => key > bound,
        Bound::Unbounded => true,
    };
    let below = match end {
        Bound::Included(bound) => key <= bound,
        Bound::Excluded(bound) => key < bound,
        Bound::Unbounded => true,
    };
    above && below
}

fn bound(kind: u8, key: &[u8]) -> Bound<&[u8]> {
    match kind {
        0 => Bound::Unbounded,
        1 => Bound::Included(key),
        _ => Bound::Excluded(key),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every draft and version agrees with its own map, and exactly their pages are kept, after every step that can
    /// free some.
    #[test]
    fn versions_behave_as_maps_and_keep_their_pages(
        steps in prop::collection::vec(step(), 0..500),
        mapped in any::<bool>(),
    ) {
        let arena = if mapped { Arena::reserve(64 << 20).expect("addresses") } else { Arena::heap(8192) };
        let mut world = World::new(arena);
        for step in &steps {
            world.run(step);
            if !matches!(step, Step::Put(..) | Step::Delete(_) | Step::Switch(_)) {
                world.check();
            }
        }
        world.check();
        world.finish();
    }

    #[test]
    fn ranges_agree_with_a_map(
        edits in prop::collection::vec((key(), prop::option::weighted(0.8, value())), 0..300),
        ranges in prop::collection::vec((0_u8..3, key(), 0_u8..3, key()), 30),
    ) {
        let mut draft = Draft::new(Pages::new(Arena::heap(8192)).empty(), false);
        let mut model = Model::new();
        for (key, value) in &edits {
            match value {
                Some(value) => put(&mut draft, &mut model, key, value),
                None => delete(&mut draft, &mut model, key),
            }
        }
        let state = StateRef::of_draft(&draft);
        for (start_kind, start, end_kind, end) in &ranges {
            let (start, end) = (bound(*start_kind, start), bound(*end_kind, end));
            let mut expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| in_bounds(key, start, end))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            prop_assert!(collect(state, start, end, false) == expected);
            expected.reverse();
            prop_assert!(collect(state, start, end, true) == expected);
        }
    }
}

#[test]
fn fills_and_empties_in_every_order() {
    let count = 20_000_u32;
    let keys: Vec<[u8; 4]> = (0..count).map(u32::to_be_bytes).collect();
    let scattered: Vec<[u8; 4]> = (0..count).map(|number| (number.wrapping_mul(7_919) % count).to_be_bytes()).collect();
    let backwards: Vec<[u8; 4]> = keys.iter().rev().copied().collect();
    for inserted in [&keys, &scattered, &backwards] {
        for deleted in [&keys, &scattered, &backwards] {
            let pages = Pages::new(Arena::heap(4096));
            let mut draft = Draft::new(pages.empty(), false);
            let mut old = Vec::new();
            for key in inserted {
                draft.write(KEYSPACE, key, Some(&[1; 40]), &mut old).expect("room");
            }
            assert!(old.is_empty());
            let full = draft.freeze();
            assert_eq!(root_of(full.trees()).length, u64::from(count));
            for (position, key) in deleted.iter().enumerate() {
                old.clear();
                let displaced = draft.write(KEYSPACE, key, None, &mut old).expect("room");
                assert!(matches!(displaced, Displaced::Inline));
                if position % 4_001 == 0 {
                    walk::check(draft.arena(), root_of(draft.trees())).expect("a sound tree");
                }
            }
            assert_eq!(root_of(draft.trees()), TreeRoot::default());
            pages.check().expect("sound");
            drop(full);
            draft.freeze();
            pages.check().expect("sound");
            assert_eq!(pages.arena.stats().allocated, 0);
        }
    }
}

#[test]
fn growing_keys_fill_their_leaves() {
    for greater in [None, Some(u32::MAX)] {
        let pages = Pages::new(Arena::heap(4096));
        let mut draft = Draft::new(pages.empty(), false);
        let mut old = Vec::new();
        for number in greater.into_iter().chain(0_u32..50_000) {
            draft.write(KEYSPACE, &number.to_be_bytes(), Some(&[0; 28]), &mut old).expect("room");
        }
        draft.freeze();
        let used = 50_000 * (4 + 28 + 2 + 8) / pages.arena.stats().allocated as usize;
        assert!(used > PAGE_BYTES * 9 / 10, "{used} beside {greater:?}");
    }
}

/// A draft that finds the arena full is as it was, and can be undone.
#[test]
fn a_full_arena_refuses_and_leaves_everything_as_it_was() {
    let mut world = World::new(Arena::heap(700));
    let (draft, model) = world.drafts.last_mut().expect("there is a draft");
    (0_u32..1000).for_each(|number| put(draft, model, &number.to_be_bytes(), &[1; 100]));
    let base = draft.freeze();
    let before = model.clone();
    let mut number = 0_u32;
    loop {
        let (key, value) = ((number * 7).to_be_bytes(), vec![2; if number.is_multiple_of(5) { 9000 } else { 100 }]);
        match draft.write(KEYSPACE, &key, Some(&value), &mut Vec::new()) {
            Ok(_) => model.insert(key.to_vec(), value),
            Err(EditError::Full) => break,
            Err(error) => panic!("{error:?}"),
        };
        number += 1;
    }
    world.kept.push((base, before.clone()));
    world.check();
    let (draft, model) = world.drafts.last_mut().expect("there is a draft");
    for key in model.keys() {
        draft.write_back(KEYSPACE, key, before.get(key).map(Vec::as_slice), &mut Vec::new());
    }
    *model = before;
    world.check();
    world.finish();
}

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::{Displaced, Tree};

#[derive(Clone, Debug)]
enum Edit {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Keep,
}

/// Few distinct keys of very different lengths, so that edits meet each other and nodes fill by bytes.
fn key() -> impl Strategy<Value = Vec<u8>> {
    (0_u16..600, prop_oneof![8 => Just(0_usize), 2 => 1_usize..40, 1 => Just(4000_usize)]).prop_map(
        |(number, padding)| {
            let mut key = number.to_be_bytes().to_vec();
            key.extend(std::iter::repeat_n(7, padding));
            key
        },
    )
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), prop_oneof![6 => 0_usize..60, 2 => 900_usize..1200, 1 => Just(10_000_usize)])
        .prop_map(|(byte, length)| vec![byte; length])
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        10 => (key(), value()).prop_map(|(key, value)| Edit::Put(key, value)),
        8 => key().prop_map(Edit::Delete),
        1 => Just(Edit::Keep),
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

fn apply(tree: &mut Tree, model: &mut BTreeMap<Vec<u8>, Vec<u8>>, edit: &Edit) {
    let mut old = Vec::new();
    match edit {
        Edit::Put(key, value) => {
            let displaced = tree.put(key, value, &mut old);
            let before = model.insert(key.clone(), value.clone());
            if before.as_ref() == Some(value) {
                assert!(matches!(displaced, Displaced::Same));
            } else {
                assert_eq!(displaced_value(&displaced, old), before);
            }
        }
        Edit::Delete(key) => {
            let displaced = tree.delete(key, &mut old);
            assert_eq!(displaced_value(&displaced, old), model.remove(key));
        }
        Edit::Keep => {}
    }
}

fn collect(tree: &Tree, start: Bound<&[u8]>, end: Bound<&[u8]>, reverse: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut cursor = tree.range(start, end, reverse);
    let mut records = Vec::new();
    while let Some((key, value)) = cursor.next() {
        records.push((key.to_vec(), value.to_vec()));
    }
    assert!(cursor.next().is_none(), "a finished cursor stays finished");
    records
}

fn assert_equal(tree: &Tree, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    tree.check();
    assert_eq!(tree.len(), model.len() as u64);
    let expected: Vec<_> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    assert!(collect(tree, Bound::Unbounded, Bound::Unbounded, false) == expected);
    for (key, value) in model {
        assert_eq!(tree.get(key), Some(value.as_slice()));
    }
}

fn in_bounds(key: &Vec<u8>, start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    let key = key.as_slice();
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

    /// Edits agree with a map, and copies kept along the way never change.
    #[test]
    fn behaves_as_a_map_and_copies_are_immutable(edits in prop::collection::vec(edit(), 0..600)) {
        let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
        let mut kept = Vec::new();
        for edit in &edits {
            apply(&mut tree, &mut model, edit);
            if matches!(edit, Edit::Keep) {
                tree.check();
                kept.push((tree.clone(), model.clone()));
            }
        }
        assert_equal(&tree, &model);
        for (tree, model) in kept.iter().take(8) {
            assert_equal(tree, model);
        }
    }

    #[test]
    fn ranges_agree_with_a_map(
        edits in prop::collection::vec(edit(), 0..300),
        ranges in prop::collection::vec((0_u8..3, key(), 0_u8..3, key()), 30),
    ) {
        let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
        for edit in &edits {
            apply(&mut tree, &mut model, edit);
        }
        for (start_kind, start, end_kind, end) in &ranges {
            let (start, end) = (bound(*start_kind, start), bound(*end_kind, end));
            let mut expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| in_bounds(key, start, end))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            prop_assert!(collect(&tree, start, end, false) == expected);
            expected.reverse();
            prop_assert!(collect(&tree, start, end, true) == expected);
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
            let mut tree = Tree::default();
            let mut old = Vec::new();
            for key in inserted {
                tree.put(key, &[1; 40], &mut old);
            }
            assert!(old.is_empty());
            tree.check();
            assert_eq!(tree.len(), u64::from(count));
            for (position, key) in deleted.iter().enumerate() {
                old.clear();
                assert!(matches!(tree.delete(key, &mut old), Displaced::Inline));
                if position % 4_001 == 0 {
                    tree.check();
                }
            }
            tree.check();
            assert_eq!(tree.len(), 0);
            assert!(tree.root.is_none());
        }
    }
}

#[test]
fn growing_keys_fill_their_leaves() {
    let mut tree = Tree::default();
    let mut old = Vec::new();
    for number in 0_u32..50_000 {
        tree.put(&number.to_be_bytes(), &[0; 28], &mut old);
    }
    let leaves = tree.root.as_ref().map_or(0, |root| leaf_count(root));
    let bytes_per_leaf = 50_000 * (4 + 28 + 12) / leaves;
    assert!(bytes_per_leaf > super::NODE_BYTES * 9 / 10, "{bytes_per_leaf}");
}

fn leaf_count(node: &super::Node) -> usize {
    match node {
        super::Node::Leaf(_) => 1,
        super::Node::Branch(branch) => branch.children.iter().map(|child| leaf_count(child)).sum(),
    }
}

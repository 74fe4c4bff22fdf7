use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>, Vec<u8>),
    Overwrite(usize, u8),
    Remove(usize),
}

/// Keys with prefixes of several lengths, so that prefixes are cut and heads collide.
fn key() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![Just(&b""[..]), Just(&b"table"[..]), Just(&b"table\0\0\0\0\0"[..])], 0_u16..300, 0_usize..6).prop_map(
        |(prefix, number, zeros)| {
            let mut key = prefix.to_vec();
            key.extend(number.to_be_bytes());
            key.resize(key.len() + zeros, 0);
            key
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), prop::collection::vec(any::<u8>(), 0..80)).prop_map(|(key, value)| Step::Insert(key, value)),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(index, byte)| Step::Overwrite(index, byte)),
        2 => any::<usize>().prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_leaf_behaves_as_a_map(steps in prop::collection::vec(step(), 0..200)) {
        let mut bytes = [0xAA; PAGE_BYTES];
        let mut edit = Edit::format(&mut bytes, 0, Stamp::new(5));
        let mut model = BTreeMap::new();
        for step in steps {
            let count = edit.view().count();
            match step {
                Step::Insert(key, value) => {
                    let found = edit.view().find(&key);
                    prop_assert_eq!(found.is_ok(), model.contains_key(&key));
                    if let Err(index) = found {
                        let cell = Cell { key: &key, body: Body::Inline(&value) };
                        if edit.insert(index, cell) {
                            model.insert(key, value);
                        } else {
                            prop_assert!(edit.view().used_bytes() + cell.bytes() + SLOT_BYTES > BODY_BYTES);
                        }
                    }
                }
                Step::Overwrite(index, byte) if count > 0 => {
                    let index = index % count;
                    let key = edit.view().key(index).to_vec();
                    let value = model.get_mut(&key).expect("the model has it");
                    value.fill(byte);
                    prop_assert!(edit.overwrite(index, Body::Inline(value)));
                }
                Step::Remove(index) if count > 0 => {
                    let key = edit.view().key(index % count).to_vec();
                    edit.remove(index % count);
                    model.remove(&key).expect("the model has it");
                }
                Step::Overwrite(..) | Step::Remove(_) => {}
            }
            if !model.is_empty() {
                prop_assert_eq!(check(edit.view().0), Ok(PageKind::Leaf));
            }
        }
        let view = edit.view();
        prop_assert_eq!(view.count(), model.len());
        for (index, (key, value)) in model.iter().enumerate() {
            prop_assert_eq!(view.find(key), Ok(index));
            prop_assert_eq!((view.key(index), view.value(index)), (&key[..], Value::Inline(value)));
        }
    }

    #[test]
    fn a_branch_finds_the_child_of_any_key(
        keys in prop::collection::btree_set(key(), 1..60),
        probes in prop::collection::vec(key(), 40),
    ) {
        let keys: Vec<Vec<u8>> = keys.into_iter().filter(|key| !key.is_empty()).collect();
        let mut bytes = [0xAA; PAGE_BYTES];
        let mut edit = Edit::format(&mut bytes, 1, Stamp::new(5));
        let child = |index: usize| ChildRef { id: PageId::new(index as u32 + 1), birth: Stamp::new(index as u64) };
        let cell = |key, index| Cell { key, body: Body::Child(child(index)) };
        prop_assert!(edit.insert(0, cell(&[], 0)));
        for (index, key) in keys.iter().enumerate() {
            prop_assert!(edit.insert(index + 1, cell(key, index + 1)));
        }
        prop_assert_eq!(check(edit.view().0), Ok(PageKind::Branch));
        for probe in probes.iter().chain(&keys) {
            let expected = keys.iter().filter(|key| *key <= probe).count();
            prop_assert_eq!(edit.view().child_for(probe), expected);
            prop_assert_eq!(edit.view().child(expected), child(expected));
        }
        edit.remove(0);
        prop_assert_eq!(check(edit.view().0), Ok(PageKind::Branch));
        prop_assert_eq!((edit.view().key(0), edit.view().child(0)), (&[][..], child(1)));
    }

    /// What a copy notes of its changes agrees with what comparing all of it finds.
    #[test]
    fn a_copy_knows_what_was_overwritten(
        keys in prop::collection::btree_set(key(), 1..60),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
    ) {
        let mut original = [0; PAGE_BYTES];
        let mut edit = Edit::format(&mut original, 0, Stamp::new(5));
        for (index, key) in keys.iter().enumerate() {
            edit.insert(index, Cell { key, body: Body::Inline(b"value") });
        }
        let own = ChildRef { id: PageId::new(3), birth: Stamp::new(5) };
        let other = ChildRef { id: PageId::new(4), birth: Stamp::new(9) };
        let mut copy = original;
        let mut edit = Edit::new(&mut copy);
        edit.become_copy(own.id, other.birth);
        for (index, byte) in changes {
            edit.overwrite(index % keys.len(), Body::Inline(&[byte; 5]));
        }
        let slots = |set: Option<SlotSet>| {
            let set = set.expect("the slots are the same");
            (0..keys.len()).filter(|index| set.next_from(*index) == *index).collect::<Vec<_>>()
        };
        let noted = slots(View(&original).differing_cells(own, View(&copy), other));
        let backwards = slots(View(&copy).differing_cells(other, View(&original), own));
        // Another birth: nothing is known of such a page.
        let stranger = ChildRef { birth: Stamp::new(4), ..own };
        let compared = slots(View(&original).differing_cells(stranger, View(&copy), other));
        prop_assert_eq!(&noted, &compared);
        prop_assert_eq!(&backwards, &compared);
        let cell = Cell { key: &[0xFF; 40], body: Body::Inline(b"more") };
        prop_assert!(Edit::new(&mut copy).insert(keys.len(), cell));
        prop_assert!(View(&original).differing_cells(own, View(&copy), other).is_none());
    }

    /// Bytes from outside are refused or harmless.
    #[test]
    fn checked_pages_can_be_read(
        changes in prop::collection::vec((0_usize..PAGE_BYTES, any::<u8>()), 1..8),
        keys in prop::collection::btree_set(key(), 1..60),
    ) {
        let mut bytes = [0; PAGE_BYTES];
        let mut edit = Edit::format(&mut bytes, 0, Stamp::new(5));
        for (index, key) in keys.iter().enumerate() {
            edit.insert(index, Cell { key, body: Body::Inline(b"value") });
        }
        for (at, byte) in changes {
            // Mostly the header and the slots: the values may be anything.
            bytes[if at % 2 == 0 { at % 400 } else { at }] = byte;
        }
        if check(&bytes).is_ok() && !matches!(View(&bytes).kind(), Some(PageKind::Run)) {
            let view = View(&bytes);
            for cell in view.cells() {
                let found = if view.is_leaf() { view.find(cell.key).is_ok() } else { view.child_for(cell.key) < view.count() };
                prop_assert!(found);
            }
        }
    }
}

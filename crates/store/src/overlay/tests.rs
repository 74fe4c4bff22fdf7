use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn step() -> impl Strategy<Value = (u32, Vec<u8>, Option<Vec<u8>>)> {
    let key = prop::collection::vec(0_u8..4, 1..4);
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..300));
    (16_u32..18, key, value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A list agrees with a map of what was set, and refuses only what is beyond its bounds.
    #[test]
    fn a_list_behaves_as_a_map(steps in prop::collection::vec(step(), 0..400)) {
        let mut overlay = Overlay::default();
        let mut model: BTreeMap<(u32, Vec<u8>), Option<Vec<u8>>> = BTreeMap::new();
        let in_tree = |key: &[u8]| key[0].is_multiple_of(2);
        for (keyspace, key, value) in steps {
            let id = KeyspaceId::new(keyspace);
            if overlay.set(id, &key, value.as_deref(), in_tree(&key)) {
                if value.is_none() && !in_tree(&key) {
                    model.remove(&(keyspace, key));
                } else {
                    model.insert((keyspace, key), value);
                }
            } else {
                let live: usize = model.iter().map(|((_, key), value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
                prop_assert!(model.len() == ENTRIES_MAX || live + 512 > HEAP_BYTES_MAX);
            }
            prop_assert!(overlay.heap.len() <= HEAP_BYTES_MAX);
        }
        for keyspace in 15..19 {
            let id = KeyspaceId::new(keyspace);
            let mut expected: Vec<_> = model.iter().filter(|((of, _), _)| *of == keyspace).collect();
            let added: i64 = expected
                .iter()
                .map(|((_, key), value)| i64::from(value.is_some()) - i64::from(in_tree(key)))
                .sum();
            prop_assert_eq!(overlay.added(id), added);
            for reverse in [false, true] {
                let mut cursor = overlay.cursor(id, Bound::Unbounded, Bound::Unbounded, reverse);
                for ((_, key), value) in &expected {
                    let (found, overlaid) = cursor.peek().expect("as many as the model has");
                    prop_assert_eq!((found, overlaid.value()), (&key[..], value.as_deref()));
                    prop_assert_eq!(overlay.get(id, key), Some(overlaid));
                    cursor.advance();
                }
                prop_assert!(cursor.peek().is_none());
                expected.reverse();
            }
        }
    }
}

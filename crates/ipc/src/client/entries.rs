//! The requests in flight, by id.
//!
//! Ids are consecutive and most answers come soon, so nearly every entry has the place of its id to itself: adding and removing one is
//! an index and a store, where a hash table would be rebuilt again and again, since no id ever comes back. Who finds its place taken,
//! by a stream mostly, stands in a map.

use std::collections::HashMap;

/// Places; a power of two.
const PLACES: usize = 64;

/// Values by id.
#[derive(Debug)]
pub(crate) struct Entries<T> {
    places: [Option<(u64, T)>; PLACES],
    others: HashMap<u64, T>,
    len: usize,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Entries { places: std::array::from_fn(|_| None), others: HashMap::new(), len: 0 }
    }
}

impl<T> Entries<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// When there is one with this id.
    pub fn insert(&mut self, id: u64, value: T) {
        let is_new = self.get_mut(id).is_none();
        assert!(is_new, "ids are not used twice within 2^64 requests");
        let place = &mut self.places[id as usize % PLACES];
        if place.is_none() {
            *place = Some((id, value));
        } else {
            self.others.insert(id, value);
        }
        self.len += 1;
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        match &mut self.places[id as usize % PLACES] {
            Some((own, value)) if *own == id => Some(value),
            _ if self.others.is_empty() => None,
            _ => self.others.get_mut(&id),
        }
    }

    pub fn remove(&mut self, id: u64) -> Option<T> {
        let removed = match self.places[id as usize % PLACES].take_if(|(own, _)| *own == id) {
            Some((_, value)) => Some(value),
            None if self.others.is_empty() => None,
            None => self.others.remove(&id),
        };
        self.len -= usize::from(removed.is_some());
        removed
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten().map(|(_, value)| value).chain(self.others.values())
    }

    /// All values, in no order.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.places.into_iter().flatten().map(|(_, value)| value).chain(self.others.into_values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_are_a_map(steps in prop::collection::vec((any::<bool>(), 0u64..300), 1..400), start: u64) {
            let mut entries = Entries::default();
            let mut model = HashMap::new();
            for (number, (adds, id)) in steps.into_iter().enumerate() {
                let id = start.wrapping_add(id);
                if adds && !model.contains_key(&id) {
                    entries.insert(id, number);
                    model.insert(id, number);
                } else {
                    prop_assert_eq!(entries.get_mut(id).copied(), model.get(&id).copied());
                    prop_assert_eq!(entries.remove(id), model.remove(&id));
                }
                prop_assert_eq!(entries.len(), model.len());
            }
            let sorted = |values: Vec<usize>| {
                let mut values = values;
                values.sort_unstable();
                values
            };
            prop_assert_eq!(sorted(entries.values().copied().collect()), sorted(model.values().copied().collect()));
            prop_assert_eq!(sorted(entries.into_values().collect()), sorted(model.into_values().collect()));
        }
    }
}

//! Remembers verified tokens in two generations: when the young one is full it becomes the old one
//! and the old one is forgotten. A token in use is copied to the young generation when it is found in
//! the old one, so what is used often stays, without a list to keep in order.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Caller;
use crate::limits::TOKEN_CACHE_ENTRIES_MAX;

const GENERATION_ENTRIES_MAX: usize = TOKEN_CACHE_ENTRIES_MAX / 2;

#[derive(Default)]
struct Generations {
    young: HashMap<Arc<str>, Caller>,
    old: HashMap<Arc<str>, Caller>,
}

#[derive(Default)]
pub(super) struct TokenCache {
    generations: Mutex<Generations>,
}

impl TokenCache {
    pub fn get(&self, token: &str) -> Option<Caller> {
        let mut generations = self.generations.lock();
        if let Some(caller) = generations.young.get(token) {
            return Some(caller.clone());
        }
        let caller = generations.old.get(token)?.clone();
        generations.insert(&caller);
        Some(caller)
    }

    pub fn insert(&self, caller: &Caller) {
        self.generations.lock().insert(caller);
    }

    pub fn len(&self) -> usize {
        let generations = self.generations.lock();
        generations.young.len() + generations.old.len()
    }
}

impl Generations {
    fn insert(&mut self, caller: &Caller) {
        if self.young.len() >= GENERATION_ENTRIES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(caller.token.clone(), caller.clone());
        assert!(self.young.len() <= GENERATION_ENTRIES_MAX);
    }
}

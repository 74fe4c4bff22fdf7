//! Searching a page: by heads first, which lie together, then by the keys of those that are alike.

use std::cmp::Ordering;

use super::{View, head};

impl View<'_> {
    /// In a leaf: `Ok` with the index of `key`, or `Err` with the index where it would be inserted.
    #[inline]
    pub(crate) fn find(self, key: &[u8]) -> Result<usize, usize> {
        let count = self.count();
        if count == 0 {
            return Err(0);
        }
        let prefix_length = self.prefix_length();
        let head = head(key, prefix_length);
        let low = self.lower_bound(0, count, head);
        let probe = self.key_at(low.min(count - 1));
        if prefix_length > 0 {
            match compare_prefix(key, probe, prefix_length) {
                Ordering::Less => return Err(0),
                Ordering::Greater => return Err(count),
                Ordering::Equal => {}
            }
        }
        if low == count || self.head(low) != head {
            return Err(low);
        }
        match probe.cmp(key) {
            Ordering::Equal => Ok(low),
            Ordering::Greater => Err(low),
            Ordering::Less if low + 1 == count || self.head(low + 1) != head => Err(low + 1),
            Ordering::Less => self.search_equal_heads(low + 1, count, head, key),
        }
    }

    /// In a branch: the index of the child that has `key`.
    #[inline]
    pub(crate) fn child_for(self, key: &[u8]) -> usize {
        let count = self.count();
        if count <= 1 {
            return 0;
        }
        let prefix_length = self.prefix_length();
        let head = head(key, prefix_length);
        let low = self.lower_bound(1, count, head);
        if prefix_length > 0 {
            // Any key will do; this one lies beside the child that is likely the result.
            match compare_prefix(key, self.key_at((low - 1).max(1)), prefix_length) {
                Ordering::Less => return 0,
                Ordering::Greater => return count - 1,
                Ordering::Equal => {}
            }
        }
        if low == count || self.head(low) != head {
            return low - 1;
        }
        match self.search_equal_heads(low, count, head, key) {
            Ok(index) => index,
            Err(index) => index - 1,
        }
    }

    /// The first index from `first` on, which is below `count`, whose head is not below `head`.
    #[inline(always)]
    fn lower_bound(self, first: usize, count: usize, head: u32) -> usize {
        self.prefetch_slots(count);
        // Halving without a branch on the outcome: which half it is cannot be predicted.
        let mut base = first;
        let mut length = count - first;
        while length > 1 {
            let half = length / 2;
            base = std::hint::select_unpredictable(self.head(base + half - 1) < head, base + half, base);
            length -= half;
        }
        base + usize::from(self.head(base) < head)
    }

    #[inline(never)]
    fn search_equal_heads(self, low: usize, count: usize, head: u32, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (low, count);
        while low < high {
            let middle = low.midpoint(high);
            let order = self.head(middle).cmp(&head).then_with(|| self.key_at(middle).cmp(key));
            match order {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }
}

/// How `key` compares with the prefix of a page, of which `probe` is a key. Heads only say something about keys that have
/// the prefix.
#[inline(always)]
fn compare_prefix(key: &[u8], probe: &[u8], prefix_length: usize) -> Ordering {
    key[..key.len().min(prefix_length)].cmp(&probe[..prefix_length])
}

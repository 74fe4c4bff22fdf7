use super::*;

fn arenas() -> [Arena; 2] {
    [Arena::heap(4096), Arena::reserve(4096 * PAGE_BYTES as u64).expect("address space")]
}

fn take(arena: &Arena, count: usize) -> Vec<PageId> {
    let mut ids = Vec::new();
    arena.allocate(count, false, &mut ids).expect("room");
    ids
}

#[test]
fn pages_are_handed_out_once_and_come_back() {
    for arena in arenas() {
        let mut ids = take(&arena, 100);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 100);
        assert!(!ids.contains(&PageId::NONE));
        assert_eq!(arena.stats().allocated, 100);
        arena.free(ids.iter().map(|id| (*id, 1)));
        assert_eq!((arena.stats().allocated, arena.stats().free), (0, 100));
        let again = take(&arena, 100);
        assert!(again.iter().all(|id| ids.contains(id)), "freed pages are used before new ones");
    }
}

#[test]
fn freed_runs_join() {
    for arena in arenas() {
        let runs: Vec<PageId> = (0..4).map(|_| arena.allocate_run(5, false).expect("room")).collect();
        for index in [0, 2, 1, 3] {
            arena.free([(runs[index], 5)]);
        }
        assert_eq!(arena.allocate_run(20, false).expect("the four together"), runs[0]);
        arena.free([(runs[0], 20)]);
        assert_eq!(take(&arena, 20).len(), 20);
        assert_eq!((arena.stats().allocated, arena.stats().free), (20, 0));
    }
}

#[test]
fn a_full_arena_refuses_but_for_undoing() {
    for arena in arenas() {
        let mut ids = Vec::new();
        while arena.allocate(1, false, &mut ids).is_ok() {}
        assert_eq!(ids.len(), 4095 - 4096 / EMERGENCY_SHARE as usize);
        arena.allocate(1, true, &mut ids).expect("the emergency share");
        assert_eq!(arena.allocate_run(2, false), Err(ArenaFull));
        arena.free(ids.drain(..).map(|id| (id, 1)));
        take(&arena, 10);
    }
}

#[test]
fn another_birth_than_promised_is_a_fault() {
    for arena in arenas() {
        let id = take(&arena, 1)[0];
        // SAFETY: the page was just handed out.
        Edit::format(unsafe { arena.edit(id) }, 0, Stamp::new(7));
        let reference = |birth: u64| ChildRef { id, birth: Stamp::new(birth) };
        assert!(arena.page(reference(7)).is_ok());
        assert_eq!(arena.page(reference(8)).err().map(|fault| fault.code()), Some("TN0250"));
        assert!(arena.page(ChildRef { id: PageId::new(u32::MAX), birth: Stamp::new(7) }).is_err());
        arena.free([(id, 1)]);
        assert!(!cfg!(debug_assertions) || arena.page(reference(7)).is_err(), "freed pages are poisoned");
    }
}

#[test]
fn runs_are_read_as_one_slice() {
    for arena in arenas() {
        for length in [1, 4072, 4073, 100_000] {
            let value: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let pages = crate::page::run_pages(length);
            let id = arena.allocate_run(pages, false).expect("room");
            let run = RunRef { id, length: length as u32, birth: Stamp::new(3) };
            // SAFETY: the run was just handed out.
            unsafe { arena.write_run(run, &value) };
            assert_eq!(arena.run(run).expect("written"), value);
            assert!(arena.run(RunRef { length: run.length + 1, ..run }).is_err());
            assert!(arena.run(RunRef { birth: Stamp::new(4), ..run }).is_err());
            arena.free([(id, pages)]);
        }
    }
}

/// A pager that has every page it evicted.
struct Kept(Mutex<std::collections::BTreeMap<PageId, Vec<u8>>>);

impl Pager for std::sync::Arc<Kept> {
    fn fault_in(&self, arena: &Arena, id: PageId, birth: Stamp) -> Result<(), Fault> {
        let bytes = self.0.lock().remove(&id).ok_or_else(|| Fault::corrupt_page(id, birth))?;
        // SAFETY: the page was evicted below, and the test has one thread.
        unsafe { arena.load(id, &bytes) };
        arena.set_state(id, PageState::imaged(9, false)).expect("memory");
        Ok(())
    }
}

#[test]
fn evicted_pages_come_back() {
    for arena in arenas() {
        let kept = std::sync::Arc::new(Kept(Mutex::default()));
        arena.set_pager(Box::new(std::sync::Arc::clone(&kept)));
        let id = take(&arena, 1)[0];
        let child = ChildRef { id, birth: Stamp::new(7) };
        // SAFETY: the page was just handed out.
        Edit::format(unsafe { arena.edit(id) }, 0, child.birth);
        assert_eq!(arena.state(id), PageState::default());
        arena.set_state(id, PageState::imaged(9, true)).expect("memory");
        assert!(arena.state(id).is_absent());
        kept.0.lock().insert(id, arena.bytes(id, 1).to_vec());
        // SAFETY: nobody reads the page.
        unsafe { arena.evict(id, 1) };
        assert_eq!(arena.page(child).expect("comes back").birth(), child.birth);
        assert_eq!((arena.state(id).is_absent(), arena.state(id).location()), (false, Some(9)));
        arena.free([(id, 1)]);
        assert_eq!(arena.state(id), PageState::default());
    }
}

#[test]
fn surplus_memory_is_given_back() {
    let arena = Arena::reserve(1 << 30).expect("address space");
    let ids = take(&arena, 10_000);
    for id in &ids {
        // SAFETY: the page was just handed out.
        unsafe { arena.edit(*id) }.fill(1);
    }
    arena.free(ids.iter().map(|id| (*id, 1)));
    arena.trim();
    let (warm, cold) = {
        let pool = arena.pool.lock();
        (pool.warm.clone(), pool.cold.clone())
    };
    assert_eq!((warm.len(), warm.len() + cold.len()), (WARM_PAGES_MIN, 10_000));
    assert!(arena.bytes(cold[0], 1).iter().all(|byte| *byte == 0));
    assert_eq!(take(&arena, 10_000).len(), 10_000);
    assert_eq!(arena.stats().free, 0);
}

/// An arena of which most lies in a file.
fn backed(memory_bytes: u64) -> Arena {
    Arena::reserve_within(64 << 20, memory_bytes, Box::new(tempfile::tempfile)).expect("address space")
}

#[test]
fn pages_behind_the_budget_lie_in_a_file() {
    for memory_bytes in [0, 16 * PAGE_BYTES as u64, 10 << 20] {
        let arena = backed(memory_bytes);
        let ids = take(&arena, 5000);
        for (number, id) in ids.iter().enumerate() {
            // SAFETY: the page was just handed out.
            let page = unsafe { arena.edit(*id) };
            Edit::format(page, 0, Stamp::new(number as u64 + 1));
            page[2000..].fill(number as u8);
        }
        let run = RunRef { id: arena.allocate_run(300, false).expect("room"), length: 1_000_000, birth: Stamp::new(9) };
        let value: Vec<u8> = (0..1_000_000_u32).map(|at| (at / 7) as u8).collect();
        // SAFETY: the run was just handed out.
        unsafe { arena.write_run(run, &value) };
        let held = arena.bytes(ids[4000], 1);
        for _ in 0..2 {
            arena.memory.give_back_backed(arena.pool.lock().open_bytes);
            for (number, id) in ids.iter().enumerate() {
                let view = arena.page(ChildRef { id: *id, birth: Stamp::new(number as u64 + 1) }).expect("there");
                assert!(view.bytes()[2000..].iter().all(|byte| *byte == number as u8));
            }
            assert!(arena.run(run).expect("there") == value);
        }
        assert!(held[2000..].iter().all(|byte| *byte == 4000_usize as u8), "a slice stays what it was");
        let length = arena.backing_file().expect("a file").metadata().expect("facts").len();
        assert!(length >= 5300 * PAGE_BYTES as u64, "{length}");
        // Handed out again as pages of memory are.
        arena.free(ids.iter().map(|id| (*id, 1)).chain([(run.id, 300)]));
        arena.trim();
        assert_eq!((arena.stats().allocated, take(&arena, 5000).len()), (0, 5000));
    }
}

#[test]
fn without_a_file_everything_stays_in_memory() {
    let make = Box::new(|| Err(io::ErrorKind::Unsupported.into()));
    let arena = Arena::reserve_within(64 << 20, 0, make).expect("address space");
    for id in take(&arena, 3000) {
        // SAFETY: the page was just handed out.
        unsafe { arena.edit(id) }.fill(3);
    }
    assert!(arena.backing_file().is_none());
}

/// What a freed run left is not taken for a page of an image.
#[test]
fn places_of_images_were_never_used() {
    for arena in arenas() {
        let run = RunRef { id: arena.allocate_run(5, false).expect("room"), length: 20_000, birth: Stamp::new(7) };
        // SAFETY: the run was just handed out.
        unsafe { arena.write_run(run, &[7; 20_000]) };
        arena.free([(run.id, 5)]);
        let place = arena.allocate_images(5).expect("room");
        assert!(arena.bytes(place, 5).iter().all(|byte| *byte == 0));
    }
}

//! Walking whole trees: what a version reaches.

use crate::arena::Arena;
use crate::error::Fault;
use crate::ids::KeyspaceId;
use crate::page::{ChildRef, PageId, Stamp, Value};

use super::TreeRoot;

/// Appends every page and run of the trees that was born after a stamp. Returns how many pages could not be read, whose
/// own pages are missing from the result.
pub(crate) fn collect(
    arena: &Arena,
    trees: &[(KeyspaceId, TreeRoot)],
    after: Stamp,
    into: &mut Vec<(PageId, u32)>,
) -> u64 {
    let mut unreadable = 0;
    let mut visit = |id, pages, _| into.push((id, pages));
    for (_, tree) in trees {
        if !tree.is_empty() && tree.page.birth > after {
            unreadable += visit_page(arena, tree.page, after, &mut visit);
        }
    }
    unreadable
}

/// Calls `visit` with id, number of pages and birth for `child`, which was born after the stamp, and all below it that
/// was. Returns how many pages could not be read.
pub(crate) fn visit_page(
    arena: &Arena,
    child: ChildRef,
    after: Stamp,
    visit: &mut dyn FnMut(PageId, u32, Stamp),
) -> u64 {
    visit(child.id, 1, child.birth);
    let Ok(view) = arena.page(child) else { return 1 };
    let mut unreadable = 0;
    for index in 0..view.count() {
        if view.is_branch() {
            let below = view.child(index);
            if below.birth > after {
                unreadable += visit_page(arena, below, after, visit);
            }
        } else if let Value::Run(run) = view.value(index)
            && run.birth > after
        {
            visit(run.id, run.pages(), run.birth);
        }
    }
    unreadable
}

/// Checks the invariants of the module above, and returns what does not hold.
pub(crate) fn check(arena: &Arena, tree: TreeRoot) -> Result<(), String> {
    if tree.is_empty() {
        return if tree.length == 0 { Ok(()) } else { Err("an empty tree has a length".into()) };
    }
    let root = arena.page(tree.page).map_err(|fault| fault.to_string())?;
    if root.is_branch() && root.count() < 2 {
        return Err("a branch at the root has one child".into());
    }
    let length = check_page(arena, tree.page, root.level(), None, None)?;
    if length != tree.length {
        return Err(format!("a tree of {length} records has length {}", tree.length));
    }
    Ok(())
}

fn check_page(
    arena: &Arena,
    child: ChildRef,
    level: u8,
    low: Option<&[u8]>,
    high: Option<&[u8]>,
) -> Result<u64, String> {
    let at = |what: &str| format!("page {}: {what}", child.id.get());
    let view = arena.page(child).map_err(|fault: Fault| fault.to_string())?;
    crate::page::check(view.bytes()).map_err(&at)?;
    if view.level() != level {
        return Err(at("the levels of a tree do not fall by one"));
    }
    let first = usize::from(view.is_branch());
    let inside = |key: &[u8]| low.is_none_or(|low| low <= key) && high.is_none_or(|high| key < high);
    if !(first..view.count()).all(|index| inside(view.key(index))) {
        return Err(at("a key is outside of the range of its page"));
    }
    if view.is_leaf() {
        for index in 0..view.count() {
            if let Value::Run(run) = view.value(index) {
                arena.run(run).map_err(|fault| fault.to_string())?;
            }
        }
        return Ok(view.count() as u64);
    }
    let mut length = 0;
    for index in 0..view.count() {
        let low = if index == 0 { low } else { Some(view.key(index)) };
        let high = if index + 1 == view.count() { high } else { Some(view.key(index + 1)) };
        let below = view.child(index);
        if below.birth > child.birth {
            return Err(at("a page is older than its child"));
        }
        length += check_page(arena, below, level - 1, low, high)?;
    }
    Ok(length)
}

//! Changing a tree.

use std::sync::Arc;

use super::{Displaced, TreeRoot, resolve};
use crate::arena::Arena;
use crate::draft::{EditError, Workspace};
use crate::error::Fault;
use crate::page::{
    BODY_BYTES, Body, Cell, ChildRef, Edit, PageBytes, RUN_REF_BYTES, SLOT_BYTES, Value, View, common_length,
};

/// Bytes in use below which a page is joined with a neighbour.
const SMALL_BYTES: usize = BODY_BYTES / 4;

/// Bytes that two joined pages may use: with some to spare, so that the next insertion does not split them again.
const JOINED_BYTES_MAX: usize = BODY_BYTES - BODY_BYTES / 8;

/// Bytes that a record takes in a leaf besides its key and value, at most.
const CELL_BYTES_MORE_MAX: usize = SLOT_BYTES + 2 + RUN_REF_BYTES;

/// Sets the value of `key`. The bytes of a small value that was there are appended to `old`.
pub(crate) fn put(
    work: &mut Workspace,
    tree: &mut TreeRoot,
    key: &[u8],
    value: &[u8],
    old: &mut Vec<u8>,
) -> Result<Displaced, EditError> {
    if tree.is_empty() {
        work.reserve(1)?;
        let body = work.body(key, value)?;
        let leaf = work.make(0);
        assert!(work.edit(leaf).insert(0, Cell { key, body }), "a record fits into an empty page");
        *tree = TreeRoot { page: leaf, length: 1 };
        return Ok(Displaced::Nothing);
    }
    let mut path = std::mem::take(&mut work.path);
    let result = put_at(work, tree, &mut path, key, value, old);
    work.path = path;
    result
}

/// The way to a record: pages from the root to the leaf, each with the slot taken.
type Path = Vec<(ChildRef, usize)>;

fn put_at(
    work: &mut Workspace,
    tree: &mut TreeRoot,
    path: &mut Path,
    key: &[u8],
    value: &[u8],
    old: &mut Vec<u8>,
) -> Result<Displaced, EditError> {
    let found = find(work, tree, key, path)?;
    let mut replaced = None;
    let mut displaced = Displaced::Nothing;
    if let Some(present) = found {
        if resolve(work.arena(), present)? == value {
            return Ok(Displaced::Same);
        }
        replaced = Some(present_run(present));
        displaced = take_value(work.arena(), present, old)?;
    }
    let (leaf, _) = path[path.len() - 1];
    let copies = path.iter().filter(|(page, _)| !work.owns(*page)).count();
    // In the worst case every page on the way is split, and a new root comes on top.
    let room = BODY_BYTES - work.arena().page(leaf)?.used_bytes();
    let splits = if CELL_BYTES_MORE_MAX + key.len() + value.len() <= room { 0 } else { path.len() + 1 };
    work.reserve(copies + splits)?;
    let body = work.body(key, value)?;
    own(work, tree, path);
    let (leaf, index) = *path.last().expect("a tree has a leaf");
    let cell = Cell { key, body };
    let mut fits = false;
    if let Some(run) = replaced {
        if let Some(run) = run {
            work.retire(run.id, run.pages(), run.birth);
        }
        let mut edit = work.edit(leaf);
        fits = edit.overwrite(index, body);
        if !fits {
            edit.remove(index);
        }
    } else {
        tree.length += 1;
    }
    if !fits && !work.edit(leaf).insert(index, cell) {
        split(work, tree, path, index, cell);
    }
    Ok(displaced)
}

/// Fills `path` with the way to `key`, and returns its value.
fn find<'a>(work: &'a Workspace, tree: &TreeRoot, key: &[u8], path: &mut Path) -> Result<Option<Value<'a>>, Fault> {
    path.clear();
    let arena = work.arena();
    let mut child = tree.page;
    loop {
        let view = arena.page(child)?;
        if view.is_leaf() {
            let found = view.find(key);
            path.push((child, found.unwrap_or_else(|index| index)));
            return Ok(found.ok().map(|index| view.value(index)));
        }
        let index = view.child_for(key);
        path.push((child, index));
        child = view.child(index);
        if view.level() == 1 && !work.owns(child) {
            // It is about to be copied.
            arena.prefetch_whole(child);
        }
    }
}

fn present_run(value: Value<'_>) -> Option<crate::page::RunRef> {
    match value {
        Value::Inline(_) => None,
        Value::Run(run) => Some(run),
    }
}

fn take_value(arena: &Arena, value: Value<'_>, old: &mut Vec<u8>) -> Result<Displaced, Fault> {
    match value {
        Value::Inline(bytes) => {
            old.extend_from_slice(bytes);
            Ok(Displaced::Inline)
        }
        Value::Run(run) => Ok(Displaced::Large(Arc::from(arena.run(run)?))),
    }
}

/// Makes the pages on the way the draft's own.
fn own(work: &mut Workspace, tree: &mut TreeRoot, path: &mut Path) {
    for depth in 0..path.len() {
        let (child, _) = path[depth];
        if work.owns(child) {
            continue;
        }
        let copy = work.copy(child);
        path[depth].0 = copy;
        replace_child(work, tree, path, depth, copy);
    }
}

/// Points whatever refers to the page at `depth` to `child`.
fn replace_child(work: &mut Workspace, tree: &mut TreeRoot, path: &Path, depth: usize, child: ChildRef) {
    match depth.checked_sub(1) {
        None => tree.page = child,
        Some(above) => {
            let (parent, index) = path[above];
            work.edit(parent).set_child(index, child);
        }
    }
}

/// Inserts a cell into the leaf at the end of the way, which has no room for it.
fn split(work: &mut Workspace, tree: &mut TreeRoot, path: &Path, index: usize, cell: Cell<'_>) {
    let (leaf, _) = path[path.len() - 1];
    let (mut separator, mut right) = split_page(work, leaf, index, cell);
    for (page, index) in path[..path.len() - 1].iter().rev() {
        let cell = Cell { key: &separator, body: Body::Child(right) };
        if work.edit(*page).insert(index + 1, cell) {
            return;
        }
        (separator, right) = split_page(work, *page, index + 1, cell);
    }
    let level = work.view(tree.page).level() + 1;
    let root = work.make(level);
    let cells = [Cell { key: &[], body: Body::Child(tree.page) }, Cell { key: &separator, body: Body::Child(right) }];
    work.edit(root).fill(cells.into_iter());
    tree.page = root;
}

/// Cuts a page into two with the cell at `index`; returns the new, right one and the key that separates them.
fn split_page(work: &mut Workspace, page: ChildRef, index: usize, cell: Cell<'_>) -> (Vec<u8>, ChildRef) {
    let copy: PageBytes = *work.view(page).bytes();
    let view = View::new(&copy);
    let level = view.level();
    let mut cells: Vec<Cell<'_>> = Vec::with_capacity(view.count() + 1);
    cells.extend(view.cells());
    cells.insert(index, cell);
    let at = cut(view, &cells, index);
    let separator = if level == 0 {
        shortest_separator(cells[at - 1].key, cells[at].key).to_vec()
    } else {
        std::mem::take(&mut cells[at].key).to_vec()
    };
    let right = work.make(level);
    work.edit(right).fill(cells[at..].iter().copied());
    let mut left = work.edit(page);
    left.clear();
    left.fill(cells[..at].iter().copied());
    (separator, right)
}

/// Where to cut a page, given its cells with the one that comes in at `index`.
///
/// Keys that only grow fill their pages: nothing more will come into the left one. They may grow in between others, as
/// numbers do that come after a table's or a tenant's; but a left page that would be less than half full is none of them.
fn cut(view: View<'_>, cells: &[Cell<'_>], index: usize) -> usize {
    let middle = middle(cells);
    let grows = index + 1 == cells.len() || (index >= middle && view.grew_up_to(index));
    if grows { index } else { middle }
}

/// Where to cut so that both sides are as equal as they can be; at least one cell on each.
fn middle(cells: &[Cell<'_>]) -> usize {
    let total: usize = cells.iter().map(|cell| cell.bytes() + SLOT_BYTES).sum();
    let mut left = 0;
    for (index, cell) in cells.iter().enumerate() {
        let bytes = cell.bytes() + SLOT_BYTES;
        // Taking the cell to the left is better as long as more than half of it is left of the middle.
        if 2 * left + bytes > total && index > 0 {
            return index;
        }
        left += bytes;
    }
    cells.len() - 1
}

/// The shortest key above `left` and not above `right`.
fn shortest_separator<'k>(left: &[u8], right: &'k [u8]) -> &'k [u8] {
    let common = common_length(left, right);
    assert!(common < right.len(), "keys are sorted");
    &right[..=common]
}

/// Removes `key`. The bytes of a small value that was there are appended to `old`.
pub(crate) fn delete(
    work: &mut Workspace,
    tree: &mut TreeRoot,
    key: &[u8],
    old: &mut Vec<u8>,
) -> Result<Displaced, EditError> {
    if tree.is_empty() {
        return Ok(Displaced::Nothing);
    }
    let mut path = std::mem::take(&mut work.path);
    let result = delete_at(work, tree, &mut path, key, old);
    work.path = path;
    result
}

fn delete_at(
    work: &mut Workspace,
    tree: &mut TreeRoot,
    path: &mut Path,
    key: &[u8],
    old: &mut Vec<u8>,
) -> Result<Displaced, EditError> {
    let Some(present) = find(work, tree, key, path)? else { return Ok(Displaced::Nothing) };
    let run = present_run(present);
    let displaced = take_value(work.arena(), present, old)?;
    let copies = path.iter().filter(|(page, _)| !work.owns(*page)).count();
    work.reserve(copies)?;
    own(work, tree, path);
    if let Some(run) = run {
        work.retire(run.id, run.pages(), run.birth);
    }
    let (leaf, index) = path[path.len() - 1];
    work.edit(leaf).remove(index);
    tree.length -= 1;
    shrink(work, tree, path);
    assert!((tree.length == 0) == tree.is_empty(), "the length of a tree agrees with its pages");
    Ok(displaced)
}

/// Removes or joins pages that a deletion left empty or small, from the leaf up.
fn shrink(work: &mut Workspace, tree: &mut TreeRoot, path: &mut Path) {
    while let Some((page, _)) = path.pop() {
        let view = work.view(page);
        let (count, used) = (view.count(), view.used_bytes());
        let Some((parent, index)) = path.last().copied() else { break };
        if count == 0 {
            work.retire(page.id, 1, page.birth);
            work.edit(parent).remove(index);
        } else if used >= SMALL_BYTES || !join(work, parent, index, page) {
            break;
        }
    }
    loop {
        let view = work.arena().page(tree.page);
        let Ok(view) = view else { return };
        let root = tree.page;
        match (view.count(), view.is_leaf()) {
            (0, _) => *tree = TreeRoot::default(),
            (1, false) => tree.page = view.child(0),
            _ => return,
        }
        work.retire(root.id, 1, root.birth);
        if tree.is_empty() {
            return;
        }
    }
}

/// Joins `page`, the child at `index`, with a neighbour if both fit into one. A neighbour that cannot be read is left
/// alone: the tree is as right without.
fn join(work: &mut Workspace, parent: ChildRef, index: usize, page: ChildRef) -> bool {
    let siblings = work.view(parent).count();
    for left_index in [index.checked_sub(1), Some(index)].into_iter().flatten() {
        if left_index + 1 >= siblings {
            continue;
        }
        let parent_view = work.view(parent);
        let other_index = if left_index == index { index + 1 } else { left_index };
        let other = parent_view.child(other_index);
        let Ok(other_view) = work.arena().page(other) else { continue };
        let separator = parent_view.key(left_index + 1);
        let own_view = work.view(page);
        let middle_bytes = if own_view.is_leaf() { 0 } else { separator.len() };
        if own_view.used_bytes() + other_view.used_bytes() + middle_bytes > JOINED_BYTES_MAX {
            continue;
        }
        let (left, right) = if left_index == index { (own_view, other_view) } else { (other_view, own_view) };
        let mut joined: PageBytes = [0; crate::page::PAGE_BYTES];
        let mut edit = Edit::format(&mut joined, own_view.level(), page.birth);
        let mut cells: Vec<Cell<'_>> = left.cells().chain(right.cells()).collect();
        if !own_view.is_leaf() {
            cells[left.count()].key = separator;
        }
        edit.fill(cells.iter().copied());
        work.edit(page).copy_from(&joined);
        let mut edit = work.edit(parent);
        edit.set_child(left_index, page);
        edit.remove(left_index + 1);
        work.retire(other.id, 1, other.birth);
        return true;
    }
    false
}

//! The liveness oracle: whether the forest keeps exactly the pages that it must.

use std::collections::{BTreeMap, BTreeSet};

use super::{Dead, Forest, NO_NODE, Node, Pages};
use crate::page::{PageId, Stamp};
use crate::tree::walk;

/// What a check of all pages counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCheck {
    /// Versions that are kept.
    pub versions: u64,
    /// Pages that these reach.
    pub reachable_pages: u64,
    /// Pages that open writers own or have in stock.
    pub drafted_pages: u64,
    /// Pages that are free.
    pub free_pages: u64,
}

/// Pages and runs of a version by id.
type Reach = BTreeMap<PageId, (u32, Stamp)>;

impl Pages {
    /// Walks every version and compares what they reach with what is allocated. Nothing may change meanwhile.
    pub(crate) fn check(&self) -> Result<PageCheck, String> {
        let forest = self.forest.lock();
        let mut all = Reach::new();
        let mut versions = 0;
        for node in forest.live() {
            versions += 1;
            let reach = self.reach(node)?;
            self.check_node(&forest, node, &reach)?;
            for (id, page) in reach {
                if all.insert(id, page).is_some_and(|other| other != page) {
                    return Err(format!("page {} is two things", id.get()));
                }
            }
        }
        self.check_places(&all, versions)
    }

    fn reach(&self, node: &Node) -> Result<Reach, String> {
        let mut reach = Reach::new();
        for (keyspace, tree) in node.trees.iter().flat_map(|trees| trees.iter()) {
            walk::check(&self.arena, *tree).map_err(|detail| format!("{keyspace}: {detail}"))?;
            if tree.is_empty() {
                continue;
            }
            let mut twice = None;
            let unreadable = walk::visit_page(&self.arena, tree.page, Stamp::default(), &mut |id, pages, birth| {
                if reach.insert(id, (pages, birth)).is_some() {
                    twice = Some(id);
                }
            });
            if let Some(id) = twice {
                return Err(format!("page {} is reached twice in one version", id.get()));
            }
            if unreadable > 0 {
                return Err(format!("{unreadable} pages of {keyspace} cannot be read"));
            }
        }
        Ok(reach)
    }

    fn check_node(&self, forest: &Forest, node: &Node, reach: &Reach) -> Result<(), String> {
        if forest.imported.contains(&node.previous) {
            // Which pages of images the others reach is not written down; none of them is ever freed.
            let after = forest.stamp(node.previous);
            let fits =
                |id: &PageId, birth: Stamp| birth <= node.stamp && (birth > after || self.arena.is_of_image(*id));
            let wrong = reach.iter().find(|(id, (_, birth))| !fits(id, *birth));
            return wrong.map_or(Ok(()), |(id, _)| Err(format!("page {} is neither an image's nor new", id.get())));
        }
        let before = match node.previous {
            NO_NODE => Reach::new(),
            previous => self.reach(&forest.nodes[previous as usize])?,
        };
        let after = forest.stamp(node.previous);
        for (id, (_, birth)) in reach {
            if *birth > node.stamp || (*birth <= after) != before.contains_key(id) {
                return Err(format!(
                    "page {} is born at {} between {after:?} and {:?}",
                    id.get(),
                    birth.get(),
                    node.stamp
                ));
            }
        }
        let dead = |(id, (pages, birth)): (&PageId, &(u32, Stamp))| Dead { id: *id, pages: *pages, birth: *birth };
        let mut expected: Vec<Dead> = before.iter().filter(|(id, _)| !reach.contains_key(id)).map(dead).collect();
        let mut found = node.dead.clone();
        found.sort_by_key(|dead| dead.id);
        expected.sort_by_key(|dead| dead.id);
        if found != expected {
            return Err(format!("a dead list has {found:?} and should have {expected:?}"));
        }
        Ok(())
    }

    fn check_places(&self, all: &Reach, versions: u64) -> Result<PageCheck, String> {
        let (free, _) = self.arena.free_ids();
        let free_set: BTreeSet<PageId> = free.iter().copied().collect();
        if free_set.len() != free.len() {
            return Err("a page is free twice".into());
        }
        let mut reachable_pages = 0;
        for (id, (pages, _)) in all {
            // Places of images count as in stock.
            reachable_pages += if self.arena.is_of_image(*id) { 0 } else { u64::from(*pages) };
            if (0..*pages).any(|number| free_set.contains(&PageId::new(id.get() + number))) {
                return Err(format!("page {} is reached and free", id.get()));
            }
        }
        let stats = self.arena.stats();
        if reachable_pages + stats.drafted != stats.allocated {
            return Err(format!("{reachable_pages} pages are reached, but {stats:?}"));
        }
        Ok(PageCheck { versions, reachable_pages, drafted_pages: stats.drafted, free_pages: stats.free })
    }
}

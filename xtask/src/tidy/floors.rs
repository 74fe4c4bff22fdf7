//! Which crate may use which: the floors, and the absences that make them worth having.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::process::{cargo, output};

/// The floor of each crate; an edge may only go down. Crates of one floor know nothing of one another.
const FLOORS: &[(&str, u8)] = &[
    ("tine-types", 0),
    ("tine-base", 0),
    ("tine-store", 1),
    ("tine-lanes", 1),
    ("tine-sandbox", 1),
    ("tine-ipc", 1),
    ("tine-merkle", 2),
    ("tine-msgpack", 0),
    ("tine-tables", 2),
    ("tine-idl", 2),
    ("tine-local", 3),
    ("tine-ipc-c", 2),
    ("tine-ipc-node", 2),
    ("tine-module", 3),
    ("tine-query", 3),
    ("tine-host", 4),
    ("tine-server", 5),
    ("tine-worldstate", 5),
    ("tine-client", 5),
    ("tine", 6),
];

/// Crates beside the floors: they may use any, and none may use them.
const BESIDE: [&str; 4] = ["tine-bench", "tine-idl-tests", "tine-tests", "xtask"];

/// Crate, and a package that must not be among what it needs, however indirectly.
const ABSENCES: [(&str, &str); 14] = [
    ("tine-types", "tokio"),
    ("tine-lanes", "tokio"),
    ("tine-sandbox", "tokio"),
    ("tine-base", "tokio"),
    ("tine-store", "tokio"),
    ("tine-store", "futures-core"),
    ("tine-tables", "tokio"),
    ("tine-query", "tokio"),
    ("tine-host", "axum"),
    ("tine-host", "hyper"),
    ("tine-types", "rquickjs"),
    ("tine-tables", "rquickjs"),
    ("tine-query", "rquickjs"),
    ("tine-client", "rquickjs"),
];

/// What writes and reads images in `tine-store`, asynchronous inside and blocking outside: what it brings does not count
/// for the absences. That one file alone uses it is checked with the sources.
const OBJECTS: (&str, [&str; 4]) = ("tine-store", ["futures-util", "object_store", "reqwest", "tokio"]);

/// The package that is a JavaScript engine, and the only crate that may name it.
const ENGINE: (&str, &str) = ("rquickjs", "tine-module");

/// Normal dependencies of every package, by name.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Checks edges and absences.
pub fn check() -> anyhow::Result<Vec<String>> {
    let metadata: Value =
        serde_json::from_str(&output(&mut cargo(&["metadata", "--format-version", "1", "--locked"]))?)?;
    Ok(check_graph(&graph(&metadata)))
}

fn check_graph(graph: &Graph) -> Vec<String> {
    let floors: BTreeMap<&str, u8> = FLOORS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, needs) in graph.iter().filter(|(name, _)| name.starts_with("tine")) {
        let Some(floor) = floors.get(name.as_str()) else {
            if !BESIDE.contains(&name.as_str()) {
                wrong.push(format!("{name} has no floor"));
            }
            continue;
        };
        for need in needs {
            match floors.get(need.as_str()) {
                Some(below) if below >= floor => {
                    wrong.push(format!("{name} (floor {floor}) uses {need} (floor {below})"))
                }
                None if BESIDE.contains(&need.as_str()) => wrong.push(format!("{name} uses {need}")),
                _ => {}
            }
        }
        if name != ENGINE.1 && needs.contains(ENGINE.0) {
            wrong.push(format!("{name} uses {}; only {} may", ENGINE.0, ENGINE.1));
        }
    }
    let mut counted = graph.clone();
    if let Some(needs) = counted.get_mut(OBJECTS.0) {
        needs.retain(|need| !OBJECTS.1.contains(&need.as_str()));
    }
    for (name, absent) in ABSENCES {
        if let Some(path) = path_to(&counted, name, absent) {
            wrong.push(format!("{name} must not need {absent}, but does: {}", path.join(" > ")));
        }
    }
    wrong
}

/// A shortest chain of dependencies, if there is one.
fn path_to(graph: &Graph, from: &str, to: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::from([from.to_owned()]);
    let mut front = vec![vec![from.to_owned()]];
    while !front.is_empty() {
        let mut next = Vec::new();
        for path in front {
            for need in graph.get(path.last()?).into_iter().flatten() {
                if !seen.insert(need.clone()) {
                    continue;
                }
                let mut longer = path.clone();
                longer.push(need.clone());
                if need == to {
                    return Some(longer);
                }
                next.push(longer);
            }
        }
        front = next;
    }
    None
}

/// What cargo resolved, without dependencies of tests and build scripts.
fn graph(metadata: &Value) -> Graph {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let name_of: BTreeMap<&str, &str> =
        packages.filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?))).collect();
    let mut graph = Graph::new();
    for node in metadata["resolve"]["nodes"].as_array().into_iter().flatten() {
        let Some(name) = node["id"].as_str().and_then(|id| name_of.get(id)) else { continue };
        let needs = graph.entry((*name).to_owned()).or_default();
        for dependency in node["deps"].as_array().into_iter().flatten() {
            let kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
            let normal = kinds.into_iter().any(|kind| kind["kind"].is_null());
            let target = dependency["pkg"].as_str().and_then(|id| name_of.get(id));
            if let Some(target) = target.filter(|_| normal) {
                needs.insert((*target).to_owned());
            }
        }
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph_of(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    }

    #[test]
    fn edges_may_only_go_down() {
        assert!(check_graph(&graph_of(&[("tine-store", "tine-base"), ("tine-bench", "tine")])).is_empty());
        for (from, to) in [("tine-base", "tine-store"), ("tine-store", "tine-lanes"), ("tine-host", "tine-tests")] {
            assert_eq!(check_graph(&graph_of(&[(from, to)])).len(), 1, "{from} > {to}");
        }
        assert_eq!(check_graph(&graph_of(&[("tine-new", "anyhow")])), ["tine-new has no floor"]);
    }

    #[test]
    fn absences_are_checked_through_others() {
        let through = graph_of(&[("tine-store", "tine-base"), ("tine-base", "innocent"), ("innocent", "tokio")]);
        let wrong = check_graph(&through);
        assert!(wrong.iter().any(|message| message.contains("tine-store > tine-base > innocent > tokio")), "{wrong:?}");
        assert_eq!(check_graph(&graph_of(&[("tine-server", "rquickjs")])).len(), 1);
        let objects = [("tine-store", "object_store"), ("object_store", "tokio"), ("tine-tables", "tine-store")];
        assert!(check_graph(&graph_of(&objects)).is_empty());
    }
}

//! A picture of a database's forks: who was made from whom, and where.

use serde_json::Value;
use tine_client::http::Fork;

use crate::terminal::{Palette, Style};

/// The forks as lines, roots first, children below their parents in the order of their origins.
pub fn draw(forks: &[Fork], palette: Palette, now_micros: i64) -> Vec<String> {
    let mut picture = Picture { forks, palette, now_micros, lines: Vec::new() };
    for (position, fork) in forks.iter().enumerate() {
        if parent_of(forks, fork).is_none() {
            picture.lines.push(format!("{} {}", picture.dot(fork), picture.label(fork, true)));
            picture.children(position, "");
        }
    }
    picture.lines
}

struct Picture<'a> {
    forks: &'a [Fork],
    palette: Palette,
    now_micros: i64,
    lines: Vec<String>,
}

impl Picture<'_> {
    /// Adds the children of a fork; `indent` leads each of their lines. A fork is newer than its parent, so this ends.
    fn children(&mut self, parent: usize, indent: &str) {
        let mut children: Vec<usize> =
            (0..self.forks.len()).filter(|child| parent_of(self.forks, &self.forks[*child]) == Some(parent)).collect();
        children.sort_by_key(|child| (origin_lsn(&self.forks[*child]), self.forks[*child].id));
        for (number, child) in children.iter().enumerate() {
            let last = number + 1 == children.len();
            let (branch, below) = if last { ("└─", "  ") } else { ("├─", "│ ") };
            let fork = &self.forks[*child];
            let branch = self.palette.paint(Style::Dim, &format!("{indent}{branch}"));
            self.lines.push(format!("{branch}{} {}", self.dot(fork), self.label(fork, false)));
            self.children(*child, &format!("{indent}{below}"));
        }
    }

    fn dot(&self, fork: &Fork) -> &'static str {
        if fork.durability == "ephemeral" { "○" } else { "●" }
    }

    /// Name, versions, and what is special about the fork.
    fn label(&self, fork: &Fork, is_root: bool) -> String {
        let name = self.palette.paint(Style::Cyan, &fork.name);
        let versions = match &fork.parent {
            Some(parent) => format!("{} → {}", parent.lsn, fork.head),
            None => format!("→ {}", fork.head),
        };
        let mut notes = Vec::new();
        if let (true, Some(parent)) = (is_root, &fork.parent) {
            notes.push(format!("from the deleted fork #{}", parent.fork));
        }
        if fork.durability == "ephemeral" {
            notes.push("ephemeral".to_owned());
        }
        if fork.schedules_run && fork.name != super::MAIN {
            notes.push("schedules run".to_owned());
        }
        if let Some(micros) = fork.expires_at {
            notes.push(format!("expires in {}", rough_duration(micros.saturating_sub(self.now_micros))));
        }
        let notes = if notes.is_empty() { String::new() } else { format!("  {}", notes.join(", ")) };
        format!("{name}  {versions}{}", self.palette.paint(Style::Dim, &notes))
    }
}

/// Position of the fork that a fork was made from, if it is still there.
fn parent_of(forks: &[Fork], fork: &Fork) -> Option<usize> {
    let Value::String(name) = &fork.parent.as_ref()?.fork else { return None };
    forks.iter().position(|other| other.name == *name && other.id < fork.id)
}

fn origin_lsn(fork: &Fork) -> u64 {
    fork.parent.as_ref().map_or(0, |parent| parent.lsn)
}

/// A time span in its largest unit.
fn rough_duration(micros: i64) -> String {
    match micros / 1_000_000 {
        ..1 => "a moment".to_owned(),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn children_hang_below_their_parents() {
        let fork = |name: &str, id: u64, parent: Value, head: u64, more: Value| {
            let mut value = json!({
                "name": name, "id": id, "identity": "", "parent": parent, "head": head, "durability": "durable",
            });
            value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            serde_json::from_value::<Fork>(value).expect("a fork")
        };
        let forks = [
            fork("main", 1, Value::Null, 1204, json!({ "schedules_run": true })),
            fork("late", 2, json!({ "fork": "main", "lsn": 1200 }), 1200, json!({ "expires_at": 600_000_000 })),
            fork("exp1", 4, json!({ "fork": "main", "lsn": 87 }), 120, json!({})),
            fork("exp2", 5, json!({ "fork": "exp1", "lsn": 100 }), 101, json!({ "durability": "ephemeral" })),
            fork("exp3", 6, json!({ "fork": "exp2", "lsn": 101 }), 101, json!({ "schedules_run": true })),
            fork("orphan", 7, json!({ "fork": 3, "lsn": 9 }), 12, json!({})),
        ];
        let palette = Palette::plain();
        assert_eq!(
            draw(&forks, palette, 0),
            [
                "● main  → 1204",
                "├─● exp1  87 → 120",
                "│ └─○ exp2  100 → 101  ephemeral",
                "│   └─● exp3  101 → 101  schedules run",
                "└─● late  1200 → 1200  expires in 10 min",
                "● orphan  9 → 12  from the deleted fork #3",
            ]
        );
    }

    #[test]
    fn durations_are_rough() {
        for (micros, text) in [(-5, "a moment"), (90_000_000, "90 s"), (7_000_000_000, "116 min"), (1 << 40, "12 days")]
        {
            assert_eq!(rough_duration(micros), text);
        }
    }
}

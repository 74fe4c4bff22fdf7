//! What publishing a module would do, before it is done: for a person to read, and for the gate that keeps a publish from breaking
//! connected clients unnoticed.
//!
//! A plan has a token made of the fork, the module that runs and the one to come. A publish that breaks clients must name it, so what
//! was agreed to is what happens: if another module was published meanwhile, the token is another one.

use std::fmt::Write as _;

use tine_tables::{SchemaChange, SchemaStep};
use tine_types::Identity;
use tine_types::module_def::MethodOrAny;

use crate::module::{ActiveModule, DefinedView, Function};

/// What publishing a module would do to a fork.
#[derive(Clone, Debug)]
pub enum PublishPlan {
    /// The data is kept.
    Update(UpdatePlan),
    /// The data does not fit: these are the reasons.
    Incompatible(Vec<SchemaChange>),
}

/// An update that keeps the data.
#[derive(Clone, Debug)]
pub struct UpdatePlan {
    /// The changes, tables first; empty when only code changes.
    pub steps: Vec<PlanStep>,
    /// What agrees to this plan, as 64 hexadecimal digits.
    pub token: String,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanStep {
    /// Of a table.
    Schema(SchemaStep),
    /// A reducer or procedure is new.
    AddFunction(String),
    /// A reducer or procedure has other parameters or returns something else.
    ChangeFunction(String),
    /// A reducer or procedure is gone.
    RemoveFunction(String),
    /// A view has other columns, or is hidden from clients now.
    ChangeView(String),
    /// A view is gone.
    RemoveView(String),
}

/// What a line of a plan is marked and coloured as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Added,
    Changed,
    Removed,
    Refused,
}

impl PlanStep {
    /// Whether clients made for the previous module are disconnected. A function that is gone or different answers its callers with
    /// an error, which they can handle; a row that looks different they cannot read at all.
    pub fn breaks_clients(&self) -> bool {
        match self {
            PlanStep::Schema(step) => step.breaks_clients(),
            PlanStep::ChangeView(_) | PlanStep::RemoveView(_) => true,
            PlanStep::AddFunction(_) | PlanStep::ChangeFunction(_) | PlanStep::RemoveFunction(_) => false,
        }
    }

    fn mark(&self) -> Mark {
        match self {
            PlanStep::AddFunction(_) => Mark::Added,
            PlanStep::ChangeFunction(_) | PlanStep::ChangeView(_) => Mark::Changed,
            PlanStep::RemoveFunction(_) | PlanStep::RemoveView(_) => Mark::Removed,
            PlanStep::Schema(step) => match step {
                SchemaStep::AddTable { .. }
                | SchemaStep::AddColumn { .. }
                | SchemaStep::AddIndex { .. }
                | SchemaStep::AddSequence { .. } => Mark::Added,
                SchemaStep::DropIndex { .. } | SchemaStep::DropSequence { .. } => Mark::Removed,
                _ => Mark::Changed,
            },
        }
    }
}

impl std::fmt::Display for PlanStep {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PlanStep::Schema(step) => step.fmt(formatter),
            PlanStep::AddFunction(name) => write!(formatter, "add {name}"),
            PlanStep::ChangeFunction(name) => write!(formatter, "change the signature of {name}"),
            PlanStep::RemoveFunction(name) | PlanStep::RemoveView(name) => write!(formatter, "remove {name}"),
            PlanStep::ChangeView(name) => write!(formatter, "change the rows of {name}, or who may read it"),
        }
    }
}

impl UpdatePlan {
    /// The way from one module of a fork to another.
    pub(crate) fn between(fork: Identity, old: &ActiveModule, new: &ActiveModule) -> UpdatePlan {
        let mut steps: Vec<PlanStep> = new.schema.steps_from(&old.schema).into_iter().map(PlanStep::Schema).collect();
        let (before, after) = (functions(old), functions(new));
        for (name, signature) in &after {
            match before.iter().find(|(other, _)| other == name) {
                None => steps.push(PlanStep::AddFunction(name.clone())),
                Some((_, other)) if other != signature => steps.push(PlanStep::ChangeFunction(name.clone())),
                Some(_) => {}
            }
        }
        let gone = before.into_iter().filter(|(name, _)| !after.iter().any(|(other, _)| other == name));
        steps.extend(gone.map(|(name, _)| PlanStep::RemoveFunction(name)));
        steps.extend(view_steps(old, new));
        UpdatePlan { steps, token: token(fork, old.hash(), new.hash()) }
    }

    /// Whether connected clients are disconnected.
    pub fn breaks_clients(&self) -> bool {
        self.steps.iter().any(PlanStep::breaks_clients)
    }

    /// What clients cannot cope with, in words.
    pub fn reasons(&self) -> Vec<String> {
        self.steps.iter().filter(|step| step.breaks_clients()).map(ToString::to_string).collect()
    }
}

impl PublishPlan {
    /// The plan as lines of text, with ANSI colours if wanted.
    pub fn render(&self, colored: bool) -> String {
        let mut text = Text { out: String::new(), colored };
        match self {
            PublishPlan::Update(plan) => {
                if plan.steps.is_empty() {
                    text.plain("Only code changes: tables and functions stay as they are.");
                } else {
                    text.plain("The data is kept. Changes:");
                }
                for step in &plan.steps {
                    text.marked(step.mark(), &step.to_string());
                }
                if plan.breaks_clients() {
                    text.plain("Connected clients are disconnected: they cannot read the tables as they will be.");
                } else {
                    text.plain("Clients stay connected.");
                }
            }
            PublishPlan::Incompatible(changes) => {
                text.plain("The data does not fit the new module:");
                for change in changes {
                    text.marked(Mark::Refused, &change.to_string());
                    text.plain(&format!("      {}", change.advice()));
                }
                text.plain("Or give up all data of the fork (clear), or publish to a new database.");
            }
        }
        text.out
    }
}

struct Text {
    out: String,
    colored: bool,
}

impl Text {
    fn plain(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn marked(&mut self, mark: Mark, line: &str) {
        let (sign, color) = match mark {
            Mark::Added => ('+', 32),
            Mark::Changed => ('~', 33),
            Mark::Removed => ('-', 31),
            Mark::Refused => ('x', 31),
        };
        // Writing into a string cannot fail.
        let _ = if self.colored {
            writeln!(self.out, "  \u{1b}[{color}m{sign} {line}\u{1b}[0m")
        } else {
            writeln!(self.out, "  {sign} {line}")
        };
    }
}

/// Reducers, procedures and routes in words, each with what its callers depend on.
fn functions(module: &ActiveModule) -> Vec<(String, String)> {
    fn signature<Index>(function: Option<&std::sync::Arc<Function<Index>>>) -> String {
        function.map_or_else(String::new, |function| format!("{:?} {:?}", function.parameters, function.return_type))
    }
    let mut functions = Vec::new();
    for (prefix, def) in module.def().flatten() {
        functions.extend(def.reducers.iter().map(|reducer| {
            let name = format!("{prefix}{}", reducer.source_name);
            (format!("reducer `{name}`"), signature(module.reducers.get(&*name)))
        }));
        functions.extend(def.procedures.iter().map(|procedure| {
            let name = format!("{prefix}{}", procedure.source_name);
            (format!("procedure `{name}`"), signature(module.procedures.get(&*name)))
        }));
    }
    functions.extend(module.routes.iter().map(|route| {
        let method = match &route.method {
            MethodOrAny::Any => "any method",
            MethodOrAny::Method(method) => method.name(),
        };
        (format!("the route {method} `{}`", route.path), String::new())
    }));
    functions
}

/// How the views of two modules differ, as steps.
fn view_steps(old: &ActiveModule, new: &ActiveModule) -> Vec<PlanStep> {
    let words = |view: &DefinedView| format!("view `{}`", view.name);
    let mut steps = Vec::new();
    for view in &new.views {
        match old.views.iter().find(|other| other.name == view.name) {
            None => steps.push(PlanStep::AddFunction(words(view))),
            Some(other) if other.columns != view.columns || (other.public && !view.public) => {
                steps.push(PlanStep::ChangeView(words(view)));
            }
            Some(_) => {}
        }
    }
    let gone = old.views.iter().filter(|view| !new.views.iter().any(|other| other.name == view.name));
    steps.extend(gone.map(|view| PlanStep::RemoveView(words(view))));
    steps
}

fn token(fork: Identity, old: &[u8; 32], new: &[u8; 32]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("tine 2026 plan of a publish that breaks clients");
    hasher.update(fork.as_le_bytes());
    hasher.update(old);
    hasher.update(new);
    hasher.finalize().to_hex().to_string()
}

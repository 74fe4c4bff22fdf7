//! Arguments of the verbs of redo.

use std::path::PathBuf;

use clap::Args;

use crate::args::HERE;

/// `tine history`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine history quickstart
  tine history quickstart@exp1 --limit 20
  tine history quickstart --from 100 --to 200 --all --json

The history of a fork begins with what happened before it was made. Only the owner sees it.")]
pub struct HistoryArgs {
    /// Name or identity of the database, or `name@fork`
    #[arg(default_value = HERE)]
    pub database: String,
    /// The first commit [default: the oldest that is known]
    #[arg(long, value_name = "LSN")]
    pub from: Option<u64>,
    /// The last commit [default: the newest]
    #[arg(long, value_name = "LSN")]
    pub to: Option<u64>,
    /// How many entries, the newest ones, up to 10000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Show calls that failed or changed nothing, too
    #[arg(long)]
    pub all: bool,
}

/// A part of a history.
#[derive(Debug, Args)]
pub struct Range {
    /// The first commit [default: the oldest that can be run again]
    #[arg(long, value_name = "LSN")]
    pub from: Option<u64>,
    /// The last commit [default: the newest]
    #[arg(long, value_name = "LSN")]
    pub to: Option<u64>,
    /// End at the first call that does something else than recorded
    #[arg(long)]
    pub stop_at_first_difference: bool,
}

/// `tine verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine verify quickstart
  tine verify quickstart --from 1000 --to 2000 --stop-at-first-difference

Runs each recorded call again on the version it ran on, with the code it ran, and compares the rows it changed. Nothing is changed.
Exit status 1 when a call does something else than recorded.")]
pub struct VerifyArgs {
    /// Name or identity of the database, or `name@fork`
    #[arg(default_value = HERE)]
    pub database: String,
    /// Which commits.
    #[command(flatten)]
    pub range: Range,
}

/// `tine replay`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine replay quickstart --as check --module ./server/src/index.ts
  tine replay quickstart --as check --module ./server --from 1000 --to 2000
  tine replay quickstart --as check --resume
  tine sql quickstart@check 'SELECT * FROM person'

Makes a fork of the version before the first commit and runs the recorded calls on it again: with the code of --module, or the code
that ran. Tells per function how many calls did the same, changed other rows, fail now or succeed now. Transactions of procedures are
taken over as they were recorded. An interrupted replay goes on with --resume.")]
pub struct ReplayArgs {
    /// Name or identity of the database, or `name@fork`
    #[arg(default_value = HERE)]
    pub database: String,
    /// Name of the fork to make
    #[arg(long = "as", value_name = "FORK")]
    pub fork: String,
    /// The code to run: a .ts or .js file, or a folder with src/index.ts or index.ts in it [default: the recorded code]
    #[arg(long, value_name = "PATH", conflicts_with = "resume")]
    pub module: Option<PathBuf>,
    /// Go on with a replay of that name that was interrupted
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub resume: bool,
    /// Which commits.
    #[command(flatten)]
    pub range: Range,
}

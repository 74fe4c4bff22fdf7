//! `tine`: the database server and everything to work with it, in one binary.
//!
//! The command line is thin: it settles where things are ([`settings`], [`credentials`]), talks to a
//! server through `tine-client`, and shows the answer ([`output`]). Only `serve` runs a server.
//!
//! Invariants:
//!
//! - Standard output carries results only, in the form `--json` or its absence chose; progress and
//!   errors go to standard error, so that output can be piped.
//! - Every failure has a stable code (`TNxxxx`), a stable exit status ([`failure::Exit`]) and, where
//!   there is one, the next step to take.
//! - No verb waits without a deadline, except those that follow something until they are stopped.

mod args;
mod commands;
mod consent;
mod credentials;
mod data_directory;
mod demo;
mod failure;
mod output;
mod progress;
mod settings;
mod terminal;
mod values;

use std::{ffi::OsString, path::Path, process::ExitCode};

use args::{Cli, Command, GlobalArgs};
use clap::Parser;
use commands::Context;
use failure::Failure;
use output::{Format, Output};

/// The server's hot paths allocate many small, short-lived rows from several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A zygote of the server has nothing to do with the command line, and must stay small.
    tine_sandbox::init(&[tine_module::isolation::ENTRY]);
    let cli = Cli::parse_from(arguments());
    let output = Output::new(cli.global.form.unwrap_or(if cli.global.json { Format::Json } else { Format::Table }));
    match run(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(failure) if failure.is_closed_output() => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(output.is_json());
            failure.exit_code()
        }
    }
}

/// The command line. A link to this binary that is named like the program it can stand in for acts as that verb.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == commands::world_state::PROGRAM) {
        arguments.insert(1, commands::world_state::PROGRAM.into());
    }
    arguments
}

fn run(cli: Cli, output: &Output) -> Result<(), Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Demo(args) => demo::run(args, output.is_json()).map_err(Failure::demo),
        Command::Version => commands::version::run(output),
        Command::Serve(args) => commands::serve::run(&args, global, output),
        Command::Dev(args) => commands::dev::run(&args, global, output),
        Command::Init(args) => commands::init::run(&args, output),
        Command::Config(args) => commands::config::run(&args, global, output),
        Command::Completions(args) => commands::completions::run(&args, output),
        Command::Backup(args) => commands::backup::backup(&args, global, output),
        Command::Restore(args) => commands::backup::restore(&args, global, output),
        Command::Store(args) => commands::store::run(&args, global, output),
        Command::Doctor(args) => commands::doctor::run(&args, global, output),
        Command::Idl(args) => commands::idl::run(&args, output),
        Command::Explain(args) => commands::explain::run(&args, output),
        Command::WorldState(args) => commands::world_state::run(&args, output),
        Command::AztecWsdb(args) => commands::world_state::stand_in(&args, output),
        Command::Generate(args) => commands::generate::run(&args, global, output),
        Command::Identity(args) => commands::identity::run(&args, global, output),
        command => talk(command, global, output),
    }
}

/// The verbs that talk to a server as somebody.
fn talk(mut command: Command, global: &GlobalArgs, output: &Output) -> Result<(), Failure> {
    let context = Context::new(global, output)?;
    for database in command.databases() {
        *database = context.settings.complete_database(database)?;
    }
    match command {
        Command::Publish(args) => commands::publish::run(&context, &args),
        Command::Call(args) => commands::call::run(&context, &args),
        Command::Sql(args) => commands::sql::run(&context, &args),
        Command::Subscribe(args) => commands::subscribe::run(&context, &args),
        Command::History(args) => commands::redo::history(&context, &args),
        Command::Verify(args) => commands::redo::verify(&context, &args),
        Command::Replay(args) => commands::redo::replay(&context, &args),
        Command::Logs(args) => commands::logs::run(&context, &args),
        Command::Describe(args) => commands::describe::run(&context, &args),
        Command::List => commands::list::run(&context),
        Command::Delete(args) => commands::delete::run(&context, &args),
        Command::Fork(args) => commands::fork::run(&context, &args.command),
        _ => unreachable!("every other verb was taken by `run`"),
    }
}

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
mod credentials;
mod demo;
mod failure;
mod output;
mod settings;
mod values;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use commands::Context;
use failure::Failure;
use output::Output;

/// The server's hot paths allocate many small, short-lived rows from several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.global.json);
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

fn run(cli: Cli, output: &Output) -> Result<(), Failure> {
    match cli.command {
        Command::Demo(args) => demo::run(args, cli.global.json).map_err(Failure::demo),
        Command::Version => commands::version::run(output),
        Command::Serve(args) => commands::serve::run(&args, &cli.global, output),
        command => {
            let context = Context::new(&cli.global, output)?;
            match command {
                Command::Publish(args) => commands::publish::run(&context, &args),
                Command::Call(args) => commands::call::run(&context, &args),
                Command::Sql(args) => commands::sql::run(&context, &args),
                Command::Subscribe(args) => commands::subscribe::run(&context, &args),
                Command::Logs(args) => commands::logs::run(&context, &args),
                Command::Describe(args) => commands::describe::run(&context, &args),
                Command::List => commands::list::run(&context),
                Command::Delete(args) => commands::delete::run(&context, &args),
                Command::Fork(args) => commands::fork::run(&context, &args.command),
                Command::Demo(_) | Command::Version | Command::Serve(_) => unreachable!("taken above"),
            }
        }
    }
}

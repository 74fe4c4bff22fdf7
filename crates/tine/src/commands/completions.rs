//! `tine completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{args::Cli, failure::Failure, output::Output};

/// `tine completions`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine completions bash > ~/.local/share/bash-completion/completions/tine
  tine completions zsh > ~/.zfunc/_tine
  tine completions fish > ~/.config/fish/completions/tine.fish")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Prints a script for a shell.
///
/// # Errors
/// When nobody takes the output.
pub fn run(args: &CompletionsArgs, output: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tine", &mut script);
    output.lines(String::from_utf8_lossy(&script).lines())
}

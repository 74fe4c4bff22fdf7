//! Agreement to what loses something: given beforehand with `--yes`, or asked for at the terminal.

use std::io::{self, IsTerminal};

use clap::ValueEnum;

use crate::failure::Failure;

/// What one can agree to with `--yes=...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Consent {
    /// Everything below; also a bare `--yes`
    All,
    /// Deleting databases and forks
    Delete,
    /// Deleting the rows of a database, to publish a module that does not fit them
    Clear,
    /// Publishing what connected clients may not understand
    BreakClients,
}

/// Whether `given` covers `needed`.
pub fn covers(given: &[Consent], needed: Consent) -> bool {
    given.iter().any(|one| *one == Consent::All || *one == needed)
}

/// Goes on if `given` covers `needed`, or if the person at the terminal says yes.
///
/// # Errors
/// [`Failure::Declined`] on anything but yes, and when there is no terminal to ask.
pub fn confirm(given: &[Consent], needed: Consent, question: &str) -> Result<(), Failure> {
    if covers(given, needed) {
        return Ok(());
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Declined(needed));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") { Ok(()) } else { Err(Failure::Declined(needed)) }
}

#[cfg(test)]
mod tests {
    use super::{Consent, covers};

    #[test]
    fn consent_is_to_what_was_named() {
        for (given, delete, clear) in [
            (&[][..], false, false),
            (&[Consent::All], true, true),
            (&[Consent::Delete], true, false),
            (&[Consent::BreakClients, Consent::Clear], false, true),
        ] {
            assert_eq!((covers(given, Consent::Delete), covers(given, Consent::Clear)), (delete, clear), "{given:?}");
        }
    }
}

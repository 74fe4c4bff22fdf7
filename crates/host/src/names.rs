//! Names of databases and forks, and the identities derived for forks.

use tine_store::ForkId;
use tine_types::Identity;

use crate::HostError;

/// The name of the first fork of every database.
pub const MAIN: &str = "main";

/// Longer names make unreadable addresses; the peer's tools have the same limit in practice.
const NAME_BYTES_MAX: usize = 64;

/// Checks the rules shared by database and fork names: groups of `a-z0-9` joined by single hyphens, not an identity.
///
/// # Errors
/// [`HostError::InvalidName`].
pub fn check_name(name: &str) -> Result<(), HostError> {
    let groups_are_plain = name
        .split('-')
        .all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    if name.len() > NAME_BYTES_MAX || !groups_are_plain || Identity::from_hex(name).is_ok() {
        return Err(HostError::InvalidName(name.to_owned()));
    }
    Ok(())
}

/// An address taken apart: the database part and the fork name, `main` when none is given.
pub fn split_address(address: &str) -> (&str, &str) {
    match address.split_once('@') {
        Some((database, fork)) => (database, fork),
        None => (address, MAIN),
    }
}

/// The routable identity of a fork. `main` answers to the database's own identity as well.
pub(crate) fn fork_identity(database: Identity, fork: ForkId) -> Identity {
    Identity::from_claims("tine:fork", &format!("{}/{}", database.to_hex(), fork.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let identity = fork_identity(Identity::from_claims("a", "b"), ForkId::new(2)).to_hex();
        for (name, valid) in [
            ("market", true),
            ("a-1-b", true),
            ("7", true),
            ("", false),
            ("-a", false),
            ("a--b", false),
            ("a-", false),
            ("Market", false),
            ("a_b", false),
            ("a@b", false),
            ("ä", false),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
            (&identity, false),
        ] {
            assert_eq!(check_name(name).is_ok(), valid, "{name:?}");
        }
    }

    #[test]
    fn addresses_split_at_the_first_at_sign() {
        assert_eq!(split_address("market"), ("market", "main"));
        assert_eq!(split_address("market@e1"), ("market", "e1"));
        assert_eq!(split_address("market@"), ("market", ""));
    }
}

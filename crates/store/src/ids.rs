//! Typed numbers: none of them is a bare integer outside this crate.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty), $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($number);

        impl $name {
            /// Wraps the number.
            pub const fn new(number: $number) -> $name {
                $name(number)
            }

            /// The number.
            pub const fn get(self) -> $number {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!($letter, "{}"), self.0)
            }
        }
    };
}

id! {
    /// One copy-on-write line of history. Never used twice in a store, not even for ephemeral forks.
    ForkId(u64), "f"
}
id! {
    /// The commit number of a fork: dense, starts at 0 (the empty state), a fork made at n continues at n+1.
    Lsn(u64), "n"
}
id! {
    /// One ordered map of byte keys to byte values inside every version.
    KeyspaceId(u32), "k"
}
id! {
    /// A place in the log: the sequence number of a record. Durable when [`Store::durable`](crate::Store::durable)
    /// is at or past it. 0 means there is nothing to wait for.
    DurableTicket(u64), "t"
}
id! {
    /// An open checkpoint of a fork; never used twice on one fork while the store is open.
    CheckpointId(u64), "c"
}

impl ForkId {
    /// The fork that a new store starts with.
    pub const MAIN: ForkId = ForkId(1);
}

impl DurableTicket {
    /// Nothing to wait for.
    pub const NONE: DurableTicket = DurableTicket(0);
}

impl KeyspaceId {
    /// The first number that [`Store::allocate_keyspaces`](crate::Store::allocate_keyspaces) hands out; those
    /// below are reserved for whoever embeds the store.
    pub const FIRST_ALLOCATED: KeyspaceId = KeyspaceId(16);
}

/// One immutable state: a fork at one of its LSNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The fork.
    pub fork: ForkId,
    /// The commit number on it.
    pub lsn: Lsn,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.fork, self.lsn)
    }
}

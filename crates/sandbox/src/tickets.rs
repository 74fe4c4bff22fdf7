//! The tickets of a key: a table whose places are used again, so that a call allocates nothing for its own.

use std::task::Waker;
use std::time::Instant;

use tine_base::slots::Exchange;

use crate::key::Stage;

/// Names a ticket of a key until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TicketId(u32);

#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) stage: Stage,
    /// Who must be told of the next stage.
    pub(crate) waker: Option<Waker>,
    /// Bytes of the place it needs.
    pub(crate) bytes: u32,
    /// Known from the moment it is posted.
    pub(crate) exchange: Exchange,
    pub(crate) is_attended: bool,
    /// It must have the worker to itself.
    pub(crate) is_alone: bool,
    pub(crate) asked_at: Instant,
    pub(crate) deadline: Instant,
}

impl Ticket {
    pub(crate) fn new(bytes: u32, is_alone: bool, asked_at: Instant, deadline: Instant) -> Ticket {
        Ticket {
            stage: Stage::Queued,
            waker: None,
            bytes,
            exchange: Exchange::default(),
            is_attended: false,
            is_alone,
            asked_at,
            deadline,
        }
    }

    pub(crate) fn wake_later(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tickets {
    entries: Vec<Option<Ticket>>,
    free: Vec<u32>,
}

impl Tickets {
    pub(crate) fn insert(&mut self, ticket: Ticket) -> TicketId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        self.entries[index as usize] = Some(ticket);
        TicketId(index)
    }

    pub(crate) fn get(&self, id: TicketId) -> &Ticket {
        self.entries[id.0 as usize].as_ref().expect("a ticket is removed by its holder alone")
    }

    pub(crate) fn get_mut(&mut self, id: TicketId) -> &mut Ticket {
        self.entries[id.0 as usize].as_mut().expect("a ticket is removed by its holder alone")
    }

    pub(crate) fn find_mut(&mut self, id: TicketId) -> Option<&mut Ticket> {
        self.entries[id.0 as usize].as_mut()
    }

    pub(crate) fn remove(&mut self, id: TicketId) -> Ticket {
        self.free.push(id.0);
        self.entries[id.0 as usize].take().expect("a ticket is removed once")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.entries.len()
    }

    /// The tickets that are over their deadline.
    pub(crate) fn late(&self, now: Instant) -> impl Iterator<Item = TicketId> {
        let tickets = self.entries.iter().zip(0..);
        tickets
            .filter(move |(ticket, _)| ticket.as_ref().is_some_and(|t| t.deadline <= now))
            .map(|(_, id)| TicketId(id))
    }
}

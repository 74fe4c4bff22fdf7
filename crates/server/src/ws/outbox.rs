//! Where lanes put the messages of one client, and where its connection task takes them from.
//!
//! Invariants:
//! * Lanes never wait here: `deliver` appends under a short lock and wakes the task at most once per
//!   sleep. A task that runs is not woken, so a reply made while the task itself runs the lane costs
//!   no wake-up.
//! * What is queued is bounded by number and bytes, counting messages the task has taken but not yet
//!   written. Beyond a bound the queue is thrown away and the task ends: only this client is harmed.
//! * The first reason to close counts, and nothing is accepted after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;
use tine_host::{ClientSink, CloseReason, Delivery};
use tine_types::protocol::{QueryRows, ReducerOutcome, RowList, ServerMessage};
use tine_types::protocol::{TableUpdateRows, TransactionUpdate};

use crate::metrics::Metrics;

/// Messages an idle connection keeps room for.
const QUEUE_KEPT_MAX: usize = 512;
/// Bytes counted for a message beside its rows.
const MESSAGE_BYTES: usize = 64;

/// Why no more messages are coming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The host or the server asked for it.
    Close(CloseReason),
    /// The client reads too slowly: more was queued than the bounds allow.
    Overflow,
    /// The server's time to shut down is over.
    Abort,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Delivery>,
    /// Messages and bytes queued here or taken and not yet released.
    messages: usize,
    bytes: usize,
    ending: Option<Ending>,
    waker: Option<Waker>,
}

pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    /// The task found nothing and wants to be woken.
    ///
    /// SYNC: set and tested under the lock of `inner`, so a delivery either is seen by `take` or sees
    /// that the task sleeps. Cleared without the lock in `awake`, always before a `take` that will see
    /// what was delivered in between.
    asleep: AtomicBool,
    metrics: Arc<Metrics>,
    messages_max: usize,
    bytes_max: usize,
}

impl Outbox {
    pub fn new(messages_max: usize, bytes_max: usize, metrics: Arc<Metrics>) -> Outbox {
        Outbox { inner: Mutex::default(), asleep: AtomicBool::new(false), metrics, messages_max, bytes_max }
    }

    /// The task runs, and will call [`Self::take`] before it sleeps.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Moves everything queued behind `taken`. Returns whether there was anything, and the end if it
    /// was reached. Registers the task for the next change when there was nothing.
    pub fn take(&self, taken: &mut VecDeque<Delivery>, context: &mut Context<'_>) -> (bool, Option<Ending>) {
        let mut inner = self.inner.lock();
        if inner.queue.is_empty() {
            match &mut inner.waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => inner.waker = Some(context.waker().clone()),
            }
            self.asleep.store(true, Ordering::Relaxed);
            give_back(&mut inner.queue);
            give_back(taken);
            return (false, inner.ending.clone());
        }
        if taken.is_empty() {
            std::mem::swap(taken, &mut inner.queue);
        } else {
            taken.append(&mut inner.queue);
        }
        (true, inner.ending.clone())
    }

    /// Gives back the room of messages that were encoded.
    pub fn release(&self, messages: usize, bytes: usize) {
        let mut inner = self.inner.lock();
        assert!(inner.messages >= messages && inner.bytes >= bytes, "released more than was taken");
        inner.messages -= messages;
        inner.bytes -= bytes;
        drop(inner);
        self.metrics.queued_messages.subtract(messages as u64);
        self.metrics.queued_bytes.subtract(bytes as u64);
    }

    /// Ends the connection at once, without a close frame.
    pub fn abort(&self) {
        self.end(Ending::Abort, true);
    }

    fn end(&self, ending: Ending, replace: bool) {
        let mut inner = self.inner.lock();
        if inner.ending.is_none() || replace {
            inner.ending = Some(ending);
        }
        let waker = self.waker_if_asleep(&mut inner);
        drop(inner);
        wake(waker);
    }

    fn waker_if_asleep(&self, inner: &mut Inner) -> Option<Waker> {
        // Cloned, because the task most often sleeps again with the same one.
        match self.asleep.swap(false, Ordering::Relaxed) {
            true => inner.waker.clone(),
            false => None,
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        self.metrics.queued_messages.subtract(inner.messages as u64);
        self.metrics.queued_bytes.subtract(inner.bytes as u64);
    }
}

impl ClientSink for Outbox {
    fn deliver(&self, messages: &mut Vec<Delivery>) {
        let bytes: usize = messages.iter().map(|delivery| weight(&delivery.message)).sum();
        let mut inner = self.inner.lock();
        if inner.ending.is_some() {
            messages.clear();
            return;
        }
        let fits = inner.messages + messages.len() <= self.messages_max
            && (inner.bytes == 0 || inner.bytes + bytes <= self.bytes_max);
        if fits {
            inner.messages += messages.len();
            inner.bytes += bytes;
            self.metrics.queued_messages.add(messages.len() as u64);
            self.metrics.queued_bytes.add(bytes as u64);
            inner.queue.extend(messages.drain(..));
        } else {
            // The counts stay until the end: the task still releases what it has taken.
            self.metrics.clients_too_slow.increment();
            inner.ending = Some(Ending::Overflow);
            inner.queue.clear();
            messages.clear();
        }
        let waker = self.waker_if_asleep(&mut inner);
        drop(inner);
        wake(waker);
    }

    fn close(&self, reason: CloseReason) {
        self.end(Ending::Close(reason), false);
    }
}

/// A connection that sleeps keeps no room for the burst it once had.
fn give_back(queue: &mut VecDeque<Delivery>) {
    if queue.is_empty() && queue.capacity() > QUEUE_KEPT_MAX {
        *queue = VecDeque::new();
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Bytes a message keeps in memory, near enough for a bound. Rows shared between clients count for
/// each, because each may be the last to hold them.
pub(crate) fn weight(message: &ServerMessage) -> usize {
    let rows = match message {
        ServerMessage::SubscribeApplied { rows, .. } => query_rows_weight(rows),
        ServerMessage::UnsubscribeApplied { rows, .. } => rows.as_ref().map_or(0, query_rows_weight),
        ServerMessage::OneOffQueryResult { result: Ok(rows), .. } => query_rows_weight(rows),
        ServerMessage::OneOffQueryResult { result: Err(text), .. } => text.len(),
        ServerMessage::TransactionUpdate(update) => update_weight(update),
        ServerMessage::ReducerResult { outcome, .. } => match outcome {
            ReducerOutcome::Ok { return_value, update } => return_value.len() + update_weight(update),
            ReducerOutcome::OkEmpty => 0,
            ReducerOutcome::Err(bytes) => bytes.len(),
            ReducerOutcome::InternalError(text) => text.len(),
        },
        ServerMessage::SubscriptionError { error, .. } => error.len(),
        ServerMessage::InitialConnection { token, .. } => token.len(),
        ServerMessage::ProcedureResult { status, .. } => match status {
            tine_types::protocol::ProcedureStatus::Returned(bytes) => bytes.len(),
            tine_types::protocol::ProcedureStatus::InternalError(text) => text.len(),
        },
    };
    MESSAGE_BYTES + rows
}

fn query_rows_weight(rows: &QueryRows) -> usize {
    rows.tables.iter().map(|table| row_list_weight(&table.rows)).sum()
}

fn update_weight(update: &TransactionUpdate) -> usize {
    let tables = update.query_sets.iter().flat_map(|set| &set.tables);
    tables
        .map(|table| match &table.rows {
            TableUpdateRows::Persistent { inserts, deletes } => row_list_weight(inserts) + row_list_weight(deletes),
            TableUpdateRows::Event { events } => row_list_weight(events),
        })
        .sum()
}

fn row_list_weight(rows: &RowList) -> usize {
    MESSAGE_BYTES + rows.data.len()
}

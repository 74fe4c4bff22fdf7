//! Calls as futures, for any executor.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::Client;
use super::inner::CallResult;

#[derive(Default)]
struct State {
    result: Option<CallResult>,
    waker: Option<Waker>,
}

/// The reply of a call. The request is sent when the future is made.
pub struct CallFuture {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for CallFuture {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

impl CallFuture {
    pub(super) fn new(client: &Client, payload: &[u8]) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let done = state.clone();
        let resolve = move |result: CallResult| {
            let waker = {
                let mut state = done.lock();
                state.result.get_or_insert(result);
                state.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        };
        if let Err(error) = client.submit(payload, resolve) {
            state.lock().result.get_or_insert(Err(error));
        }
        CallFuture { state }
    }
}

impl Future for CallFuture {
    type Output = CallResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CallResult> {
        let mut state = self.state.lock();
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

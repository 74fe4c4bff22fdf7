//! References that outlive no scope, for code that no lifetime reaches.
//!
//! Natives are called by the engine and can only find what hangs on the context, while the host and the context of a call
//! are references of its caller. A [`Lent`] holds such a reference for the length of a scope. Invariant: it is empty
//! outside [`Lent::lend`], and while somebody uses it.

use std::cell::Cell;
use std::ptr::NonNull;

use crate::call::CallHost;

/// A place for a reference that is lent for a scope.
pub(super) struct Lent<T: ?Sized>(Cell<Option<NonNull<T>>>);

impl<T: ?Sized> Lent<T> {
    pub(super) const fn empty() -> Lent<T> {
        Lent(Cell::new(None))
    }

    /// Lends `value` while `scope` runs. What was lent before is lent again afterwards, also after a panic.
    pub(super) fn lend<R>(&self, value: &mut T, scope: impl FnOnce() -> R) -> R {
        let _restore = Restore { place: &self.0, before: self.0.replace(Some(NonNull::from(value))) };
        scope()
    }

    /// Passes the reference to `use_value`; `None` if nothing is lent or it is in use further up the stack.
    pub(super) fn with<R>(&self, use_value: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = self.0.take()?;
        let _restore = Restore { place: &self.0, before: Some(value) };
        // SAFETY: `lend` put it there and has not returned. The place is empty meanwhile, so this is the only use.
        Some(use_value(unsafe { value.as_mut() }))
    }
}

impl Lent<dyn CallHost> {
    /// Like [`Lent::lend`], for a host that lives only as long as the call.
    pub(super) fn lend_host<R>(&self, host: &mut dyn CallHost, scope: impl FnOnce() -> R) -> R {
        // SAFETY: only the bound of the trait object changes. `with` hands it out for less than the scope, and
        // nothing in `CallHost` lets a user keep it.
        let host = unsafe { std::mem::transmute::<&mut dyn CallHost, &mut (dyn CallHost + 'static)>(host) };
        self.lend(host, scope)
    }
}

/// Like [`Lent`], for a reference that may be used by several at once.
pub(super) struct LentShared<T>(Cell<Option<NonNull<T>>>);

impl<T> LentShared<T> {
    pub(super) const fn empty() -> LentShared<T> {
        LentShared(Cell::new(None))
    }

    /// Lends `value` while `scope` runs.
    pub(super) fn lend<R>(&self, value: &T, scope: impl FnOnce() -> R) -> R {
        let _restore = Restore { place: &self.0, before: self.0.replace(Some(NonNull::from(value))) };
        scope()
    }

    /// Passes the reference to `use_value`; `None` if nothing is lent.
    pub(super) fn with<R>(&self, use_value: impl FnOnce(&T) -> R) -> Option<R> {
        // SAFETY: `lend` put it there and has not returned.
        self.0.get().map(|value| use_value(unsafe { value.as_ref() }))
    }
}

/// Puts a reference back.
struct Restore<'a, T: ?Sized> {
    place: &'a Cell<Option<NonNull<T>>>,
    before: Option<NonNull<T>>,
}

impl<T: ?Sized> Drop for Restore<'_, T> {
    fn drop(&mut self) {
        self.place.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_only_inside_the_scope_and_to_one_user() {
        let place = Lent::<Vec<i32>>::empty();
        assert_eq!(place.with(|_| ()), None);
        let mut list = vec![1];
        place.lend(&mut list, || {
            let nested = place.with(|outer| {
                outer.push(2);
                place.with(|inner| inner.push(3))
            });
            assert_eq!(nested, Some(None));
            let mut other = vec![9];
            place.lend(&mut other, || place.with(|list| list.push(10)));
            assert_eq!(place.with(|list| list.len()), Some(2));
        });
        assert_eq!(place.with(|_| ()), None);
        assert_eq!(list, [1, 2]);
    }

    #[test]
    fn a_panic_takes_the_reference_back() {
        let place = Lent::<i32>::empty();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            place.lend(&mut 1, || place.with(|_| panic!("in use")));
        }));
        assert!(outcome.is_err());
        assert_eq!(place.with(|_| ()), None);
    }
}

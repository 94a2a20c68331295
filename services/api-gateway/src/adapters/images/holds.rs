//! Names that somebody holds: what they stand for stays as it is.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many hold each name.
#[derive(Clone, Default)]
pub(super) struct Holds(Arc<Mutex<HashMap<String, usize>>>);

/// Holds a name until it is dropped.
pub(super) struct Hold {
    holds: Holds,
    name: String,
}

impl Holds {
    pub(super) fn hold(&self, name: &str) -> Hold {
        *self.locked().entry(name.to_owned()).or_default() += 1;
        Hold { holds: self.clone(), name: name.to_owned() }
    }

    pub(super) fn is_held(&self, name: &str) -> bool {
        self.locked().contains_key(name)
    }

    /// Does something quick while nobody begins to hold the name; `None`: somebody holds it.
    pub(super) fn unless_held<T>(&self, name: &str, act: impl FnOnce() -> io::Result<T>) -> io::Result<Option<T>> {
        let held = self.locked();
        if held.contains_key(name) { Ok(None) } else { act().map(Some) }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.holds.locked();
        if let Some(count) = held.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.name);
            }
        }
    }
}

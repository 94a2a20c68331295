//! The newest order seen per resource, in bounded memory.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

/// `(epoch, version)`.
type Order = (u64, u64);

/// Resources on the host. Far above what a host can hold; a bound, not a limit anyone meets.
const LIVE: usize = 1_000_000;
/// Removed resources that are still remembered.
const REMOVED: usize = 100_000;

/// What was seen, of resources that are here and of the last that were removed.
#[derive(Debug)]
pub(super) struct Memory {
    live: Recent,
    removed: Recent,
}

impl Default for Memory {
    fn default() -> Self {
        Self::with_bounds(LIVE, REMOVED)
    }
}

impl Memory {
    pub(super) fn with_bounds(live: usize, removed: usize) -> Self {
        Self { live: Recent::new(live), removed: Recent::new(removed) }
    }

    /// Remembers `order`, unless a newer one was seen, which is the error.
    pub(super) fn advance(&mut self, resource: Uuid, order: Order) -> Result<(), Order> {
        match self.live.get(&resource).or_else(|| self.removed.get(&resource)) {
            Some(newest) if order < newest => Err(newest),
            _ => {
                self.removed.take(&resource);
                self.live.put(resource, order);
                Ok(())
            }
        }
    }

    /// Moves a resource to the removed ones.
    pub(super) fn retire(&mut self, resource: Uuid) {
        if let Some(order) = self.live.take(&resource) {
            self.removed.put(resource, order);
        }
    }
}

/// A map that forgets what was put longest ago.
#[derive(Debug)]
struct Recent {
    bound: usize,
    clock: u64,
    entries: HashMap<Uuid, (Order, u64)>,
    by_age: BTreeMap<u64, Uuid>,
}

impl Recent {
    fn new(bound: usize) -> Self {
        Self { bound, clock: 0, entries: HashMap::new(), by_age: BTreeMap::new() }
    }

    fn get(&self, id: &Uuid) -> Option<Order> {
        self.entries.get(id).map(|(order, _)| *order)
    }

    fn put(&mut self, id: Uuid, order: Order) {
        self.clock += 1;
        if let Some((_, age)) = self.entries.insert(id, (order, self.clock)) {
            self.by_age.remove(&age);
        }
        self.by_age.insert(self.clock, id);
        if self.entries.len() > self.bound
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }

    fn take(&mut self, id: &Uuid) -> Option<Order> {
        let (order, age) = self.entries.remove(id)?;
        self.by_age.remove(&age);
        Some(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_resources_are_remembered_up_to_the_bound_and_live_ones_are_kept() {
        let mut memory = Memory::with_bounds(10, 2);
        let ids: Vec<Uuid> = (0..4).map(Uuid::from_u128).collect();
        for id in &ids {
            memory.advance(*id, (1, 5)).unwrap();
        }
        for id in &ids[..3] {
            memory.retire(*id);
        }
        // The first of three removed ones is forgotten, the last two are not, and the live one is not either.
        assert_eq!(memory.advance(ids[0], (1, 4)), Ok(()));
        for id in &ids[1..] {
            assert_eq!(memory.advance(*id, (1, 4)), Err((1, 5)));
        }
        // A resource that comes back is live again.
        memory.advance(ids[1], (1, 6)).unwrap();
        assert_eq!((memory.live.entries.len(), memory.removed.entries.len()), (3, 1));
        assert_eq!(memory.removed.entries.len(), memory.removed.by_age.len());
        assert_eq!(memory.live.entries.len(), memory.live.by_age.len());
    }

    #[test]
    fn an_epoch_orders_before_a_version() {
        let mut memory = Memory::default();
        let id = Uuid::from_u128(1);
        memory.advance(id, (1, 9)).unwrap();
        memory.advance(id, (2, 1)).unwrap();
        assert_eq!(memory.advance(id, (1, 10)), Err((2, 1)));
        assert_eq!(memory.advance(id, (2, 1)), Ok(()));
    }
}

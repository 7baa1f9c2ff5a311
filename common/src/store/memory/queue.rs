//! Names with times, in the order in which Redis keeps a sorted set.

use std::collections::{BTreeMap, BTreeSet};

/// Slots or steps by time, then by name as text.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    order: BTreeSet<(u64, String)>,
    times: BTreeMap<String, u64>,
}

impl Queue {
    pub(super) fn put(&mut self, at: u64, name: &str) {
        self.remove(name);
        self.order.insert((at, name.to_owned()));
        self.times.insert(name.to_owned(), at);
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some((name, at)) = self.times.remove_entry(name) {
            self.order.remove(&(at, name));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When `name` stands in the queue.
    pub(super) fn time_of(&self, name: &str) -> Option<u64> {
        self.times.get(name).copied()
    }

    /// All names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.order.iter().map(|(_, name)| name)
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// Names whose time has come, in order.
    pub(super) fn due(&self, now: u64) -> impl Iterator<Item = &String> {
        self.order.iter().take_while(move |(at, _)| *at <= now).map(|(_, name)| name)
    }

    /// The earliest time after `now`.
    pub(super) fn next_after(&self, now: u64) -> Option<u64> {
        self.order.range((now + 1, String::new())..).next().map(|(at, _)| *at)
    }
}

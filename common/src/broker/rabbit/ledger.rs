//! Which deliveries of one channel are settled, and the fewest words that tell the broker. Pure.
//!
//! One acknowledgement that covers many deliveries costs the broker one entry in the queue's log, and the client one write.

use std::collections::BTreeSet;

/// Deliveries by tag. A channel numbers them 1, 2, 3, …
#[derive(Debug)]
pub(super) struct Ledger {
    /// Every tag below is settled, and the broker was told.
    base: u64,
    /// Tags above `base` of which the broker was told.
    told: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    returned: Vec<Returned>,
}

/// A delivery that goes back to its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) tag: u64,
    /// Somebody has had it in hand.
    pub(super) taken: bool,
}

/// What the broker must be told, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Goes back.
    pub(super) returned: Vec<Returned>,
    /// Acknowledged, with everything before it that is still open.
    pub(super) through: Option<u64>,
    /// Acknowledged, one by one.
    pub(super) single: BTreeSet<u64>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { base: 1, told: BTreeSet::new(), acknowledged: BTreeSet::new(), returned: Vec::new() }
    }

    pub(super) fn acknowledge(&mut self, tag: u64) {
        self.acknowledged.insert(tag);
    }

    pub(super) fn give_back(&mut self, tag: u64, taken: bool) {
        self.returned.push(Returned { tag, taken });
    }

    /// What has been settled since the last call. The caller tells the broker all of it.
    pub(super) fn words(&mut self) -> Words {
        let returned = std::mem::take(&mut self.returned);
        self.told.extend(returned.iter().map(|returned| returned.tag));
        let mut through = None;
        loop {
            // The broker knows only tags that are open, so `through` is one that it was not told of before.
            if self.acknowledged.remove(&self.base) {
                through = Some(self.base);
            } else if !self.told.remove(&self.base) {
                break;
            }
            self.base += 1;
        }
        let single = std::mem::take(&mut self.acknowledged);
        self.told.extend(&single);
        Words { returned, through, single }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(ledger: &mut Ledger, tags: &[u64]) -> (Option<u64>, Vec<u64>) {
        tags.iter().for_each(|tag| ledger.acknowledge(*tag));
        let words = ledger.words();
        assert_eq!(words.returned, []);
        (words.through, words.single.into_iter().collect())
    }

    #[test]
    fn open_deliveries_are_never_covered() {
        let mut ledger = Ledger::new();
        assert_eq!(acks(&mut ledger, &[]), (None, vec![]));
        assert_eq!(acks(&mut ledger, &[2, 1, 3]), (Some(3), vec![]));
        // 4 is open.
        assert_eq!(acks(&mut ledger, &[6, 5]), (None, vec![5, 6]));
        assert_eq!(acks(&mut ledger, &[8]), (None, vec![8]));
        // 5 and 6 were told already, 7 is open.
        assert_eq!(acks(&mut ledger, &[4]), (Some(4), vec![]));
        assert_eq!(acks(&mut ledger, &[7, 10]), (Some(7), vec![10]));
        assert_eq!(acks(&mut ledger, &[9, 11]), (Some(11), vec![]));
    }

    #[test]
    fn what_goes_back_is_told_before_it_could_be_covered() {
        let mut ledger = Ledger::new();
        ledger.acknowledge(2);
        ledger.give_back(1, true);
        let words = ledger.words();
        assert_eq!(words, Words { returned: vec![Returned { tag: 1, taken: true }], through: Some(2), single: BTreeSet::new() });
        ledger.give_back(3, false);
        let words = ledger.words();
        assert_eq!(words, Words { returned: vec![Returned { tag: 3, taken: false }], through: None, single: BTreeSet::new() });
        assert_eq!(acks(&mut ledger, &[4]), (Some(4), vec![]));
    }
}

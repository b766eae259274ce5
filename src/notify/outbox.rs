//! What is still to be told to whom: one queue for each receiver, in order, bounded. Pure; `store` makes it survive.
//!
//! Every change is an [`Entry`]. Replaying the entries restores the outbox, and replaying an entry twice changes
//! nothing, so that a crash between a delivery and its receipt costs at most one more delivery under the same id.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::message::{Kind, Message};
use crate::names::{RolloutName, Wall};

/// Ids that are remembered, so that nothing is told anew after a restart.
const IDS: usize = 4_096;
/// Receipts that are kept.
const RECEIPTS: usize = 2_000;
/// Alerts that may be open at once.
const OPEN: usize = 4_096;

/// One change of the outbox, as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A message for these receivers.
    Put {
        /// What.
        message: Arc<Message>,
        /// To whom it is still to go.
        targets: Vec<String>,
    },
    /// What became of a message at a receiver.
    Receipt(Receipt),
    /// An alert that is raised: for compaction.
    Open {
        /// The message that raised it.
        message: Arc<Message>,
    },
    /// Alerts that are no longer raised, though a message that raised them still waits: for compaction.
    Close {
        /// Their keys.
        keys: Vec<String>,
    },
    /// The newest generation that was told of a rollout: for compaction.
    Mark {
        /// Which.
        rollout: RolloutName,
        /// Its generation.
        generation: u64,
    },
    /// Where the journal stood when the outbox began: what is older was never to be told.
    Began {
        /// The number of the journal's last entry then.
        after: u64,
    },
}

/// What became of a message at a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The message.
    pub id: String,
    /// The kind of message.
    pub kind: Kind,
    /// The receiver.
    pub target: String,
    /// When.
    pub at: Wall,
    /// What became of it.
    pub result: Outcome,
    /// How often it was tried.
    pub attempts: u32,
    /// What the receiver said, where it was not delivered.
    pub why: String,
}

/// What became of a message; the words are those of the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The receiver has taken it.
    Delivered,
    /// An attempt failed; it is tried again. Never in a receipt.
    Retried,
    /// The receiver refuses this message for good.
    Refused,
    /// It was tried for too long.
    Expired,
    /// It made room in a full outbox.
    Dropped,
}

impl Outcome {
    /// The word of the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Delivered => "delivered",
            Outcome::Retried => "retried",
            Outcome::Refused => "refused",
            Outcome::Expired => "expired",
            Outcome::Dropped => "dropped",
        }
    }
}

/// What is still to be told.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: BTreeMap<String, VecDeque<Arc<Message>>>,
    /// Alerts that are raised, each with the message that raised it.
    open: BTreeMap<String, Arc<Message>>,
    told: BTreeMap<RolloutName, u64>,
    /// The journal's last entry when this outbox began.
    began: Option<u64>,
    ids: BTreeSet<String>,
    order: VecDeque<String>,
    receipts: VecDeque<Receipt>,
}

impl Outbox {
    /// Restores what the entries say.
    #[must_use]
    pub fn replay(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut outbox = Self::default();
        for entry in entries {
            outbox.take(entry);
        }
        outbox
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Put { message, targets } => {
                self.remember(&message);
                for target in targets {
                    self.lanes.entry(target).or_default().push_back(Arc::clone(&message));
                }
            }
            Entry::Receipt(receipt) => {
                if let Some(lane) = self.lanes.get_mut(&receipt.target) {
                    lane.retain(|message| message.id != receipt.id);
                }
                self.know(&receipt.id);
                self.keep(receipt);
            }
            Entry::Open { message } => {
                if let Some(alert) = &message.raises {
                    self.open.insert(alert.key.clone(), Arc::clone(&message));
                }
            }
            Entry::Close { keys } => self.open.retain(|key, _| !keys.contains(key)),
            Entry::Mark { rollout, generation } => self.mark(rollout, generation),
            Entry::Began { after } => self.began = self.began.or(Some(after)),
        }
    }

    /// Takes a message for the receivers that `wants` names once it is clear which alerts it ends, each with the most
    /// that its queue may hold. What has been taken before is not taken again. Gives back what is to be written: first
    /// what made room, then the message.
    pub fn put(
        &mut self,
        mut message: Message,
        wants: impl FnOnce(&Message) -> Vec<(String, usize)>,
        now: Wall,
    ) -> Vec<Entry> {
        if self.ids.contains(&message.id) {
            return Vec::new();
        }
        self.settle(&mut message);
        let message = Arc::new(message);
        let mut entries = Vec::new();
        let mut to = Vec::new();
        for (target, most) in &wants(&message) {
            let lane = self.lanes.entry(target.clone()).or_default();
            let gone = match room(lane, message.kind, *most) {
                Room::Free => None,
                Room::For(at) => lane.remove(at),
                Room::None => Some(Arc::clone(&message)),
            };
            if let Some(gone) = &gone {
                let why = "the outbox is full".to_owned();
                entries.push(Entry::Receipt(receipt(gone, target, now, Outcome::Dropped, (0, why))));
            }
            if gone.is_some_and(|gone| Arc::ptr_eq(&gone, &message)) {
                continue;
            }
            lane.push_back(Arc::clone(&message));
            to.push(target.clone());
        }
        for entry in &entries {
            if let Entry::Receipt(receipt) = entry {
                self.keep(receipt.clone());
            }
        }
        self.remember(&message);
        entries.push(Entry::Put { message, targets: to });
        entries
    }

    /// The message that is next for a receiver.
    #[must_use]
    pub fn next(&self, target: &str) -> Option<Arc<Message>> {
        self.lanes.get(target)?.front().cloned()
    }

    /// A receiver is done with a message, this way or that.
    pub fn done(
        &mut self,
        target: &str,
        message: &Message,
        now: Wall,
        result: Outcome,
        attempts_why: (u32, String),
    ) -> Entry {
        let receipt = receipt(message, target, now, result, attempts_why);
        self.take(Entry::Receipt(receipt.clone()));
        Entry::Receipt(receipt)
    }

    /// Whether the message is still to go to this receiver.
    #[must_use]
    pub fn waits(&self, target: &str, id: &str) -> bool {
        self.lanes.get(target).is_some_and(|lane| lane.iter().any(|message| message.id == id))
    }

    /// Who has messages waiting, how many, and when the oldest happened.
    pub fn depths(&self) -> impl Iterator<Item = (&str, usize, Option<Wall>)> {
        self.lanes.iter().map(|(target, lane)| (target.as_str(), lane.len(), lane.front().map(|m| m.at)))
    }

    /// Messages whose alerts are raised.
    pub fn open(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.open.values()
    }

    /// Whether a decision was never told: one of a rollout that it knows, newer than what it told of it, or one of a
    /// rollout that it never heard of, if entry `n` of the journal came after the outbox began.
    #[must_use]
    pub fn missed(&self, rollout: &RolloutName, generation: u64, n: u64) -> bool {
        match self.told.get(rollout) {
            Some(told) => generation > *told,
            None => self.began.is_some_and(|after| n > after),
        }
    }

    /// Takes where the journal stands as its beginning, once: what is to be written, the first time.
    pub fn begin(&mut self, after: u64) -> Option<Entry> {
        let first = self.began.is_none();
        self.began.get_or_insert(after);
        first.then_some(Entry::Began { after })
    }

    /// What became of the newest messages, oldest first.
    pub fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.receipts.iter()
    }

    /// What still waits, by receiver.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, &Arc<Message>)> {
        self.lanes.iter().flat_map(|(target, lane)| lane.iter().map(|message| (target.as_str(), message)))
    }

    /// The fewest entries that restore this outbox.
    #[must_use]
    pub fn compact(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.receipts.iter().cloned().map(Entry::Receipt).collect();
        entries.extend(self.began.map(|after| Entry::Began { after }));
        let marks = self.told.iter();
        entries.extend(marks.map(|(rollout, at)| Entry::Mark { rollout: rollout.clone(), generation: *at }));
        for (target, lane) in &self.lanes {
            let put =
                |message: &Arc<Message>| Entry::Put { message: Arc::clone(message), targets: vec![target.clone()] };
            entries.extend(lane.iter().map(put));
        }
        let raised = self.lanes.values().flatten().filter_map(|m| m.raises.as_ref());
        let keys: BTreeSet<&String> = raised.map(|a| &a.key).filter(|key| !self.open.contains_key(*key)).collect();
        entries.push(Entry::Close { keys: keys.into_iter().cloned().collect() });
        entries.extend(self.open.values().map(|message| Entry::Open { message: Arc::clone(message) }));
        entries
    }

    /// What a message ends is only what is raised.
    fn settle(&self, message: &mut Message) {
        let clears = std::mem::take(&mut message.clears);
        let ended =
            |key: &str| clears.iter().any(|c| key == c.key || (c.key.ends_with('/') && key.starts_with(&c.key)));
        let raised = self.open.values().filter_map(|m| m.raises.as_ref());
        message.clears = raised.filter(|alert| ended(&alert.key)).cloned().collect();
    }

    fn remember(&mut self, message: &Arc<Message>) {
        self.know(&message.id);
        for alert in &message.clears {
            self.open.remove(&alert.key);
        }
        if let Some(alert) = &message.raises
            && (self.open.len() < OPEN || self.open.contains_key(&alert.key))
        {
            self.open.insert(alert.key.clone(), Arc::clone(message));
        }
        if let (Some(rollout), Some(generation)) = (&message.rollout, message.generation) {
            self.mark(rollout.clone(), generation);
        }
    }

    fn mark(&mut self, rollout: RolloutName, generation: u64) {
        let told = self.told.entry(rollout).or_default();
        *told = generation.max(*told);
    }

    fn know(&mut self, id: &str) {
        if self.ids.insert(id.to_owned()) {
            self.order.push_back(id.to_owned());
            if self.order.len() > IDS
                && let Some(old) = self.order.pop_front()
            {
                self.ids.remove(&old);
            }
        }
    }

    fn keep(&mut self, receipt: Receipt) {
        self.receipts.push_back(receipt);
        if self.receipts.len() > RECEIPTS {
            self.receipts.pop_front();
        }
    }
}

/// How a message finds room in a queue.
enum Room {
    /// There is some.
    Free,
    /// The message at this place is given up for it.
    For(usize),
    /// There is none.
    None,
}

/// The oldest of the lowest rank makes room, but nobody above the newcomer's own. What is never given up for others
/// may fill the queue a second time; beyond that the newcomer is refused.
fn room(lane: &VecDeque<Arc<Message>>, newcomer: Kind, most: usize) -> Room {
    if lane.len() < most {
        return Room::Free;
    }
    let lowest = lane.iter().map(|m| m.kind.rank()).min().unwrap_or(Kind::KEPT);
    if lowest < Kind::KEPT && lowest <= newcomer.rank() {
        return lane.iter().position(|m| m.kind.rank() == lowest).map_or(Room::None, Room::For);
    }
    let kept = newcomer.rank() == Kind::KEPT && lane.len() < most.saturating_mul(2);
    if kept { Room::Free } else { Room::None }
}

fn receipt(message: &Message, target: &str, at: Wall, result: Outcome, (attempts, why): (u32, String)) -> Receipt {
    Receipt { id: message.id.clone(), kind: message.kind, target: target.to_owned(), at, result, attempts, why }
}

#[cfg(test)]
mod tests {
    use super::super::message::Alert;
    use super::*;
    use crate::notify::testing::message;

    fn targets(most: usize) -> impl FnOnce(&Message) -> Vec<(String, usize)> {
        move |_| vec![("ops".to_owned(), most)]
    }

    fn waiting(outbox: &Outbox) -> Vec<&str> {
        outbox.lanes["ops"].iter().map(|m| m.id.as_str()).collect()
    }

    fn dropped(entries: &[Entry]) -> Vec<&str> {
        let of = |entry: &'_ Entry| matches!(entry, Entry::Receipt(r) if r.result == Outcome::Dropped);
        entries.iter().filter(|e| of(e)).map(|e| if let Entry::Receipt(r) = e { r.id.as_str() } else { "" }).collect()
    }

    #[test]
    fn a_full_outbox_gives_up_the_oldest_summary_first_and_a_rollback_never() {
        let mut outbox = Outbox::default();
        let mut put = |id: &str, kind| {
            let entries = outbox.put(message(id, kind), targets(3), Wall(1));
            dropped(&entries).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(put("s1", Kind::Summary).is_empty());
        assert!(put("r1", Kind::Rollback).is_empty());
        assert!(put("s2", Kind::Summary).is_empty());
        assert_eq!(put("r2", Kind::Rollback), ["s1"]);
        assert_eq!(put("g1", Kind::Stage), ["s2"]);
        assert_eq!(put("s3", Kind::Summary), ["s3"], "a summary never pushes out what is worth more");
        assert_eq!(put("r3", Kind::Rollback), ["g1"]);
        assert!(put("r4", Kind::Rollback).is_empty(), "rollbacks have room of their own");
        assert!(put("r5", Kind::Aborted).is_empty());
        assert!(put("r6", Kind::Rollback).is_empty());
        assert_eq!(put("r7", Kind::Rollback), ["r7"], "that has an end too, and it is counted");
        assert_eq!(put("g2", Kind::Stage), ["g2"]);
        assert_eq!(waiting(&outbox), ["r1", "r2", "r3", "r4", "r5", "r6"], "in the order in which they happened");
    }

    #[test]
    fn what_has_been_taken_is_not_taken_again() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.put(message("a", Kind::Stage), targets(3), Wall(1)).len(), 1);
        assert!(outbox.put(message("a", Kind::Stage), targets(3), Wall(2)).is_empty());
        let first = outbox.next("ops").unwrap();
        outbox.done("ops", &first, Wall(3), Outcome::Delivered, (1, String::new()));
        assert!(outbox.put(message("a", Kind::Stage), targets(3), Wall(4)).is_empty());
        assert!(outbox.next("ops").is_none());
    }

    #[test]
    fn a_message_ends_only_alerts_that_are_raised() {
        let alert = |key: &str| Alert { key: key.to_owned(), page: false };
        let mut outbox = Outbox::default();
        let raise = |id: &str, key: &str| Message { raises: Some(alert(key)), ..message(id, Kind::Limit) };
        outbox.put(raise("1", "chat/limit/error_rate"), targets(9), Wall(1));
        outbox.put(raise("2", "chat2/limit/error_rate"), targets(9), Wall(1));
        let ends = Message { clears: vec![alert("chat/limit/"), alert("chat/rollback")], ..message("3", Kind::Stage) };
        outbox.put(ends, targets(9), Wall(2));
        let last = outbox.lanes["ops"].back().unwrap();
        assert_eq!(last.clears, [alert("chat/limit/error_rate")]);
        assert_eq!(outbox.open().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["2"]);
    }

    #[test]
    fn the_compacted_outbox_is_the_same_outbox() {
        let alert = |key: &str| Alert { key: key.to_owned(), page: true };
        let mut outbox = Outbox::default();
        let mut written = Vec::new();
        let both = vec![("ops".to_owned(), 9), ("page".to_owned(), 9)];
        for (n, kind) in Kind::ALL.into_iter().enumerate() {
            let mut one = message(&format!("m{n}"), kind);
            one.generation = Some(n as u64);
            if n % 3 == 0 {
                one.raises = Some(alert(&format!("chat/{n}")));
            }
            if n % 4 == 0 {
                one.clears = vec![alert(&format!("chat/{}", n.saturating_sub(4)))];
            }
            written.extend(outbox.put(one, |_| both.clone(), Wall(n as i64)));
            if n % 2 == 0 {
                let next = outbox.next("page").unwrap();
                written.push(outbox.done("page", &next, Wall(99), Outcome::Delivered, (1, String::new())));
            }
        }
        let show = |outbox: &Outbox| {
            let open: Vec<_> = outbox.open.iter().map(|(k, m)| (k.clone(), m.id.clone())).collect();
            (outbox.lanes.clone(), open, outbox.told.clone(), outbox.ids.clone(), outbox.receipts.clone())
        };
        assert_eq!(show(&Outbox::replay(written)), show(&outbox), "as it was written");
        assert_eq!(show(&Outbox::replay(outbox.compact())), show(&outbox), "as it is compacted");
    }
}

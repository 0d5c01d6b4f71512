//! The nodes with connections of users, as this node read them in Redis last. An entry counts only for the connection over which it
//! was read, because that connection tells of changes ([`super::tracking`]).

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::IntGauge;

use super::{line::parse_lines, lossy::Lossy};
use crate::model::{NodeId, UserId};

/// The connections of a user, as Redis has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holders {
    /// True if there is one.
    pub(super) connected: bool,
    /// The nodes that hold them, in order, each once.
    pub(super) nodes: Arc<[NodeId]>,
}

impl Holders {
    /// Reads the field `c` of a registry entry.
    pub(super) fn parse(lines: Option<&Lossy>) -> Self {
        let Some(Lossy(lines)) = lines else { return Self::default() };
        let mut nodes: Vec<NodeId> = parse_lines(lines).iter().filter_map(|line| line.holder.node()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        Self { connected: true, nodes: nodes.into() }
    }
}

/// A connection whose server tells of changes. No two have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source(u64);

/// A read that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading(u64);

#[derive(Debug)]
enum Known {
    /// A read is under way, and no change was told since it began.
    Awaited(Reading),
    /// Read over this connection, and no change was told since.
    Read(Source, Holders),
}

/// Users that were used since the last change of generations, and those that were used in the one before.
#[derive(Debug, Default)]
struct Users {
    newer: HashMap<UserId, Known>,
    older: HashMap<UserId, Known>,
    /// The newest number of a source or of a read.
    numbers: u64,
}

impl Users {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Adds a user to the newer ones. If those are as many as half of all may be, the older ones are forgotten.
    fn put(&mut self, user: UserId, known: Known, half: usize) {
        if self.newer.len() >= half && !self.newer.contains_key(&user) {
            self.older = mem::take(&mut self.newer);
        }
        self.older.remove(&user);
        self.newer.insert(user, known);
    }
}

/// The nodes of users who were looked up lately.
#[derive(Debug)]
pub(super) struct KnownNodes {
    users: Mutex<Users>,
    /// Half of the maximum number of users.
    half: usize,
    count: IntGauge,
}

impl KnownNodes {
    /// Knows nobody yet, and at most `capacity` users later. Shows their number in `count`.
    pub(super) fn new(capacity: usize, count: IntGauge) -> Self {
        Self { users: Mutex::default(), half: capacity.div_ceil(2), count }
    }

    /// The number of a new connection whose server tells of changes.
    pub(super) fn new_source(&self) -> Source {
        Source(self.lock().number())
    }

    /// The nodes of a user, if they were read over this connection and it told of no change since. There may be a change that
    /// has not arrived yet.
    pub(super) fn get(&self, user: &UserId, source: Source) -> Option<Holders> {
        let mut users = self.lock();
        if let Some(known) = users.newer.get(user) {
            return known.read_over(source);
        }
        let found = users.older.get(user)?.read_over(source)?;
        users.put(user.clone(), Known::Read(source, found.clone()), self.half);
        Some(found)
    }

    /// Records that the nodes of these users are being read. Call it before the read is sent.
    pub(super) fn begin<'a>(&self, read: impl Iterator<Item = &'a UserId>) -> Reading {
        let mut users = self.lock();
        let reading = Reading(users.number());
        for user in read {
            users.put(user.clone(), Known::Awaited(reading), self.half);
        }
        self.show(&users);
        reading
    }

    /// Records the reply to a read over this connection, unless a change was told since the read began.
    pub(super) fn finish(&self, reading: Reading, source: Source, user: &UserId, holders: &Holders) {
        let mut users = self.lock();
        let Users { newer, older, .. } = &mut *users;
        for known in [newer, older].into_iter().filter_map(|generation| generation.get_mut(user)) {
            if matches!(known, Known::Awaited(other) if *other == reading) {
                *known = Known::Read(source, holders.clone());
            }
        }
    }

    /// Forgets a user whose entry changed.
    pub(super) fn forget(&self, user: &UserId) {
        let mut users = self.lock();
        users.newer.remove(user);
        users.older.remove(user);
        self.show(&users);
    }

    /// Forgets the users of whom `gone` is true.
    pub(super) fn forget_those(&self, gone: impl Fn(&UserId) -> bool) {
        let mut users = self.lock();
        users.newer.retain(|user, _| !gone(user));
        users.older.retain(|user, _| !gone(user));
        self.show(&users);
    }

    fn show(&self, users: &Users) {
        self.count.set(i64::try_from(users.newer.len() + users.older.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn read_over(&self, source: Source) -> Option<Holders> {
        match self {
            Self::Read(over, holders) if *over == source => Some(holders.clone()),
            Self::Read(..) | Self::Awaited(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(at: usize) -> UserId {
        UserId::parse(&format!("u{at}")).unwrap()
    }

    fn known(capacity: usize) -> (KnownNodes, IntGauge) {
        let count = IntGauge::new("count", "count").unwrap();
        (KnownNodes::new(capacity, count.clone()), count)
    }

    fn read(known: &KnownNodes, source: Source, at: usize, holders: &Holders) {
        let reading = known.begin([user(at)].iter());
        known.finish(reading, source, &user(at), holders);
    }

    #[test]
    fn the_field_of_an_entry_names_the_nodes() {
        let lines = |text: &str| Holders::parse(Some(&Lossy(text.to_owned())));
        let id = crate::model::ConnectionId::fresh();
        let nodes = |holders: Holders| holders.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let held = lines(&format!("{id} b#0123456789ab.00 7/native \n{id} a#00 8 room\n{id} b#11 9 \nspoiled\n"));
        assert!(held.connected);
        assert_eq!(nodes(held), "a b");
        assert!(lines("spoiled").connected && nodes(lines("spoiled")).is_empty());
        assert_eq!(Holders::parse(None), Holders::default());
    }

    #[test]
    fn a_reply_counts_unless_a_change_was_told_meanwhile() {
        let (known, count) = known(10);
        let (source, here) = (known.new_source(), Holders { connected: true, ..Holders::default() });
        read(&known, source, 1, &here);
        assert_eq!((known.get(&user(1), source), count.get()), (Some(here.clone()), 1));
        assert_eq!(known.get(&user(1), known.new_source()), None, "another connection does not tell of changes to it");
        known.forget(&user(1));
        assert_eq!((known.get(&user(1), source), count.get()), (None, 0));

        let reading = known.begin([user(1)].iter());
        assert_eq!(known.get(&user(1), source), None);
        known.forget(&user(1));
        known.finish(reading, source, &user(1), &here);
        assert_eq!(known.get(&user(1), source), None, "the change may be newer than the reply");

        let (older, newer) = (known.begin([user(2)].iter()), known.begin([user(2)].iter()));
        known.finish(newer, source, &user(2), &here);
        known.finish(older, source, &user(2), &Holders::default());
        assert_eq!(known.get(&user(2), source), Some(here.clone()), "the read that began last counts");
        read(&known, source, 3, &here);
        known.forget_those(|one| *one == user(3));
        assert_eq!((known.get(&user(3), source), known.get(&user(2), source)), (None, Some(here)));
    }

    #[test]
    fn users_have_a_maximum_number_and_those_in_use_stay() {
        let (known, count) = known(100);
        let (source, here) = (known.new_source(), Holders { connected: true, ..Holders::default() });
        for at in 0..1_000 {
            read(&known, source, at, &here);
            assert!(known.get(&user(0), source).is_some(), "it is used all the time");
            assert!(count.get() <= 100, "{}", count.get());
        }
        assert!(known.get(&user(1), source).is_none() && known.get(&user(999), source).is_some());
        let (few, _) = self::known(1);
        read(&few, few.new_source(), 1, &here);
    }
}

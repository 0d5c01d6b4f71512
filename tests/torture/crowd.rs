//! The running clients and hands of a run, and what they must have seen in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::task::JoinSet;

use crate::{
    client::{Client, ClientStatus, Role},
    cluster::{Cluster, Standing},
    evidence::Shown,
    hand::{Churned, Hand},
    history::{Dialect, Name, Recorder},
    orders::{Order, Orders, Phase},
    rest::Rest,
    run::until,
};

/// Number of users, of sockets' clients, and of users who work over REST besides.
pub const USERS: usize = 24;
pub const CLIENTS: usize = 36;
pub const HANDS: usize = 4;
/// Number of clients and hands.
pub const ALL: usize = CLIENTS + HANDS;
/// The dialects of the users' first clients, and of the second clients of the first twelve users. No user has two
/// clients of the direct dialect, because they share their delivered marks.
const FIRST: [Dialect; 8] = {
    use Dialect::{Conversation, Direct, Native, Personas, Rooms};
    [Native, Native, Native, Personas, Rooms, Conversation, Native, Direct]
};
const SECOND: [Dialect; 12] = {
    use Dialect::{Conversation, Direct, Native, Personas, Rooms};
    [Direct, Rooms, Conversation, Native, Native, Native, Personas, Native, Direct, Personas, Rooms, Conversation]
};
/// Users from this one on have one client, which retires.
const RETIRING: usize = 20;

/// User of a client or hand.
pub fn user(number: usize) -> Name {
    let number = number % ALL;
    let number = if number < CLIENTS { number % USERS } else { number - CLIENTS };
    format!("u{number:02}").into()
}

fn role(number: usize) -> Role {
    let slot = number % ALL;
    let dialect = if slot < USERS { FIRST[slot % FIRST.len()] } else { SECOND[slot - USERS] };
    Role { number, user: user(number), dialect, retires: (RETIRING..USERS).contains(&slot) }
}

/// The conversations that exist before the run.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Groups whose members stay, and direct conversations; each with its users.
    pub stable: Vec<(Name, Vec<Name>)>,
    /// One group for each of the first three hands, who made it and changes its members.
    pub churned: Vec<Churned>,
}

impl Scene {
    /// Makes a conversation of all users, three of a third of them, eight direct ones, and three whose members change.
    pub async fn make(cluster: &Cluster) -> Self {
        let all: Vec<Name> = (0..USERS).map(user).collect();
        let mut groups = vec![all.clone()];
        groups.extend((0..3).map(|part| all.iter().skip(part).step_by(3).cloned().collect()));
        groups.extend((0..8).map(|pair| vec![all[pair].clone(), all[23 - pair].clone()]));
        let mut stable = Vec::new();
        for group in groups {
            stable.push((cluster.conversation(&group).await, group));
        }
        let mut churned = Vec::new();
        for hand in 0..HANDS - 1 {
            let users: Vec<Name> = (0..12).map(|nth| user(3 + (hand + 2 * nth) % (RETIRING - 3))).collect();
            let users: BTreeSet<Name> = users.into_iter().collect();
            let members: Vec<Name> = [user(hand)].into_iter().chain(users.iter().step_by(2).cloned()).collect();
            let conversation = cluster.conversation(&members).await;
            let users = users.into_iter().enumerate().map(|(nth, user)| (user, nth % 2 == 0)).collect();
            churned.push(Churned { owner: user(hand), conversation, users });
        }
        Self { stable, churned }
    }

    /// Groups in which everybody stays.
    fn stable_groups(&self) -> impl Iterator<Item = &Name> {
        self.stable.iter().filter(|(_, users)| users.len() > 2).map(|(id, _)| id)
    }
}

/// The running clients and hands.
pub struct Crowd {
    pub orders: Orders,
    statuses: Vec<(Name, Arc<Mutex<ClientStatus>>)>,
    clients: JoinSet<()>,
    hands: JoinSet<Option<Churned>>,
}

impl Crowd {
    /// Starts clients and hands numbered from `first`.
    pub fn enter(first: usize, cluster: &Cluster, scene: &Scene, seed: u64, recorder: &Recorder) -> Self {
        let orders = Orders::new();
        let (mut statuses, mut clients, mut hands) = (Vec::new(), JoinSet::new(), JoinSet::new());
        for number in first..first + CLIENTS {
            let client = Client::new(role(number), cluster.addresses.clone(), seed, recorder.clone(), &orders);
            statuses.push((user(number), client.status()));
            clients.spawn(client.run());
        }
        for nth in 0..HANDS {
            let churned = scene.churned.iter().find(|churned| churned.owner == user(nth)).cloned();
            let number = first + CLIENTS + nth;
            let own = scene.stable.iter().filter(|(_, users)| users.contains(&user(nth))).map(|(id, _)| id.clone());
            let own = own.chain(churned.iter().map(|churned| churned.conversation.clone())).collect();
            let others = (HANDS..USERS).map(user).collect();
            let (rest, recorder) = (Rest::new(cluster.addresses.clone()), recorder.clone());
            hands.spawn(Hand::new((number, user(number)), (own, churned, others), rest, seed, recorder, &orders).run());
        }
        Self { orders, statuses, clients, hands }
    }

    /// Gives orders to pairs of users who have no direct conversation to write to each other, one after the other.
    pub async fn make_contacts(orders: Orders, seed: u64, apart: Duration) {
        let pairs = (0..USERS).flat_map(|one| (one + 1..USERS).map(move |other| (one, other)));
        let mut pairs: Vec<_> = pairs.filter(|(one, other)| one + other != 23).collect();
        pairs.shuffle(&mut StdRng::seed_from_u64(seed));
        for (one, other) in pairs {
            tokio::time::sleep(apart).await;
            if *orders.phase.borrow() != Phase::Busy {
                return;
            }
            orders.give(Order::Contact(user(one), user(other)));
        }
    }

    /// Lets all clients finish their operations and waits until they have and heard everything. Returns the present
    /// members of the groups that hands change.
    pub async fn settle(&mut self, cluster: &Cluster, limit: Duration) -> Vec<Churned> {
        self.orders.phase.send_replace(Phase::Quiet);
        let mut churned = Vec::new();
        while let Some(done) = self.hands.join_next().await {
            churned.extend(done.expect("a hand can work"));
        }
        until(limit, async || self.has_settled(&cluster.standings().await)).await;
        churned
    }

    /// True if every client has every entry, and no operation is under way.
    fn has_settled(&self, standings: &BTreeMap<Name, Standing>) -> bool {
        self.statuses.iter().all(|(user, status)| {
            let status = status.lock().unwrap();
            let settled = status.unsettled == 0 && (status.live || status.gone);
            settled && (status.gone || standings.iter().all(|(id, standing)| has_all(user, &status, id, standing)))
        })
    }

    /// Users with a socket, and the number of their sockets.
    pub fn live(&self) -> BTreeMap<Name, usize> {
        let mut live = BTreeMap::new();
        for (user, _) in self.statuses.iter().filter(|(_, status)| status.lock().unwrap().live) {
            *live.entry(user.clone()).or_default() += 1;
        }
        live
    }

    /// What sockets were last shown of others, with the truth.
    ///
    /// Sockets hear of those who come and go in the conversations to which they listen. So the whole list of online
    /// users is compared only for users with a client that listens to all of their conversations, which everybody
    /// hears of.
    pub fn shown(&self, scene: &Scene) -> Vec<Shown> {
        let statuses: Vec<_> = self.statuses.iter().map(|(user, one)| (user, one.lock().unwrap().clone())).collect();
        let many = |status: &ClientStatus| matches!(status.dialect, Dialect::Native | Dialect::Personas);
        let judged: BTreeSet<_> = statuses.iter().filter(|(_, status)| many(status)).map(|(user, _)| *user).collect();
        let live = || statuses.iter().filter(|(_, status)| status.live);
        let mut all = Vec::new();
        for (_, status) in live() {
            let places = scene.stable_groups().filter(|id| status.listening.contains(*id)).map(|id| &**id);
            for place in places.chain(many(status).then_some("online")) {
                let online = place == "online";
                let there = live().filter(|(_, other)| online || other.listening.contains(place));
                let judged = |user: &Name| !online || judged.contains(user);
                let truth = there.map(|(user, _)| (*user).clone()).filter(judged).collect();
                let seen = |wanted: bool| {
                    let here = status.shown.iter().filter(|((at, user), _)| at == place && judged(user));
                    here.filter(|(_, shown)| **shown == wanted).map(|((_, user), _)| user.clone()).collect()
                };
                let complete = status.dialect == Dialect::Conversation;
                let (session, place) = (status.session, place.to_owned());
                all.push(Shown { session, place, present: seen(true), absent: seen(false), complete, truth });
            }
        }
        all
    }

    pub async fn leave(self) {
        self.orders.phase.send_replace(Phase::Leaving);
        self.clients.join_all().await;
    }
}

/// True if a client has all of a conversation that it must have.
fn has_all(user: &Name, status: &ClientStatus, id: &Name, standing: &Standing) -> bool {
    if !standing.members.contains(user) {
        return true;
    }
    let has = status.has.get(id).copied().unwrap_or(0);
    let listens = status.listening.contains(id);
    match status.dialect {
        Dialect::Native => listens && has >= standing.head,
        Dialect::Direct => !standing.direct || has >= standing.last_message,
        // Frames of the others don't say that a membership ended.
        Dialect::Personas if standing.churned => true,
        Dialect::Rooms | Dialect::Conversation | Dialect::Personas => !listens || has >= standing.last_message,
    }
}

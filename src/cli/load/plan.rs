//! [`Plan`]: the target of a run, its connections, and the times of its messages.

use std::time::Duration;

use rand::RngExt;

use super::{super::server_url::ServerUrl, speech::Speech};

/// Maximum number of users of one room. One request of REST names at most as many.
const ROOM_MAX: u32 = 1_000;

/// A run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) target: ServerUrl,
    pub(super) speech: Speech,
    pub(super) users: u32,
    pub(super) rooms: u32,
    /// Messages per second in all rooms together.
    pub(super) rate: u32,
    /// Length of the measurement, in seconds.
    pub(super) seconds: u32,
    /// Length of the same load before it, in seconds.
    pub(super) warm_up: u32,
    /// Connects per second.
    pub(super) connects: u32,
    /// Length of a message's text, in bytes.
    pub(super) bytes: u32,
    pub(super) arrivals: Arrivals,
}

/// The times within a second at which messages are due.
#[derive(Debug)]
pub(super) enum Arrivals {
    /// With the same pause between any two.
    Even,
    /// Each at a random time, as senders who don't know of each other write. The times, in order, are those of every second.
    Random(Vec<Duration>),
}

impl Arrivals {
    /// The names of all.
    pub(super) const NAMES: [&'static str; 2] = ["even", "random"];

    /// The arrivals of this name, of `rate` messages a second.
    pub(super) fn of(name: &str, rate: u32) -> Self {
        if name != Self::NAMES[1] {
            return Self::Even;
        }
        let mut random = rand::rng();
        let mut times: Vec<_> = (0..rate).map(|_| Duration::from_secs_f64(random.random_range(0.0..1.0))).collect();
        times.sort_unstable();
        Self::Random(times)
    }
}

impl Plan {
    /// Checks what no single option can know. `tokens` is the number of tokens, unless they are minted.
    ///
    /// # Errors
    /// The message for the user.
    pub(super) fn check(&self, tokens: Option<usize>) -> Result<(), String> {
        let Self { users, rooms, .. } = *self;
        if rooms > users {
            return Err(format!("--rooms {rooms} are more than --users {users}: every room needs a user"));
        }
        if users.div_ceil(rooms) > ROOM_MAX {
            return Err(format!(
                "a room has at most {ROOM_MAX} users: use --rooms {} or more",
                users.div_ceil(ROOM_MAX)
            ));
        }
        match tokens {
            Some(tokens) if tokens < users as usize => {
                Err(format!("the file of --tokens has {tokens} tokens: use --users {tokens} or fewer"))
            }
            _ => Ok(()),
        }
    }

    /// The room of a user. The first users of all rooms come first.
    pub(super) fn room_of(&self, user: u32) -> u32 {
        user % self.rooms
    }

    /// The users of a room.
    pub(super) fn users_of(&self, room: u32) -> impl Iterator<Item = u32> + use<> {
        (room..self.users).step_by(self.rooms as usize)
    }

    /// Number of messages of the run, warm-up included.
    pub(super) fn messages(&self) -> u64 {
        u64::from(self.rate) * u64::from(self.warm_up + self.seconds)
    }

    /// True if a message is part of the measurement.
    pub(super) fn is_measured(&self, message: u64) -> bool {
        message >= u64::from(self.rate) * u64::from(self.warm_up)
    }

    /// Time from the begin of the load until a message is due.
    pub(super) fn due(&self, message: u64) -> Duration {
        let rate = u64::from(self.rate.max(1));
        match &self.arrivals {
            Arrivals::Even => Duration::from_secs_f64(message as f64 / rate as f64),
            Arrivals::Random(times) => {
                let within = times.get((message % rate) as usize).copied().unwrap_or_default();
                Duration::from_secs(message / rate) + within
            }
        }
    }

    /// The sender of a message: the rooms take turns, and the users in each.
    pub(super) fn sender_of(&self, message: u64) -> u32 {
        let (rooms, users) = (u64::from(self.rooms), u64::from(self.users));
        let room = message % rooms;
        let members = (users - room).div_ceil(rooms);
        u32::try_from(room + (message / rooms) % members * rooms).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(users: u32, rooms: u32) -> Plan {
        let target = ServerUrl::parse("ws://localhost:1").unwrap();
        let speech = Speech::of("native").unwrap();
        let arrivals = Arrivals::of("even", 10);
        Plan { target, speech, users, rooms, rate: 10, seconds: 3, warm_up: 2, connects: 1, bytes: 100, arrivals }
    }

    #[test]
    fn every_user_is_in_one_room_and_sends_in_turn() {
        let plan = plan(10, 4);
        for room in 0..4 {
            assert!(plan.users_of(room).all(|user| plan.room_of(user) == room));
        }
        assert_eq!((0..4).map(|room| plan.users_of(room).count()).sum::<usize>(), 10);
        let mut senders: Vec<u32> = (0..12).map(|message| plan.sender_of(message)).collect();
        assert_eq!(senders[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "the third round of the smaller rooms begins anew");
        assert_eq!(senders.split_off(10), [2, 3]);
        assert!((0..100).all(|message| plan.room_of(plan.sender_of(message)) == (message % 4) as u32));
    }

    #[test]
    fn messages_are_due_at_their_rate() {
        let plan = plan(1, 1);
        assert_eq!((plan.messages(), plan.due(20)), (50, Duration::from_secs(2)));
        assert!(!plan.is_measured(19) && plan.is_measured(20));
    }

    #[test]
    fn random_arrivals_come_in_order_and_as_many_in_each_second() {
        let plan = Plan { arrivals: Arrivals::of("random", 10), ..plan(1, 1) };
        let due: Vec<_> = (0..plan.messages()).map(|message| plan.due(message)).collect();
        assert!(due.is_sorted());
        for second in 0..5 {
            assert_eq!(due.iter().filter(|due| due.as_secs() == second).count(), 10);
        }
        let pauses: std::collections::BTreeSet<_> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.len() > 5, "{pauses:?}");
    }

    #[test]
    fn what_does_not_fit_has_a_remedy() {
        assert!(plan(10, 4).check(None).is_ok());
        assert!(plan(3, 4).check(None).unwrap_err().contains("--rooms 4 are more than --users 3"));
        assert!(plan(5_000, 2).check(None).unwrap_err().contains("use --rooms 5 or more"));
        assert!(plan(10, 4).check(Some(9)).unwrap_err().contains("use --users 9 or fewer"));
    }
}

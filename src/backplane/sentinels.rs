//! Finds the primary by asking all sentinels, all at the same time: each second, and at once when one of them tells of a
//! change. A sentinel that is dead or frozen delays no other.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    belief::{Belief, Vote},
    connector::{Connector, Place},
    fault,
    link_error::LinkError,
    route::Route,
    sentinel::{self, Answer},
};
use crate::{
    config::{HostPort, SentinelServers},
    degrade::{Degrade, Fault, Finding, Part},
    metrics::Metrics,
};

/// Interval between two questions to a sentinel, varied by a fifth.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Maximum time for one round of questions.
const ROUND: Duration = Duration::from_secs(3);

/// The sentinels of a primary.
pub(super) struct Sentinels {
    connector: Connector,
    addresses: Vec<HostPort>,
    master: String,
    state: Mutex<State>,
    /// Raised to ask all of them now.
    ask_now: watch::Sender<u64>,
}

struct State {
    /// The last answer of each; `None` before the first one.
    answers: Vec<Option<Answer>>,
    belief: Belief,
}

/// Where the sentinels tell what they find.
pub(super) struct Reports<'a> {
    /// The route to the primary.
    pub(super) route: &'a watch::Sender<Route>,
    /// For the warning that sentinels are away.
    pub(super) degrade: &'a Degrade,
    /// For their numbers.
    pub(super) metrics: &'a Metrics,
}

impl Sentinels {
    /// The sentinels of `config`. Makes no connection.
    pub(super) fn new(config: &SentinelServers, connector: Connector) -> Self {
        let state = State { answers: vec![None; config.addresses.len()], belief: Belief::default() };
        let (addresses, master) = (config.addresses.clone(), config.master.clone());
        Self { connector, addresses, master, state: Mutex::new(state), ask_now: watch::Sender::new(0) }
    }

    /// Number of sentinels that answer and know the primary, and of all.
    pub(super) fn count(&self) -> (usize, usize) {
        let state = self.state();
        let answers = state.answers.iter().flatten().filter(|answer| matches!(answer, Answer::Primary(..)));
        (answers.count(), state.answers.len())
    }

    /// Asks all of them until the task is stopped.
    pub(super) async fn run(&self, reports: &Reports<'_>) {
        reports.metrics.redis_sentinels.set(i64::try_from(self.addresses.len()).unwrap_or(i64::MAX));
        join_all((0..self.addresses.len()).map(|index| self.follow(index, reports))).await;
    }

    /// Asks one sentinel again and again, and connects anew when its connection breaks.
    async fn follow(&self, index: usize, reports: &Reports<'_>) {
        let mut changes = self.ask_now.subscribe();
        loop {
            let place = Place::Host(self.addresses[index].clone());
            let error = match sentinel::connect(&self.connector, &place, self.ask_now.clone()).await {
                Ok(mut connection) => loop {
                    changes.mark_unchanged();
                    match sentinel::ask(&mut connection, &self.master).await {
                        Ok(answer) => self.record(index, answer, reports),
                        Err(error) => break error,
                    }
                    pause(&mut changes).await;
                },
                Err(error) => error,
            };
            self.record(index, Answer::Failed(fault::link_finding(&error)), reports);
            pause(&mut changes).await;
        }
    }

    /// Asks all of them once, for at most [`ROUND`]. With `hurry`, it waits for no more answers once an address is believed.
    pub(super) async fn ask_once(&self, hurry: bool) -> Option<HostPort> {
        let ask = async |index: usize| {
            let place = Place::Host(self.addresses[index].clone());
            let mut connection = sentinel::connect(&self.connector, &place, self.ask_now.clone()).await?;
            sentinel::ask(&mut connection, &self.master).await
        };
        let bounded = async |index| {
            let answer = timeout(ROUND, ask(index)).await.unwrap_or(Err(LinkError::Timeout));
            (index, answer.unwrap_or_else(|error| Answer::Failed(fault::link_finding(&error))))
        };
        let mut asked: FuturesUnordered<_> = (0..self.addresses.len()).map(bounded).collect();
        let mut found = None;
        while let Some((index, answer)) = asked.next().await {
            let mut state = self.state();
            state.answers[index] = Some(answer);
            found = state.decide().cloned();
            if hurry && found.is_some() {
                break;
            }
        }
        found
    }

    /// Records an answer, and reports what follows from it.
    fn record(&self, index: usize, answer: Answer, reports: &Reports<'_>) {
        let found = {
            let mut state = self.state();
            if state.answers[index].as_ref() != Some(&answer) {
                tracing::debug!(sentinel = %self.addresses[index], ?answer, "a sentinel answers otherwise");
            }
            state.answers[index] = Some(answer);
            state.decide().cloned()
        };
        if let Some(address) = found {
            let place = Place::Host(address);
            let before = reports.route.borrow().place.clone();
            if before.as_ref() != Some(&place) {
                self.tell_change(before.as_ref(), &place, reports.metrics);
                reports.route.send_modify(|route| route.change(place));
            }
        }
        let (answering, _) = self.count();
        reports.metrics.redis_sentinels_answering.set(i64::try_from(answering).unwrap_or(i64::MAX));
        reports.degrade.note_warning(Part::Redis, Fault::RedisSentinelsAway, self.away());
    }

    fn tell_change(&self, before: Option<&Place>, place: &Place, metrics: &Metrics) {
        let (answering, listed) = self.count();
        metrics.redis_primary.reset();
        metrics.redis_primary.with_label_values(&[&place.to_string()]).set(1);
        match before {
            None => tracing::info!(primary = %place, answering, listed, "the sentinels name the primary of Redis"),
            Some(former) => {
                metrics.redis_primary_changes.inc();
                tracing::warn!(primary = %place, %former, answering, listed, "the primary of Redis changed");
            }
        }
    }

    /// The warning if so few sentinels answer that they could not agree on a failover; `None` before all were asked.
    pub(super) fn away(&self) -> Option<Finding> {
        let state = self.state();
        let asked = state.answers.iter().all(Option::is_some);
        let missing: Vec<_> = self
            .addresses
            .iter()
            .zip(&state.answers)
            .filter_map(|(address, answer)| match answer {
                Some(Answer::Failed(finding)) => Some(format!("{address}: {}", finding.detail)),
                Some(Answer::NoSentinel) => Some(format!("{address}: it is no sentinel")),
                Some(Answer::UnknownName(_)) => Some(format!("{address}: it does not know {}", self.master)),
                Some(Answer::Primary(..)) | None => None,
            })
            .collect();
        let (all, left) = (self.addresses.len(), self.addresses.len() - missing.len());
        let detail = || {
            format!(
                "{left} of {all} sentinels name the primary, too few to agree on another one: {}",
                missing.join("; ")
            )
        };
        (asked && left * 2 <= all).then(|| Finding::new(Fault::RedisSentinelsAway, detail()))
    }

    /// Why no primary is known.
    pub(super) fn unfound(&self) -> Finding {
        let state = self.state();
        if let Some(wrong) = self.wrong_form(&state.answers, 1) {
            return wrong;
        }
        let failures = self.addresses.iter().zip(&state.answers).filter_map(|(address, answer)| match answer {
            Some(Answer::Failed(finding)) => Some((address, finding)),
            _ => None,
        });
        let list: Vec<_> =
            failures.clone().map(|(address, finding)| format!("{address}: {}", finding.detail)).collect();
        let denied = failures.clone().any(|(_, finding)| finding.fault == Fault::RedisDeniesAccess);
        let fault = if denied { Fault::RedisDeniesAccess } else { Fault::RedisUnreachable };
        match list.is_empty() {
            true => Finding::new(fault, "no sentinel has answered yet"),
            false => Finding::new(fault, format!("no sentinel names the primary: {}", list.join("; "))),
        }
    }

    /// The finding if the addresses lead to no sentinels, or to sentinels that don't know the name: no sentinel knows it, and
    /// most of the listed ones say so.
    pub(super) fn misfit(&self) -> Option<Finding> {
        let state = self.state();
        self.wrong_form(&state.answers, self.addresses.len() / 2 + 1)
    }

    /// The finding if no sentinel knows the name, and at least `least` of the servers say so.
    fn wrong_form(&self, answers: &[Option<Answer>], least: usize) -> Option<Finding> {
        let (mut others, mut strangers, mut known) = (Vec::new(), 0, Vec::new());
        for (address, answer) in self.addresses.iter().zip(answers) {
            match answer {
                Some(Answer::Primary(..)) => return None,
                Some(Answer::NoSentinel) => others.push(address.to_string()),
                Some(Answer::UnknownName(names)) => {
                    strangers += 1;
                    known.extend(names.iter().cloned());
                }
                Some(Answer::Failed(_)) | None => {}
            }
        }
        if strangers + others.len() < least || strangers + others.len() == 0 {
            return None;
        }
        known.sort();
        known.dedup();
        Some(if strangers == 0 {
            let why = format!(
                "{} is no sentinel but a Redis server: for one server write redis://host:port, or name its sentinels, whose \
                 port is often 26379",
                others.join(", ")
            );
            Finding::new(Fault::RedisIsNoSentinel, why)
        } else {
            let names = if known.is_empty() { "no name".to_owned() } else { known.join(", ") };
            let why = format!(
                "the sentinels don't know the name {}; they know {names}: correct sentinel_master_name",
                self.master
            );
            Finding::new(Fault::RedisUnknownPrimary, why)
        })
    }

    /// The sentinels in words, for an operator.
    pub(super) fn in_words(&self) -> String {
        let (answering, listed) = self.count();
        format!("the primary of {}, {answering} of {listed} sentinels answer", self.master)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The address to use.
    fn decide(&mut self) -> Option<&HostPort> {
        let vote = |answer: &Option<Answer>| match answer {
            None => Vote::Awaited,
            Some(Answer::Primary(address, epoch)) => Vote::Address(address.clone(), *epoch),
            Some(_) => Vote::None,
        };
        let votes: Vec<_> = self.answers.iter().map(vote).collect();
        self.belief.weigh(&votes, Instant::now())
    }
}

/// Waits until the next question, or until a sentinel tells of a change.
async fn pause(changes: &mut watch::Receiver<u64>) {
    tokio::select! {
        () = sleep(ASK_EVERY.mul_f64(rand::random_range(0.8..1.2))) => {}
        // The sender lives as long as the sentinels.
        _ = changes.changed() => {}
    }
}

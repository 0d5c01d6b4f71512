//! A client's operations and joins: what it sends, and what it does about the answers.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, seq::IndexedRandom};
use serde_json::json;
use tokio::time::sleep;

use super::{Beside, Client};
use crate::{
    history::{Delivered, Dialect, Kind, Name, Session, What},
    operations::{Conversation, Operation, To},
    rest::Outcome,
    socket::Socket,
    wire::{self, Heard},
};

/// Time after which an operation without an answer is finished over REST.
const OVERDUE: Duration = Duration::from_secs(8);

impl Client {
    /// Does one thing: retries an operation, begins a new one, or types.
    pub(super) async fn act(&mut self, socket: &mut Socket, anything_new: bool) -> Result<(), String> {
        if let Some(operation) = self.operations.waiting() {
            return self.send(operation, socket).await;
        }
        if !anything_new {
            return Ok(());
        }
        let here = self.writable();
        if self.rng.random_range(0..6) == 0 {
            let typing = here.choose(&mut self.rng).map(|one| one.id.clone());
            let active = self.rng.random();
            return match typing.and_then(|id| wire::typing(self.role.dialect, &id, active)) {
                Some(frame) => socket.send(&frame).await,
                None => Ok(()),
            };
        }
        match self.operations.random(&mut self.rng, self.role.dialect, &here) {
            Some(operation) => self.send(operation, socket).await,
            None => Ok(()),
        }
    }

    /// Conversations in which this socket can write and hears its own messages or gets acks.
    fn writable(&self) -> Vec<Conversation> {
        let can = |one: &&Conversation| match self.role.dialect {
            Dialect::Direct => one.other.is_some(),
            _ => self.ear.listening.contains(&one.id),
        };
        self.conversations.iter().filter(can).cloned().collect()
    }

    /// Sends an operation over the socket, or over REST if the socket can't carry it.
    pub(super) async fn send(&mut self, operation: Operation, socket: &mut Socket) -> Result<(), String> {
        let heard = match &operation.to {
            To::Conversation(id) => !self.role.dialect.echoes() || self.ear.listening.contains(id),
            To::User(_) => true,
        };
        let Some(frame) = wire::operation(self.role.dialect, &operation).filter(|_| heard) else {
            self.finish(operation);
            return Ok(());
        };
        if operation.outcome_unknown {
            self.ear.repeated.insert(operation.id.clone());
        }
        self.ear.record(invoked(&operation));
        self.operations.begin(operation);
        socket.send(&frame).await
    }

    /// Starts a try of an operation over REST.
    pub(super) fn finish(&mut self, operation: Operation) {
        let node = self.rng.random_range(0..self.addresses.len());
        self.ear.recorder.record(Some(self.beside_session()), invoked(&operation));
        let (rest, user) = (self.rest.clone(), self.role.user.clone());
        self.finishing += 1;
        self.beside.spawn(async move {
            let outcome = rest.operation(node, &user, &operation).await;
            if !matches!(outcome, Outcome::Done { .. }) {
                sleep(Duration::from_millis(200)).await;
            }
            Beside::Finished(operation, outcome)
        });
    }

    /// Finishes over REST what got no answer on the socket: the client may no longer hear the broadcast that acks it.
    pub(super) fn finish_overdue(&mut self) {
        if self.role.dialect == Dialect::Native {
            return;
        }
        for operation in self.operations.overdue(OVERDUE) {
            self.ear.record(What::Unknown { id: operation.id.clone() });
            self.finish(operation);
        }
    }

    /// Finishes all operations over REST, without a connection.
    pub(super) async fn finish_all(&mut self) {
        while let Some(operation) = self.operations.waiting() {
            self.finish(operation);
        }
        while let Some(Ok(result)) = self.beside.join_next().await {
            if let Beside::Finished(operation, outcome) = result {
                self.finished(operation, outcome);
            }
        }
    }

    /// Requests over REST belong to no connection.
    fn beside_session(&self) -> Session {
        Session { number: 0, ..self.ear.session }
    }

    pub(super) async fn handle_beside(&mut self, result: Beside, socket: &mut Socket) -> Result<(), String> {
        match result {
            Beside::Finished(operation, outcome) => {
                self.finished(operation, outcome);
                Ok(())
            }
            Beside::Listed(Some(conversations)) => {
                self.conversations = conversations;
                self.unlisted = false;
                self.join_all(socket).await
            }
            Beside::Listed(None) => {
                self.list(Duration::from_millis(300));
                Ok(())
            }
        }
    }

    fn finished(&mut self, operation: Operation, outcome: Outcome) {
        self.finishing -= 1;
        let (session, id) = (Some(self.beside_session()), operation.id.clone());
        let what = match outcome {
            Outcome::Done { body, .. } => match (body["conversation_id"].as_str(), body["seq"].as_i64()) {
                // Tries over the socket may be answered later, so the order of acks says nothing here.
                (Some(of), Some(seq)) => What::Ok { conversation: of.into(), id, seq, duplicate: true },
                _ => What::Done { id },
            },
            Outcome::Refused { code, retryable } => {
                if retryable {
                    self.operations.again(operation);
                }
                What::Fail { id, code, last: !retryable }
            }
            Outcome::Unknown => {
                self.operations.again(Operation { outcome_unknown: true, ..operation });
                What::Unknown { id }
            }
        };
        self.ear.recorder.record(session, what);
    }

    /// Starts to list the user's conversations, if the socket joins any.
    pub(super) fn list(&mut self, after: Duration) {
        if self.role.dialect.is_bound() {
            return;
        }
        let (rest, node, user) = (self.rest.clone(), self.node, self.role.user.clone());
        self.beside.spawn(async move {
            sleep(after).await;
            Beside::Listed(rest.conversations(node, &user).await)
        });
    }

    /// Joins all conversations to which the socket does not listen: in one frame or in many, from the seq that the
    /// client has, or from now.
    async fn join_all(&mut self, socket: &mut Socket) -> Result<(), String> {
        if self.role.dialect == Dialect::Direct {
            return Ok(());
        }
        let knows = |one: &&Conversation| !self.ear.listening.contains(&one.id) && !self.ear.awaits_join(&one.id);
        let missing = self.conversations.iter().filter(knows);
        let missing: Vec<Name> = missing.map(|one| one.id.clone()).collect();
        let joins: Vec<_> = missing.into_iter().map(|id| (self.since(&id), id)).collect();
        let cursors: BTreeMap<_, _> = joins.iter().filter_map(|(since, id)| Some((id.clone(), (*since)?))).collect();
        joins.iter().for_each(|(since, id)| self.ear.asked_to_join(id, *since));
        if self.role.dialect == Dialect::Native && cursors.len() == joins.len() && self.rng.random() {
            return socket
                .send(&json!({ "type": "sync", "conversations": cursors, "roster": true, "ref": "sync" }))
                .await;
        }
        for (since, id) in joins {
            socket.send(&wire::join(self.role.dialect, &id, since)).await?;
        }
        Ok(())
    }

    pub(super) fn handle_frame(&mut self, frame: &serde_json::Value) {
        for heard in self.ear.hear(frame) {
            match heard {
                Heard::Acked { id, conversation, seq, duplicate } => self.acked(&id, conversation, seq, duplicate),
                Heard::Unchanged { id } => self.unchanged(&id),
                Heard::Refused { id, code } => self.refused(&id, code),
                Heard::Entry { conversation, entry } => self.delivered(conversation, &entry),
                Heard::Joined { conversation, by_itself: true, .. } => self.knows(conversation),
                Heard::Left { conversation } => self.conversations.retain(|one| one.id != conversation),
                Heard::JoinRefused { code, .. } if code != "not_member" => self.list(Duration::from_millis(500)),
                _ => {}
            }
        }
    }

    /// Adds a conversation that the socket joined by itself.
    fn knows(&mut self, id: Name) {
        if self.conversations.iter().all(|one| one.id != id) {
            self.conversations.push(Conversation { id, other: None });
        }
    }

    fn acked(&mut self, id: &str, conversation: Name, seq: i64, duplicate: bool) {
        let Some(operation) = self.operations.acked(id, &conversation, seq) else { return };
        // Only the native dialect says whether an earlier try had been stored.
        let duplicate = duplicate || (self.role.dialect != Dialect::Native && operation.outcome_unknown);
        self.ear.record(What::Ok { conversation, id: id.into(), seq, duplicate });
    }

    fn unchanged(&mut self, id: &str) {
        if self.operations.unchanged(id) {
            self.ear.record(What::Done { id: id.into() });
        }
    }

    fn refused(&mut self, id: &str, code: String) {
        if !self.operations.is_under_way(id) {
            return;
        }
        if code == "unknown" {
            self.operations.outcome_unknown(id);
            self.ear.record(What::Unknown { id: id.into() });
        } else {
            let may_pass = matches!(&*code, "unavailable" | "rate_limited");
            let last = self.operations.failed(id, may_pass, &mut self.rng);
            self.ear.record(What::Fail { id: id.into(), code, last });
        }
    }

    fn delivered(&mut self, conversation: Name, entry: &Delivered) {
        if entry.kind == Kind::Message {
            self.operations.seen(&conversation, entry.seq);
        }
        // The broadcast of a message is the ack for its sender.
        if let Some(id) = entry.id.as_ref().filter(|_| self.role.dialect.echoes() && entry.sender == self.role.user) {
            self.acked(id, conversation, entry.seq, false);
        }
    }

    pub(super) fn publish_status(&self, live: bool) {
        let mut status = self.status.lock().unwrap();
        status.session = self.ear.session;
        status.live = live;
        status.gone = self.gone;
        status.unsettled = self.operations.unsettled() + self.finishing;
        status.has = self.ear.progress();
        status.listening.clone_from(&self.ear.listening);
        status.shown.clone_from(&self.ear.shown);
    }
}

fn invoked(operation: &Operation) -> What {
    let (conversation, id, about) = (operation.to.label(), operation.id.clone(), operation.about.clone());
    What::Invoke { conversation, id, kind: operation.kind, about }
}

//! Switchboard, a connection broker for real-time chat.
//!
//! To read it, follow a message: [`listener`] accepts a socket, [`http`] answers the handshake, [`session`] reads
//! frames, and [`dialect`] decodes them into commands. [`chat`] executes a command: it checks the sender's limits in
//! the [`backplane`], appends the entry to the [`store`], and passes the stored entry to the [`hub`], which puts
//! entries in order and writes them to each [`outbox`]. The backplane publishes the entry to other nodes, whose hubs
//! backfill lost entries by seq.
//!
//! Three invariants hold everywhere: an ack means that the store has the entry; a log's entries go out strictly +1;
//! every queue is bounded. `ARCHITECTURE.md` has the code map, all invariants, and three walks.

pub mod admission;
pub mod advice;
pub mod app;
pub mod auth;
pub mod backplane;
pub mod broker;
pub mod chat;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod degrade;
pub mod dialect;
#[cfg(feature = "faults")]
pub mod faults;
pub mod http;
pub mod hub;
pub mod listener;
pub mod metrics;
pub mod model;
pub mod outbox;
pub mod restrictions;
pub mod session;
pub mod store;
pub mod supervise;
pub mod tail;
pub mod webhook;

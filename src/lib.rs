//! Switchboard, a connection broker for real-time chat.
//!
//! To read it, follow a message: [`listener`] accepts a socket, [`http`] answers the handshake, [`session`] reads frames,
//! [`dialect`] makes commands of them, [`chat`] carries those out: it asks the [`backplane`] whether the sender may, has
//! the [`store`] append the entry, and hands what was stored to the [`hub`], which puts it in order and writes it to each
//! [`outbox`]. Other nodes hear of it through the backplane, and their hubs heal by seq what was lost on the way.
//!
//! Three things hold everywhere: an ack means that the store has it; a log's entries go out strictly +1; nothing is
//! unbounded. `ARCHITECTURE.md` has the rest: the map, every invariant, and three walks.

pub mod admission;
pub mod app;
pub mod auth;
pub mod backplane;
pub mod broker;
pub mod chat;
pub mod cli;
pub mod config;
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
pub mod session;
pub mod store;
pub mod webhook;

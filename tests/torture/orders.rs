//! Phases and orders that the run gives to all clients.

use std::time::Duration;

use tokio::sync::{broadcast, watch};

use crate::history::Name;

/// Phase of all clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// They send new operations.
    Busy,
    /// They only finish operations under way.
    Quiet,
    /// They leave.
    Leaving,
}

/// An order that the clients concerned carry out: one in three, if nothing else is said.
#[derive(Debug, Clone)]
pub enum Order {
    Cut,
    Move,
    Stall(Duration),
    /// Go away for a time.
    Away(Duration),
    /// Both users write to each other, each with all of their clients that can.
    Contact(Name, Name),
    /// The clients that retire leave for good.
    Retire,
}

/// Channels that carry phases and orders to the clients.
#[derive(Debug, Clone)]
pub struct Orders {
    pub phase: watch::Sender<Phase>,
    orders: broadcast::Sender<Order>,
}

impl Orders {
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Busy), orders: broadcast::Sender::new(256) }
    }

    pub fn give(&self, order: Order) {
        let _nobody_there = self.orders.send(order);
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Order> {
        self.orders.subscribe()
    }
}

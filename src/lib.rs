//! Switchboard, a connection broker for real-time chat.

pub mod app;
pub mod auth;
pub mod backplane;
pub mod chat;
pub mod cli;
pub mod config;
pub mod degrade;
pub mod dialect;
pub mod http;
pub mod hub;
pub mod listener;
pub mod metrics;
pub mod model;
pub mod outbox;
pub mod session;
pub mod store;

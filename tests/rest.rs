//! REST on a real node with Redis and PostgreSQL: what each endpoint does, and what it refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]
#![allow(unreachable_pub, reason = "parts of one test crate")]

mod support;

#[path = "rest/conversations.rs"]
mod conversations;
#[path = "rest/cors.rs"]
mod cors;
#[path = "rest/document.rs"]
mod document;
#[path = "rest/faces.rs"]
mod faces;
#[path = "rest/messages.rs"]
mod messages;
#[path = "rest/node.rs"]
mod node;
#[path = "rest/openapi.rs"]
mod openapi;
#[path = "rest/presence.rs"]
mod presence;
#[path = "rest/refusals.rs"]
mod refusals;

//! REST on a real node with Redis and PostgreSQL: what each endpoint does, and what it refuses.

mod conversations;
mod cors;
mod document;
mod faces;
mod messages;
mod node;
mod openapi;
mod presence;
mod refusals;

//! REST on real nodes with Redis and PostgreSQL: results and refusals of each endpoint.

mod blocks;
mod conversations;
mod cors;
pub mod document;
mod faces;
mod generated;
mod generators;
mod messages;
mod node;
mod openapi;
mod presence;
mod refusals;

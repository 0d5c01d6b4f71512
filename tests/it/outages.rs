//! Redis, PostgreSQL and nodes die under people who chat: nothing acked is lost, doubled or out of order.
//!
//! `scene` has the people and what they see, `ear` a link that loses answers; then one module for each thing that dies.

mod ear;
mod embedded;
mod load;
mod nodes;
mod postgres_faults;
mod redis_faults;
mod scene;

//! Redis, PostgreSQL and nodes fail while users chat: no acked message is lost, doubled or out of order.
//!
//! `scene` has the users and checks of what they receive, `answer_blocker` a proxy that loses answers; then one module
//! for each part that fails.

mod answer_blocker;
mod embedded;
mod load;
mod nodes;
mod postgres_faults;
mod redis_faults;
mod scene;

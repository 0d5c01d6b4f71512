//! The backplane against real Redis servers; each test has its own.

mod bus;
mod clocks;
mod cluster;
mod deployments;
mod faults;
mod known;
mod limit;
mod node;
mod presence;
mod redis_server;
mod renewal;
mod scrub;
mod silence;
mod trust;

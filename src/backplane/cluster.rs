//! Redis Cluster: which master has which slot ([`topology`]), who is asked for it ([`discovery`]), who answers ([`masters`], [`standing`], [`revival`]), and how a pipeline reaches the
//! masters of its keys ([`router`]). The rest of the backplane sees one [`Connection`](super::connection::Connection).

mod discovery;
mod masters;
mod revival;
mod router;
mod standing;
mod topology;

pub(super) use discovery::Cluster;
pub(super) use revival::revive;
pub(super) use router::Router;
#[cfg(test)]
pub(super) use topology::slot;

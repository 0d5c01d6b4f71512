//! The addresses that a node listens on.

use std::net::SocketAddr;

use super::{
    parse, settings as set,
    source::{ConfigFaults, Reader, Sources},
};

/// The address at which a node with these settings on this machine answers `/livez`.
///
/// # Errors
/// As [`Config::load`](super::Config::load).
pub fn health_address(dev: bool, sources: &Sources) -> Result<SocketAddr, ConfigFaults> {
    let mut reader = Reader::new(sources, dev);
    let (listen, admin) = read_addresses(&mut reader);
    let address = admin.or_else(|| listen.first().copied());
    reader.finish(address)
}

/// Reads the addresses for clients and the one for admins.
pub(super) fn read_addresses(reader: &mut Reader<'_>) -> (Vec<SocketAddr>, Option<SocketAddr>) {
    let listen = reader.read(&set::LISTEN, parse::addresses).unwrap_or_default();
    let admin = reader.read(&set::ADMIN_LISTEN, |text| match text {
        "off" => Ok(None),
        text => parse::address(text).map(Some),
    });
    let admin = admin.flatten();
    if reader.dev {
        let is_remote = |address: &SocketAddr| !address.ip().is_loopback();
        let message =
            "must be a loopback address under dev, which prints its tokens; use serve to listen on other addresses";
        if listen.iter().any(is_remote) {
            reader.fault(set::LISTEN.name, message);
        }
        if admin.iter().any(is_remote) {
            reader.fault(set::ADMIN_LISTEN.name, message);
        }
    }
    if admin.is_some_and(|admin| admin.port() != 0 && listen.contains(&admin)) {
        reader.fault(set::ADMIN_LISTEN.name, "is the same address as LISTEN");
    }
    (listen, admin)
}

//! What the tests of this module share.

use crate::config::Limits;

/// Limits that limit nothing.
pub(super) fn limits() -> Limits {
    Limits {
        connections: 1_000,
        connections_per_user: 5,
        sockets_per_user: 100,
        connections_per_ip: 0,
        handshakes_per_second: 0,
        frames_per_second: 1_000,
        frame_bytes: 65_536,
        fragments: 64,
        outbox_bytes: 1 << 20,
        conversations_per_connection: 500,
        commands_in_flight: 64,
        resume_max: 10_000,
        messages_per_minute: 10,
        messages_per_minute_by_tier: Vec::new(),
    }
}

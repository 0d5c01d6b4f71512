//! Reads the limits of a node, and shares out its files.

use super::{
    parse,
    settings::{self as set, Setting},
    source::Reader,
    values::{Limits, RateLimit},
};

/// Sockets of the admin listener, and as many client sockets that are refused or request health.
const PROBE_SOCKETS: usize = 64;

/// Reads the limits. `other_files` is the number of files that the node opens besides client sockets.
pub(super) fn read_limits(reader: &mut Reader<'_>, notes: &mut Vec<String>, other_files: usize) -> Limits {
    let wanted: usize = reader.number(&set::MAX_CONNECTIONS);
    let share = |files| share_files(files, other_files);
    let (most, probe_sockets) = reader.sources.open_files.map_or((usize::MAX, PROBE_SOCKETS), share);
    let unauthenticated = reader.number::<usize>(&set::MAX_UNAUTHENTICATED).min((most / 8).max(1));
    let connections = wanted.min(most.saturating_sub(unauthenticated).max(1));
    // Dev serves few clients, so the note would only distract.
    if connections < wanted && !reader.dev {
        notes.push(format!(
            "at most {connections} connections instead of {wanted}: the limit of open files (ulimit -n) allows no more"
        ));
    }
    Limits {
        connections,
        probe_sockets,
        unauthenticated,
        unauthenticated_per_ip: reader.number(&set::MAX_UNAUTHENTICATED_PER_IP),
        connections_per_user: reader.number(&set::MAX_CONNECTIONS_PER_USER),
        sockets_per_user: reader.number(&set::MAX_SOCKETS_PER_USER),
        connections_per_ip: reader.number(&set::MAX_CONNECTIONS_PER_IP),
        handshakes_per_second: reader.number(&set::HANDSHAKES_PER_SECOND),
        frames_per_second: reader.number(&set::MAX_FRAMES_PER_SECOND),
        frame_bytes: reader.number(&set::MAX_FRAME_BYTES),
        fragments: reader.number(&set::MAX_FRAGMENTS),
        data_bytes: reader.number(&set::MAX_DATA_BYTES),
        outbox_bytes: reader.number(&set::OUTBOX_BYTES),
        page_bytes: reader.number(&set::MAX_PAGE_BYTES),
        unread_answer_bytes_per_user: reader.number(&set::UNREAD_ANSWER_BYTES_PER_USER),
        unread_answer_bytes_total: reader.number(&set::UNREAD_ANSWER_BYTES_TOTAL),
        outbox_total_bytes: reader.number(&set::OUTBOX_TOTAL_BYTES),
        blocks_per_user: reader.number(&set::MAX_BLOCKS_PER_USER),
        restrictions: reader.number(&set::MAX_REVOCATIONS),
        conversations_per_connection: reader.number(&set::MAX_CONVERSATIONS_PER_CONNECTION),
        commands_in_flight: reader.number(&set::MAX_COMMANDS_IN_FLIGHT),
        heavy_reads_per_user: reader.number(&set::HEAVY_READS_PER_USER),
        heavy_read_queue_per_user: reader.number(&set::HEAVY_READ_QUEUE_PER_USER),
        resume_max: reader.number(&set::RESUME_MAX),
        message_rate: read_rate(reader, &set::MESSAGE_RATE_LIMIT, &set::MESSAGE_RATE_LIMITS),
        write_rate: read_rate(reader, &set::WRITE_RATE_LIMIT, &set::WRITE_RATE_LIMITS),
        read_rate: read_rate(reader, &set::READ_RATE_LIMIT, &set::READ_RATE_LIMITS),
        event_rate: read_rate(reader, &set::EVENT_RATE_LIMIT, &set::EVENT_RATE_LIMITS),
        presence_cache: reader.number(&set::PRESENCE_CACHE),
        events_per_receiver: reader.number(&set::MAX_EVENTS_PER_RECEIVER),
    }
}

fn read_rate(reader: &mut Reader<'_>, general: &Setting, by_tier: &Setting) -> RateLimit {
    RateLimit { per_minute: reader.number(general), by_tier: reader.read(by_tier, parse::tiers).unwrap_or_default() }
}

/// Shares the open files: the maximum number of client sockets with and without a token together, and the number of probe
/// sockets. If the limit is too low for all, a quarter of it remains for clients.
fn share_files(files: usize, other_files: usize) -> (usize, usize) {
    let probe_sockets = PROBE_SOCKETS.min(files / 8).max(1);
    let reserved = (other_files + 2 * probe_sockets).min(files - files / 4);
    (files.saturating_sub(reserved).max(1), probe_sockets)
}

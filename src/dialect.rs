//! Wire formats: frames to commands, events and replies to frames.

/// A wire format, named for what it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `/v1/ws`: can say everything.
    Native,
    /// `/ws/{room_id}`: rooms (seed 002).
    Rooms,
}

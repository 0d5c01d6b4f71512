//! WebSocket frames in a server's form (RFC 6455, section 5.2): unmasked, unfragmented, encoded once and shared.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use serde::Serialize;

use crate::model::ConversationId;

/// Length of the longest header of an unmasked frame, in bytes.
const HEADER_MAX: usize = 10;
/// Length of the longest payload of a control frame, in bytes.
const CONTROL_PAYLOAD_MAX: usize = 125;

/// The class of a frame, which decides whether it may be dropped for a slow client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Never dropped while the connection lives: entries, replies.
    Durable,
    /// Typing: dropped after events.
    Typing,
    /// An event of a client: dropped first, and never more of them wait than their share of the outbox.
    Event,
    /// A state: when frames must be dropped, only the last one of each kind is kept. The number is the kind.
    State(u64),
    /// A hint that a conversation has new messages: only the newest one of each conversation waits, and it is dropped if
    /// there is no room. The number stands for the conversation.
    Hint(u64),
    /// A pong: only the newest one waits.
    Pong,
    /// A ping: it goes before the frames that wait, and only the newest one waits.
    Ping,
}

impl Class {
    /// The class of a hint of this conversation.
    pub fn hint(conversation: &ConversationId) -> Self {
        let mut name = DefaultHasher::new();
        conversation.hash(&mut name);
        Self::Hint(name.finish())
    }

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Typing => "typing",
            Self::Event => "event",
            Self::State(_) => "state",
            Self::Hint(_) => "hint",
            Self::Pong => "pong",
            Self::Ping => "ping",
        }
    }
}

/// An encoded frame. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Header and payload.
    pub bytes: Bytes,
    /// The class.
    pub class: Class,
}

#[derive(Clone, Copy)]
enum Opcode {
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
}

impl Frame {
    /// A text frame with `value` as JSON.
    pub fn json(value: &impl Serialize, class: Class) -> Self {
        let mut buffer = Vec::with_capacity(256);
        buffer.resize(HEADER_MAX, 0);
        // Wire structs have string keys and no fallible fields, so writing them into memory can't fail.
        if let Err(error) = serde_json::to_writer(&mut buffer, value) {
            tracing::error!(%error, "a frame could not be encoded");
        }
        Self { bytes: write_header(buffer, Opcode::Text), class }
    }

    /// A text frame.
    pub fn text(text: &str) -> Self {
        Self { bytes: frame(Opcode::Text, text.as_bytes()), class: Class::Durable }
    }

    /// A binary frame.
    pub fn binary(payload: &[u8]) -> Self {
        Self { bytes: frame(Opcode::Binary, payload), class: Class::Durable }
    }

    /// A ping with a number as payload, which the pong repeats.
    pub fn ping(number: u32) -> Self {
        Self { bytes: frame(Opcode::Ping, &number.to_be_bytes()), class: Class::Ping }
    }

    /// A close frame. A reason that is too long for a control frame is cut at a character boundary.
    pub fn close(code: u16, reason: &str) -> Self {
        let mut payload = Vec::with_capacity(2 + reason.len());
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(CONTROL_PAYLOAD_MAX - 2)]);
        Self { bytes: frame(Opcode::Close, &payload), class: Class::Durable }
    }

    /// Length on the wire, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Always false: a frame has a header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut buffer = Vec::with_capacity(HEADER_MAX + payload.len());
    buffer.resize(HEADER_MAX, 0);
    buffer.extend_from_slice(payload);
    write_header(buffer, opcode)
}

/// Writes the header into the space reserved at the start of the buffer, so that it ends where the payload begins.
fn write_header(mut buffer: Vec<u8>, opcode: Opcode) -> Bytes {
    let length = buffer.len() - HEADER_MAX;
    let (start, marker) = match length {
        0..=125 => (HEADER_MAX - 2, length as u8),
        126..=0xFFFF => (HEADER_MAX - 4, 126),
        _ => (0, 127),
    };
    match marker {
        126 => buffer[HEADER_MAX - 2..HEADER_MAX].copy_from_slice(&(length as u16).to_be_bytes()),
        127 => buffer[HEADER_MAX - 8..HEADER_MAX].copy_from_slice(&(length as u64).to_be_bytes()),
        _ => {}
    }
    buffer[start] = 0x80 | opcode as u8;
    buffer[start + 1] = marker;
    Bytes::from(buffer).slice(start..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_encode_every_length() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 255, 255]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = Frame::text(&"x".repeat(length));
            assert_eq!(frame.len(), header.len() + length);
            assert_eq!(frame.bytes[..header.len()], header);
        }
    }

    #[test]
    fn close_reasons_are_cut_at_a_character_boundary() {
        let frame = Frame::close(1008, &"ä".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame.bytes[4..]).is_ok());
    }
}

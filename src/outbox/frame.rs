//! WebSocket frames as a server writes them (RFC 6455, section 5.2): unmasked, whole, encoded once and shared.

use bytes::Bytes;
use serde::Serialize;

/// The longest header of an unmasked frame.
const HEADER: usize = 10;
/// The longest payload of a control frame.
const CONTROL: usize = 125;

/// What may be dropped when a reader is slow, and how soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Never dropped while the connection lives: entries, replies.
    Durable,
    /// Dropped first.
    Typing,
    /// Only the last of a kind is kept; the number names the kind.
    State(u64),
    /// A pong: only the newest waits.
    Pong,
}

impl Class {
    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Typing => "typing",
            Self::State(_) => "state",
            Self::Pong => "pong",
        }
    }
}

/// A whole frame, ready to be written. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Header and payload.
    pub bytes: Bytes,
    /// How soon it may be dropped.
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
        buffer.resize(HEADER, 0);
        // Wire structs have string keys and no fallible fields, so writing them into memory can't fail.
        if let Err(error) = serde_json::to_writer(&mut buffer, value) {
            tracing::error!(%error, "a frame could not be encoded");
        }
        Self { bytes: seal(buffer, Opcode::Text), class }
    }

    /// A text frame.
    pub fn text(text: &str) -> Self {
        Self { bytes: frame(Opcode::Text, text.as_bytes()), class: Class::Durable }
    }

    /// A binary frame.
    pub fn binary(payload: &[u8]) -> Self {
        Self { bytes: frame(Opcode::Binary, payload), class: Class::Durable }
    }

    /// A ping, by whose number its pong is known.
    pub fn ping(number: u32) -> Self {
        Self { bytes: frame(Opcode::Ping, &number.to_be_bytes()), class: Class::Durable }
    }

    /// A close frame; a reason too long for a control frame is cut.
    pub fn close(code: u16, reason: &str) -> Self {
        let mut payload = Vec::with_capacity(2 + reason.len());
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(CONTROL - 2)]);
        Self { bytes: frame(Opcode::Close, &payload), class: Class::Durable }
    }

    /// Bytes of it on the wire.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: a frame has a header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut buffer = Vec::with_capacity(HEADER + payload.len());
    buffer.resize(HEADER, 0);
    buffer.extend_from_slice(payload);
    seal(buffer, opcode)
}

/// Writes the header into the space kept for it before the payload, right behind which it must end.
fn seal(mut buffer: Vec<u8>, opcode: Opcode) -> Bytes {
    let length = buffer.len() - HEADER;
    let (start, marker) = match length {
        0..=125 => (HEADER - 2, length as u8),
        126..=0xFFFF => (HEADER - 4, 126),
        _ => (0, 127),
    };
    match marker {
        126 => buffer[HEADER - 2..HEADER].copy_from_slice(&(length as u16).to_be_bytes()),
        127 => buffer[HEADER - 8..HEADER].copy_from_slice(&(length as u64).to_be_bytes()),
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
    fn headers_fit_their_lengths() {
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
    fn close_reasons_are_cut_at_a_character() {
        let frame = Frame::close(1008, &"ä".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame.bytes[4..]).is_ok());
    }
}

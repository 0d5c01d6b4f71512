//! Counts WebSocket frames as their bytes arrive, before they are put together: floods of pings, of empty
//! continuations and of tiny fragments never become a whole message that a limit could be held against.

use std::time::Instant;

/// What frames a peer may send.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Frames of any kind per second, on average over a second's burst.
    pub per_second: u32,
    /// Fragments of one message.
    pub fragments: u32,
}

/// A limit that was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// Frames per second.
    Rate,
    /// Fragments of one message.
    Fragments,
}

/// Walks over frame headers and counts.
#[derive(Debug)]
pub(super) struct Meter {
    limits: FrameLimits,
    header: [u8; 14],
    header_len: u8,
    /// Payload bytes of the current frame that are still to come.
    payload: u64,
    fragments: u32,
    allowance: f32,
    refilled: Instant,
}

impl Meter {
    pub(super) fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            header: [0; 14],
            header_len: 0,
            payload: 0,
            fragments: 0,
            allowance: limits.per_second as f32,
            refilled: Instant::now(),
        }
    }

    /// Takes bytes as they came from the socket.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Exceeded> {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = self.payload.min(bytes.len() as u64);
                self.payload -= skipped;
                bytes = &bytes[skipped as usize..];
                continue;
            }
            self.header[usize::from(self.header_len)] = bytes[0];
            self.header_len += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.payload_len() {
                self.payload = payload;
                self.header_len = 0;
                self.count()?;
            }
        }
        Ok(())
    }

    /// The payload's length, once the header is whole.
    fn payload_len(&self) -> Option<u64> {
        let header = &self.header[..usize::from(self.header_len)];
        let second = *header.get(1)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (extended, length) = match second & 0x7F {
            126 => (2, header.get(2..4).map(|b| u64::from(u16::from_be_bytes([b[0], b[1]])))),
            127 => (8, header.get(2..10).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes)),
            short => (0, Some(u64::from(short))),
        };
        (header.len() == 2 + extended + mask).then_some(length).flatten()
    }

    fn count(&mut self) -> Result<(), Exceeded> {
        let now = Instant::now();
        let rate = self.limits.per_second as f32;
        self.allowance = (self.allowance + now.duration_since(self.refilled).as_secs_f32() * rate).min(rate);
        self.refilled = now;
        self.allowance -= 1.0;
        if self.allowance < 0.0 {
            return Err(Exceeded::Rate);
        }
        let (last, control) = (self.header[0] & 0x80 != 0, self.header[0] & 0x08 != 0);
        if !control {
            self.fragments = if last { 0 } else { self.fragments + 1 };
        }
        if self.fragments >= self.limits.fragments { Err(Exceeded::Fragments) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(per_second: u32, fragments: u32) -> Meter {
        Meter::new(FrameLimits { per_second, fragments })
    }

    fn masked(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..=125 => frame.push(0x80 | length as u8),
            _ => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(vec![b'x'; length]);
        frame
    }

    #[test]
    fn fragments_are_counted_over_any_split() {
        for step in [1, 3, 7, 1_000] {
            let mut meter = meter(1_000, 3);
            let whole: Vec<u8> = [masked(0x01, 5), masked(0x00, 300), masked(0x80, 0), masked(0x81, 130)].concat();
            for chunk in whole.chunks(step) {
                assert_eq!(meter.take(chunk), Ok(()));
            }
            let endless: Vec<u8> = [masked(0x01, 0), masked(0x89, 0), masked(0x00, 0), masked(0x00, 0)].concat();
            assert_eq!(meter.take(&endless), Err(Exceeded::Fragments));
        }
    }

    #[test]
    fn frames_per_second_are_limited() {
        let mut meter = meter(10, 64);
        for _ in 0..10 {
            assert_eq!(meter.take(&masked(0x89, 4)), Ok(()));
        }
        assert_eq!(meter.take(&masked(0x89, 4)), Err(Exceeded::Rate));
    }
}

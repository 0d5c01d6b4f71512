//! Checks of WebSocket frames while their bytes arrive, before reassembly. Floods of pings, of empty continuations and
//! of tiny fragments never become a complete message that a size limit could reject. Text that is not UTF-8 is rejected
//! at its first wrong byte (RFC 6455, section 8.1).

use std::time::Instant;

/// Limits on the frames of a peer.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Frames of any kind per second; a burst may use the allowance of one second.
    pub per_second: u32,
    /// Fragments per message.
    pub fragments: u32,
}

/// Reason to reject a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameFault {
    /// Too many frames per second.
    Rate,
    /// Too many fragments of one message.
    Fragments,
    /// Text that is not UTF-8.
    Utf8,
}

const FINAL: u8 = 0x80;
const CONTROL: u8 = 0x08;
const OPCODE: u8 = 0x0F;
const TEXT: u8 = 0x01;
const CONTINUATION: u8 = 0x00;

/// Parses frame headers, counts frames, and checks text.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    limits: FrameLimits,
    header: [u8; 14],
    header_len: u8,
    /// Payload bytes of the current frame that have not arrived yet.
    payload: u64,
    /// The mask of the current payload, rotated to its next byte.
    mask: [u8; 4],
    /// True if the current payload is text.
    text: bool,
    /// True within a text message.
    text_message: bool,
    utf8: Utf8,
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
            mask: [0; 4],
            text: false,
            text_message: false,
            utf8: Utf8::default(),
            fragments: 0,
            allowance: limits.per_second as f32,
            refilled: Instant::now(),
        }
    }

    /// Checks bytes from the socket.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), FrameFault> {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let (payload, rest) = bytes.split_at(self.payload.min(bytes.len() as u64) as usize);
                self.payload -= payload.len() as u64;
                bytes = rest;
                self.check_text(payload)?;
                continue;
            }
            self.header[usize::from(self.header_len)] = bytes[0];
            self.header_len += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.payload_len() {
                self.begin_payload(payload);
                self.count_frame()?;
            }
        }
        Ok(())
    }

    fn begin_payload(&mut self, payload: u64) {
        let header = &self.header[..usize::from(self.header_len)];
        self.mask = match header.last_chunk() {
            Some(mask) if self.header[1] & 0x80 != 0 => *mask,
            _ => [0; 4],
        };
        (self.payload, self.header_len) = (payload, 0);
        match self.header[0] & OPCODE {
            CONTINUATION => {}
            opcode if opcode & CONTROL != 0 => return self.text = false,
            opcode => (self.text_message, self.utf8) = (opcode == TEXT, Utf8::default()),
        }
        self.text = self.text_message;
    }

    /// Unmasks text in pieces and checks it.
    fn check_text(&mut self, payload: &[u8]) -> Result<(), FrameFault> {
        if !self.text {
            return Ok(());
        }
        let mut plain = [0; 256];
        for piece in payload.chunks(plain.len()) {
            let plain = &mut plain[..piece.len()];
            for ((to, from), mask) in plain.iter_mut().zip(piece).zip(self.mask.iter().cycle()) {
                *to = from ^ mask;
            }
            self.mask.rotate_left(piece.len() % 4);
            self.utf8.feed(plain)?;
        }
        Ok(())
    }

    /// The length of the payload, once the header is complete.
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

    fn count_frame(&mut self) -> Result<(), FrameFault> {
        let now = Instant::now();
        let rate = self.limits.per_second as f32;
        self.allowance = (self.allowance + now.duration_since(self.refilled).as_secs_f32() * rate).min(rate);
        self.refilled = now;
        self.allowance -= 1.0;
        if self.allowance < 0.0 {
            return Err(FrameFault::Rate);
        }
        let (last, control) = (self.header[0] & FINAL != 0, self.header[0] & CONTROL != 0);
        if control {
            return Ok(());
        }
        // Some libraries end a message with an empty fragment, which is not counted.
        let counted = !last || self.payload > 0;
        let fragments = self.fragments + u32::from(counted);
        self.fragments = if last { 0 } else { fragments };
        if fragments > self.limits.fragments { Err(FrameFault::Fragments) } else { Ok(()) }
    }
}

/// Checks UTF-8 in pieces, and keeps the bytes of a character that a piece cuts.
#[derive(Debug, Clone, Default)]
struct Utf8 {
    begun: [u8; 4],
    begun_len: u8,
}

impl Utf8 {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), FrameFault> {
        while self.begun_len > 0 {
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            self.begun[usize::from(self.begun_len)] = *first;
            self.begun_len += 1;
            bytes = rest;
            match std::str::from_utf8(&self.begun[..usize::from(self.begun_len)]) {
                Ok(_) => self.begun_len = 0,
                Err(error) if error.error_len().is_some() => return Err(FrameFault::Utf8),
                Err(_) => {}
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(FrameFault::Utf8),
            Err(error) => {
                let cut = &bytes[error.valid_up_to()..];
                self.begun[..cut.len()].copy_from_slice(cut);
                self.begun_len = cut.len() as u8;
                Ok(())
            }
        }
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
                assert_eq!(meter.feed(chunk), Ok(()));
            }
            let full = [masked(0x01, 1), masked(0x89, 0), masked(0x00, 0), masked(0x00, 1)].concat();
            assert_eq!(meter.feed(&[full.clone(), masked(0x80, 0)].concat()), Ok(()), "an empty last one is no fourth");
            let ended = [masked(0x01, 1), masked(0x00, 1), masked(0x80, 1), masked(0x81, 1)].concat();
            assert_eq!(meter.feed(&ended), Ok(()));
            let one_more = |frame| [full.clone(), frame].concat();
            for too_many in [one_more(masked(0x80, 1)), one_more(masked(0x00, 0))] {
                let mut meter = meter.clone();
                assert_eq!(meter.feed(&too_many), Err(FrameFault::Fragments));
            }
        }
    }

    #[test]
    fn frames_per_second_are_limited() {
        let mut meter = meter(10, 64);
        for _ in 0..10 {
            assert_eq!(meter.feed(&masked(0x89, 4)), Ok(()));
        }
        assert_eq!(meter.feed(&masked(0x89, 4)), Err(FrameFault::Rate));
    }

    #[test]
    fn text_is_checked_piece_by_piece() {
        let frame = |first: u8, text: &[u8]| {
            let mask = [0x12, 0x34, 0x56, 0x78];
            let mut frame = vec![first, 0x80 | text.len() as u8];
            frame.extend(mask);
            frame.extend(text.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            frame
        };
        let text = "κόσμε 🦀".as_bytes();
        for cut in 0..text.len() {
            let whole = [frame(0x01, &text[..cut]), frame(0x89, b"\xff"), frame(0x80, &text[cut..])].concat();
            for step in [1, 2, 5, 100] {
                let mut meter = meter(1_000, 64);
                assert!(whole.chunks(step).all(|chunk| meter.feed(chunk).is_ok()), "cut at {cut}");
            }
        }
        let wrong = frame(0x81, b"abc\xf4\x90\x80\x80def");
        let mut meter = meter(1_000, 64);
        let found = wrong.iter().position(|byte| meter.feed(&[*byte]).is_err());
        assert_eq!(found, Some(6 + 4), "rejected at its first wrong byte");
    }
}

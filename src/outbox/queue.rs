//! The frames that wait for one socket. A frame whose first byte was written is never dropped.

use std::{
    collections::{HashSet, VecDeque},
    io::IoSlice,
};

use super::frame::{Class, Frame};

/// Maximum number of frames in one write.
pub(super) const FRAMES_PER_WRITE: usize = 32;

/// Frames, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Frame>,
    /// Number of bytes of the first frame that are written.
    started: usize,
    /// Length of all frames, including the bytes of the first one that are written.
    bytes: usize,
    /// Number of durable frames that were ever pushed.
    pushed: u64,
    /// Number of durable frames that were written to the end.
    written: u64,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Length of all frames.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Length of the frames of one class.
    pub(super) fn bytes_of(&self, class: Class) -> usize {
        self.frames.iter().filter(|frame| frame.class == class).map(Frame::len).sum()
    }

    /// Bytes that are not written yet.
    pub(super) fn unwritten(&self) -> usize {
        self.bytes - self.started
    }

    pub(super) fn push(&mut self, frame: Frame) {
        self.bytes += frame.len();
        self.pushed += u64::from(frame.class == Class::Durable);
        if self.frames.capacity() == 0 {
            // A connection with little traffic has one frame at a time.
            self.frames.reserve_exact(1);
        }
        self.frames.push_back(frame);
    }

    /// Puts a ping before all frames that are not started, in place of one that waits. Returns the number of durable
    /// frames that leave before it.
    pub(super) fn push_ping(&mut self, ping: Frame) -> u64 {
        self.drop_unstarted(|waiting| waiting.class == Class::Ping);
        let started = self.frames.front().filter(|_| self.started > 0);
        let (at, before) = started.map_or((0, 0), |first| (1, u64::from(first.class == Class::Durable)));
        self.bytes += ping.len();
        self.frames.insert(at, ping);
        self.written + before
    }

    /// Number of durable frames that were ever pushed.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Appends all frames of another queue, none of which is started.
    pub(super) fn append(&mut self, mut other: Self) {
        self.bytes += other.bytes;
        self.pushed += other.pushed;
        self.frames.append(&mut other.frames);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The unwritten bytes of the only frame; `None` if there is not exactly one frame.
    pub(super) fn single_frame(&self) -> Option<&[u8]> {
        (self.frames.len() == 1).then(|| &self.frames[0].bytes[self.started..])
    }

    /// Fills `slices` with the unwritten bytes of the first frames. Returns the number of slices filled.
    pub(super) fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>; FRAMES_PER_WRITE]) -> usize {
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(&frame.bytes[if count == 0 { self.started } else { 0 }..]);
            count += 1;
        }
        count
    }

    /// Removes the first `written` bytes.
    pub(super) fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.frames.front() {
            let rest = first.len() - self.started;
            if written < rest {
                self.started += written;
                return;
            }
            written -= rest;
            self.bytes -= first.len();
            self.written += u64::from(first.class == Class::Durable);
            self.started = 0;
            self.frames.pop_front();
        }
        // An idle connection keeps room for one frame.
        if self.frames.capacity() > 1 {
            self.frames = VecDeque::new();
        }
    }

    /// Drops the frames for which `which` is true, except one that is started. Returns their number.
    pub(super) fn drop_unstarted(&mut self, mut which: impl FnMut(&Frame) -> bool) -> u64 {
        let before = self.frames.len();
        let mut keep_first = self.started > 0;
        let mut bytes = 0;
        self.frames.retain(|frame| {
            let keep = std::mem::take(&mut keep_first) || !which(frame);
            bytes += if keep { frame.len() } else { 0 };
            keep
        });
        self.bytes = bytes;
        (before - self.frames.len()) as u64
    }

    /// Drops all but the last frame of each state, except one that is started. Returns their number.
    pub(super) fn drop_stale_states(&mut self) -> u64 {
        let mut seen = HashSet::new();
        let mut stale: Vec<bool> = self
            .frames
            .iter()
            .rev()
            .map(|frame| matches!(frame.class, Class::State(kind) if !seen.insert(kind)))
            .collect();
        // `drop_unstarted` goes from front to back and does not call `which` for the started frame.
        if self.started > 0 {
            stale.pop();
        }
        self.drop_unstarted(|_| stale.pop().unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue of these classes; each frame has two bytes of header and one of payload.
    fn queue(classes: &[Class]) -> Queue {
        let mut queue = Queue::default();
        for (class, name) in classes.iter().zip("abcdefgh".chars()) {
            queue.push(Frame { class: *class, ..Frame::text(&name.to_string()) });
        }
        queue
    }

    fn names(queue: &Queue) -> String {
        queue.frames.iter().map(|frame| char::from(frame.bytes[2])).collect()
    }

    const STATES: [Class; 6] =
        [Class::State(1), Class::State(2), Class::Durable, Class::State(1), Class::State(1), Class::State(2)];

    #[test]
    fn the_last_frame_of_each_state_keeps_its_place() {
        let mut queue = queue(&STATES);
        assert_eq!(queue.drop_stale_states(), 3);
        assert_eq!((names(&queue).as_str(), queue.bytes()), ("cef", 9));
    }

    #[test]
    fn a_started_frame_is_never_dropped() {
        let mut stale = queue(&STATES);
        stale.advance(1);
        assert_eq!(stale.drop_stale_states(), 2);
        assert_eq!((names(&stale).as_str(), stale.single_frame()), ("acef", None));
        let mut all = queue(&[Class::Typing, Class::Durable]);
        all.advance(1);
        assert_eq!(all.drop_unstarted(|_| true), 1);
        assert_eq!((names(&all).as_str(), all.bytes(), all.single_frame()), ("a", 3, Some(&b"\x01a"[..])));
    }

    #[test]
    fn a_ping_goes_before_frames_that_are_not_started() {
        let mut queue = queue(&[Class::Durable, Class::Typing, Class::Durable, Class::Durable]);
        let ping = |name: &str| Frame { class: Class::Ping, ..Frame::text(name) };
        assert_eq!(queue.push_ping(ping("x")), 0);
        assert_eq!(queue.push_ping(ping("y")), 0, "it replaces the one that waits");
        assert_eq!(names(&queue), "yabcd");
        queue.advance(3 + 1);
        assert_eq!(queue.push_ping(ping("z")), 1, "a started frame is finished first");
        assert_eq!((names(&queue).as_str(), queue.bytes(), queue.pushed()), ("azbcd", 15, 3));
        queue.advance(2 + 3 + 3 + 3);
        assert_eq!((names(&queue).as_str(), queue.push_ping(ping("w"))), ("d", 2), "only durable frames are counted");
    }

    #[test]
    fn bytes_leave_in_order_for_any_size_of_write() {
        for step in 1..9 {
            let (mut queue, mut written) = (queue(&[Class::Durable, Class::Typing, Class::Pong]), Vec::new());
            while !queue.is_empty() {
                let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
                let count = queue.fill(&mut slices);
                let next: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
                queue.advance(next.len());
                written.extend(next);
            }
            assert_eq!((&written[..], queue.bytes()), (&b"\x81\x01a\x81\x01b\x81\x01c"[..], 0), "{step} at a time");
        }
    }
}

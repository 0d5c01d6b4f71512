//! Terminal output and input.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write, stderr, stdin, stdout},
    thread,
};

use tokio::sync::mpsc;

use super::lines::Typed;

/// Maximum bytes kept of a typed line. The rest is only counted; the line then exceeds the maximum of a message and is
/// refused.
const MAX_LINE: u64 = 64 * 1_024;
/// Capacity of the queue of typed lines.
const QUEUE: usize = 16;

/// Standard output. At a terminal it has a prompt below the conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    terminal: bool,
}

/// Standard output can't be written: its reader has closed it, or the disk is full.
#[derive(Debug)]
pub(super) struct OutputError(pub(super) io::Error);

impl Screen {
    pub(super) fn of_process() -> Self {
        Self { terminal: stdin().is_terminal() && stdout().is_terminal() }
    }

    /// True if input and output are a terminal.
    pub(super) fn is_terminal(self) -> bool {
        self.terminal
    }

    /// Shows a line of the conversation.
    pub(super) fn show(self, line: &str) -> Result<(), OutputError> {
        // Clear the prompt's line and print the prompt again below the new line.
        self.write(&if self.terminal { format!("\r\x1b[K{line}\n> ") } else { format!("{line}\n") })
    }

    /// Shows a status line: on standard error if the output is a file or a pipe, so that it stays out of the
    /// conversation.
    pub(super) fn note(self, line: &str) -> Result<(), OutputError> {
        if self.terminal {
            return self.show(&format!("-- {line}"));
        }
        // Ignore errors: the status is of no use to a closed standard error.
        let _ = writeln!(stderr(), "switchboard: {line}");
        Ok(())
    }

    /// Prints the prompt for the next line. Replaces the prompt that a line shown meanwhile has below it.
    pub(super) fn prompt(self) -> Result<(), OutputError> {
        if self.terminal { self.write("\r\x1b[K> ") } else { Ok(()) }
    }

    /// Removes the prompt.
    pub(super) fn end(self) {
        if self.terminal {
            let _ = self.write("\r\x1b[K");
        }
    }

    fn write(self, text: &str) -> Result<(), OutputError> {
        let mut out = stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(OutputError)
    }
}

/// Starts a thread that reads typed lines until the end of the input. The thread ends with the process, because nothing
/// else interrupts a read from a terminal.
pub(super) fn typed_lines() -> mpsc::Receiver<Typed> {
    let (typed, lines) = mpsc::channel(QUEUE);
    thread::spawn(move || {
        let mut input = stdin().lock();
        while let Ok(Some(line)) = read_line(&mut input) {
            if typed.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Reads a line; `None` at the end of the input.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Typed>> {
    let mut line = Vec::new();
    if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
        return Ok(Some(Typed::too_long(characters(&line) + skip_line(input)?)));
    }
    Ok(Some(Typed::parse(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']))))
}

/// Skips input to the end of the line and returns the number of skipped characters.
fn skip_line(input: &mut impl BufRead) -> io::Result<usize> {
    let mut skipped = 0;
    loop {
        let found = input.fill_buf()?;
        let end = found.iter().position(|byte| *byte == b'\n');
        skipped += characters(&found[..end.unwrap_or(found.len())]);
        let (used, ended) = end.map_or((found.len(), found.is_empty()), |at| (at + 1, true));
        input.consume(used);
        if ended {
            return Ok(skipped);
        }
    }
}

/// The number of characters that begin in this part of a UTF-8 text.
fn characters(part: &[u8]) -> usize {
    part.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_beyond_what_is_kept_is_refused_with_its_length() {
        for (line, shown) in
            [("x".repeat(200_000), "200000"), ("ä".repeat(70_001), "70001"), ("y".repeat(65_536), "65536")]
        {
            let mut input = io::Cursor::new(format!("{line}\nnext\n"));
            let refused = read_line(&mut input).unwrap();
            assert!(
                matches!(&refused, Some(Typed::Invalid(why)) if why.contains(&format!("not sent: {shown} characters"))),
                "{refused:?}"
            );
            assert_eq!(read_line(&mut input).unwrap(), Some(Typed::Message("next".into())));
            assert_eq!(read_line(&mut input).unwrap(), None);
        }
    }
}

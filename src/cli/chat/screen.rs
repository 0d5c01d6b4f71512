//! Terminal output and input.

use std::{
    io::{BufRead, IsTerminal, Read, Write, stderr, stdin, stdout},
    thread,
};

use tokio::sync::mpsc;

/// Maximum bytes read of a typed line. The rest is skipped; the line then exceeds the maximum of a message and is
/// refused.
const MAX_LINE: u64 = 64 * 1_024;
/// Capacity of the queue of typed lines.
const QUEUE: usize = 16;

/// Standard output. At a terminal it has a prompt below the conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    terminal: bool,
}

/// Error: the reader of standard output has closed it.
#[derive(Debug)]
pub(super) struct OutputClosed;

impl Screen {
    pub(super) fn of_process() -> Self {
        Self { terminal: stdin().is_terminal() && stdout().is_terminal() }
    }

    /// True if input and output are a terminal.
    pub(super) fn is_terminal(self) -> bool {
        self.terminal
    }

    /// Shows a line of the conversation.
    pub(super) fn show(self, line: &str) -> Result<(), OutputClosed> {
        // Clear the prompt's line and print the prompt again below the new line.
        self.write(&if self.terminal { format!("\r\x1b[K{line}\n> ") } else { format!("{line}\n") })
    }

    /// Shows a status line: on standard error if the output is a file or a pipe, so that it stays out of the
    /// conversation.
    pub(super) fn note(self, line: &str) -> Result<(), OutputClosed> {
        if self.terminal {
            return self.show(&format!("-- {line}"));
        }
        // Ignore errors: the status is of no use to a closed standard error.
        let _ = writeln!(stderr(), "switchboard: {line}");
        Ok(())
    }

    /// Prints the prompt for the next line.
    pub(super) fn prompt(self) -> Result<(), OutputClosed> {
        if self.terminal { self.write("> ") } else { Ok(()) }
    }

    /// Removes the prompt.
    pub(super) fn end(self) {
        if self.terminal {
            let _ = self.write("\r\x1b[K");
        }
    }

    fn write(self, text: &str) -> Result<(), OutputClosed> {
        let mut out = stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|_| OutputClosed)
    }
}

/// Starts a thread that reads typed lines until the end of the input. The thread ends with the process, because nothing
/// else interrupts a read from a terminal.
pub(super) fn typed_lines() -> mpsc::Receiver<String> {
    let (typed, lines) = mpsc::channel(QUEUE);
    thread::spawn(move || {
        let mut input = stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            match input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") && skip_line(&mut input).is_err() => {
                    return;
                }
                Ok(_) => {}
            }
            if typed.blocking_send(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// Skips input to the end of the line.
fn skip_line(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let found = input.fill_buf()?;
        let (used, ended) = match found.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (found.len(), found.is_empty()),
        };
        input.consume(used);
        if ended {
            return Ok(());
        }
    }
}

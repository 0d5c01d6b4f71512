//! What the user sees, and what the user types.

use std::{
    io::{BufRead, IsTerminal, Read, Write, stderr, stdin, stdout},
    thread,
};

use tokio::sync::mpsc;

/// The most bytes of a typed line that are read; what follows in it is passed over, and the line is refused as too long.
const MAX_LINE: u64 = 64 * 1_024;
/// Typed lines that may wait to be looked at.
const QUEUE: usize = 16;

/// Standard output, with a prompt below the conversation where it is a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    terminal: bool,
}

/// The reader of standard output went away.
#[derive(Debug)]
pub(super) struct Gone;

impl Screen {
    pub(super) fn of_process() -> Self {
        Self { terminal: stdin().is_terminal() && stdout().is_terminal() }
    }

    /// Whether a person sits in front of it.
    pub(super) fn is_terminal(self) -> bool {
        self.terminal
    }

    /// Shows a line of the conversation.
    pub(super) fn show(self, line: &str) -> Result<(), Gone> {
        // The prompt's line is taken back, and begun anew below.
        self.write(&if self.terminal { format!("\r\x1b[K{line}\n> ") } else { format!("{line}\n") })
    }

    /// Tells how things are: beside the conversation, where that goes into a file or a pipe.
    pub(super) fn note(self, line: &str) -> Result<(), Gone> {
        if self.terminal {
            return self.show(&format!("-- {line}"));
        }
        // Without anybody to read it, it is of no use.
        let _ = writeln!(stderr(), "switchboard: {line}");
        Ok(())
    }

    /// The line that was typed is done with.
    pub(super) fn prompt(self) -> Result<(), Gone> {
        if self.terminal { self.write("> ") } else { Ok(()) }
    }

    /// Takes the prompt away.
    pub(super) fn end(self) {
        if self.terminal {
            let _ = self.write("\r\x1b[K");
        }
    }

    fn write(self, text: &str) -> Result<(), Gone> {
        let mut out = stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|_| Gone)
    }
}

/// What is typed, line by line, until its end. The thread that reads it ends with the process: nothing else interrupts a
/// read from a terminal.
pub(super) fn typed_lines() -> mpsc::Receiver<String> {
    let (typed, lines) = mpsc::channel(QUEUE);
    thread::spawn(move || {
        let mut input = stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            match input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") && pass_over(&mut input).is_err() => {
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

/// Reads to the end of a line, and keeps nothing of it.
fn pass_over(input: &mut impl BufRead) -> std::io::Result<()> {
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

//! A server as a child process: its log, signals, end, CPU time and memory.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use tokio::sync::watch;

use super::{guard, within};

/// Signals that tests send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: a regular end.
    Terminate,
    /// SIGQUIT: PostgreSQL ends at once.
    Quit,
    /// SIGKILL: the end without cleanup.
    Kill,
    /// SIGSTOP: freezes the process.
    Stop,
    /// SIGCONT: continues a frozen process.
    Continue,
}

impl Signal {
    /// Name of the signal for `kill -s`.
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Quit => "QUIT",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }

    /// Sends the signal to `pids`; ignores those that are gone.
    pub fn send(self, pids: &[u32]) {
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$@\"", "kill", self.name()]).args(pids.iter().map(u32::to_string));
        kill.stderr(Stdio::null()).status().expect("sh runs");
    }
}

/// Lines that a process has written to stdout and stderr.
#[derive(Debug)]
pub struct Log {
    lines: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::new(Self { lines: Mutex::default(), count: watch::Sender::new(0) })
    }

    fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap();
        lines.push(line);
        self.count.send_replace(lines.len());
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Returns the first match of `pick`; waits for lines to come.
    async fn wait_for<T>(&self, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let mut count = self.count.subscribe();
        let mut seen = 0;
        loop {
            let fresh = *count.borrow_and_update();
            if let Some(found) = self.lines.lock().unwrap()[seen..fresh].iter().find_map(|line| pick(line)) {
                return found;
            }
            seen = fresh;
            count.changed().await.expect("the log lives as long as its sender");
        }
    }
}

/// A running child process; dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    at_end: Signal,
    log: Arc<Log>,
    status: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts `command` in its own process group. `at_end` is the signal that ends it.
    pub fn spawn(name: impl Into<String>, command: &mut Command, at_end: Signal) -> Self {
        Self::start(name.into(), command.stdin(Stdio::null()), at_end).0
    }

    /// Starts a command that reads standard input. Dropping the returned `ChildStdin` ends that input.
    pub fn spawn_reader(name: impl Into<String>, command: &mut Command, at_end: Signal) -> (Self, ChildStdin) {
        let (process, stdin) = Self::start(name.into(), command.stdin(Stdio::piped()), at_end);
        (process, stdin.expect("stdin is piped"))
    }

    fn start(name: String, command: &mut Command, at_end: Signal) -> (Self, Option<ChildStdin>) {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} can't be started ({command:?}): {error}"));
        let (pid, stdin) = (child.id(), child.stdin.take());
        guard::watch(pid, at_end.name());
        let log = Log::new();
        let out = follow(child.stdout.take().expect("stdout is piped"), Arc::clone(&log));
        let err = follow(child.stderr.take().expect("stderr is piped"), Arc::clone(&log));
        let (told, status) = watch::channel(None);
        thread::spawn(move || {
            let status = child.wait().expect("a child can be waited for");
            guard::forget(pid);
            // Read the last lines before the end is announced. A grandchild may hold the pipes open for ever; only
            // PostgreSQL has grandchildren, and they end with it.
            let _ = (out.join(), err.join());
            told.send_replace(Some(status));
        });
        (Self { name, pid, at_end, log, status }, stdin)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lines written so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Sends a signal, unless the process has ended. After `Stop` the process is frozen when this returns.
    pub fn signal(&self, signal: Signal) {
        if self.status.borrow().is_some() {
            return;
        }
        signal.send(&[self.pid]);
        while signal == Signal::Stop && !matches!(state(self.pid), Some('T') | None) {
            thread::yield_now();
        }
    }

    /// Waits for the end of the process.
    pub async fn ended(&self) -> ExitStatus {
        let mut status = self.status.clone();
        let waiting = status.wait_for(Option::is_some);
        let ended = within(&format!("the end of {}", self.name), waiting).await.expect("its thread sends the status");
        ended.expect("is some")
    }

    /// Waits for a log line. `Err` holds exit status and log of a process that ended without that line.
    pub async fn line<T>(&self, what: &str, pick: impl FnMut(&str) -> Option<T>) -> Result<T, String> {
        let mut status = self.status.clone();
        let waiting = async {
            let mut pick = pick;
            tokio::select! {
                biased;
                found = self.log.wait_for(&mut pick) => return Ok(found),
                _ = status.wait_for(Option::is_some) => {}
            }
            // The process ended; the line may be among its last ones.
            self.log.lines().iter().find_map(|line| pick(line)).ok_or(())
        };
        match tokio::time::timeout(super::DEADLINE, waiting).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(())) => Err(format!("{} ended ({:?}) without {what}:\n{}", self.name, self.status(), self.tail())),
            Err(_) => panic!("{} did not log {what} in time:\n{}", self.name, self.tail()),
        }
    }

    fn status(&self) -> Option<ExitStatus> {
        *self.status.borrow()
    }

    /// The last lines of the log.
    fn tail(&self) -> String {
        let lines = self.log.lines();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Waits for the end and returns the exit code; panics if a signal ended the process.
    pub async fn exit_code(&self) -> i32 {
        let status = self.ended().await;
        status.code().unwrap_or_else(|| panic!("{} was ended by signal {:?}", self.name, status.signal()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("── the last lines of {} ──\n{}", self.name, self.tail());
        }
        if self.status().is_none() {
            self.at_end.send(&[self.pid]);
            Signal::Continue.send(&[self.pid]);
        }
    }
}

/// Reads lines into a log until the stream ends.
fn follow(stream: impl Read + Send + 'static, log: Arc<Log>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            log.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}

/// Fields of `/proc/<pid>/stat` after the command's name; the first is the state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// State of a process: `R`unning, `S`leeping, s`T`opped, `Z`ombie, …
fn state(pid: u32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// Ids of the processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let parent = pid.to_string();
    let all = std::fs::read_dir("/proc").expect("/proc is mounted");
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&child| stat(child).is_some_and(|fields| fields.get(1) == Some(&parent)))
        .collect()
}

/// CPU seconds (user and system) used by a process and its children, ended and living.
pub fn cpu_seconds(pid: u32) -> f64 {
    let living: f64 = children(pid).into_iter().map(own_cpu_seconds).sum();
    // utime, stime, cutime and cstime are fields 14 to 17 of the file; the state is field 3.
    let ended: f64 = children(pid).into_iter().chain([pid]).map(|pid| ticks(pid, 13..15)).sum();
    own_cpu_seconds(pid) + living + ended
}

/// CPU seconds of a process alone. The kernel counts ticks for the process, which are coarse, and nanoseconds for each
/// thread, which lack the threads that ended; neither exceeds the truth.
fn own_cpu_seconds(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds: f64 = threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
        .sum();
    ticks(pid, 11..13).max(nanoseconds / 1e9)
}

/// Seconds in fields of the statistics of a process; 0 if it is gone.
fn ticks(pid: u32, fields: std::ops::Range<usize>) -> f64 {
    /// `USER_HZ`; it is 100 on every Linux that Rust supports.
    const TICKS_PER_SECOND: f64 = 100.0;
    let Some(stat) = stat(pid) else { return 0.0 };
    stat[fields].iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// Resident bytes of a process; 0 if it is gone.
pub fn resident_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

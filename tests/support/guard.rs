//! Ends the processes that the tests started when the test process is gone: after a panic, an abort, ^C or a kill.
//!
//! A shell reads from a pipe that only the test process holds. At the end of the pipe, the shell kills every registered
//! process and removes the registered folders. It has its own process group, so that ^C doesn't end it first.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{LazyLock, Mutex},
};

/// Shell script that reads `watch <pid> <signal>`, `forget <pid>` and `folder <path>`.
const SCRIPT: &str = r#"
watched= folders=
while read -r verb what signal; do
    case $verb in
        watch) watched="$watched $what:$signal" ;;
        forget)
            kept=
            for entry in $watched; do [ "${entry%:*}" = "$what" ] || kept="$kept $entry"; done
            watched=$kept ;;
        folder) folders="$folders $what" ;;
    esac
done
for entry in $watched; do
    kill -s "${entry#*:}" "${entry%:*}"
    kill -s CONT "${entry%:*}"
done
for entry in $watched; do
    tries=0
    while kill -0 "${entry%:*}" && [ $tries -lt 100 ]; do sleep 0.05; tries=$((tries + 1)); done
    kill -s KILL "${entry%:*}"
done
rm -rf $folders
"#;

static GUARD: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    #[expect(clippy::zombie_processes, reason = "it outlives this process")]
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh starts");
    Mutex::new(shell.stdin.take().expect("stdin is piped"))
});

fn send_line(line: String) {
    let mut pipe = GUARD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    pipe.write_all(line.as_bytes()).expect("the guard reads");
}

/// Registers `pid`: the guard sends it `signal` (a name, like `KILL`) once this process is gone.
pub fn watch(pid: u32, signal: &str) {
    send_line(format!("watch {pid} {signal}\n"));
}

/// Removes `pid` from the guard's list, because that process has ended.
pub fn forget(pid: u32) {
    send_line(format!("forget {pid}\n"));
}

/// Makes a folder that is removed when the value is dropped, or at the latest when this process is gone.
pub fn folder(prefix: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().expect("the temporary folder is writable");
    let path: &Path = folder.path();
    send_line(format!("folder {}\n", path.display()));
    folder
}

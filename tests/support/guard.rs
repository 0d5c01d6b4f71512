//! Ends what the tests started when the test process is gone: after a panic, an abort, ^C or a kill.
//!
//! A shell reads from a pipe that only the test process holds. When the pipe ends, the shell kills every process it
//! was told of and removes their folders. It is in a process group of its own, so ^C doesn't end it first.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{LazyLock, Mutex},
};

/// Reads `watch <pid> <signal>`, `forget <pid>` and `folder <path>`.
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

fn tell(line: String) {
    let mut pipe = GUARD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    pipe.write_all(line.as_bytes()).expect("the guard reads");
}

/// Sends `signal` (a name, like `KILL`) to `pid` once this process is gone.
pub fn watch(pid: u32, signal: &str) {
    tell(format!("watch {pid} {signal}\n"));
}

/// Leaves `pid` alone: it has ended.
pub fn forget(pid: u32) {
    tell(format!("forget {pid}\n"));
}

/// A new folder that is removed with the value, or with this process at the latest.
pub fn folder(prefix: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().expect("the temporary folder is writable");
    let path: &Path = folder.path();
    tell(format!("folder {}\n", path.display()));
    folder
}

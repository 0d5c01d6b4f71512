//! Compresses the files of the demo's page, and tells the program which commit it is built from, as `SWITCHBOARD_COMMIT`.
//!
//! `GIT_COMMIT` has precedence (the Dockerfile sets it); otherwise the commit comes from git; without git it is
//! `unknown`.

#![allow(clippy::print_stdout, reason = "a build script passes its instructions to cargo over standard output")]
#![allow(clippy::panic, reason = "a build without the page must fail")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, write::GzEncoder};

/// Option for git that shortens the commit to 12 digits.
const DIGITS: &str = "--short=12";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=GIT_COMMIT");
    #[expect(clippy::disallowed_methods, reason = "this is the build's environment, not the program's configuration")]
    let given = std::env::var("GIT_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(checked_out).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=SWITCHBOARD_COMMIT={commit}");
    for file in ["index.html", "demo.js", "demo.css", "client.js"] {
        compress(Path::new("src/http/demo"), file);
    }
}

/// Compresses a file of the demo's page, for `src/http/demo.rs`.
fn compress(folder: &Path, file: &str) {
    let source = folder.join(file);
    println!("cargo::rerun-if-changed={}", source.display());
    let plain = fs::read(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    #[expect(clippy::disallowed_methods, reason = "this is the build's environment, not the program's configuration")]
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(&plain).and_then(|()| encoder.finish());
    let stored = written.and_then(|bytes| fs::write(out.join(format!("{file}.gz")), bytes));
    stored.unwrap_or_else(|error| panic!("{file}: {error}"));
}

/// The checked-out commit, if this folder is the top of a git checkout. Sources that are unpacked inside another
/// project's checkout don't belong to that project's commit.
fn checked_out() -> Option<String> {
    // Cargo's variable at run time: the compiled script may be shared by several checkouts.
    #[expect(clippy::disallowed_methods, reason = "this is the build's environment, not the program's configuration")]
    let sources = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != sources.canonicalize().ok()? {
        return None;
    }
    watch_head();
    git(&["rev-parse", DIGITS, "HEAD"])
}

/// Makes cargo run this script again when HEAD moves. Names existing files only, because cargo treats a missing file as
/// changed in every build.
fn watch_head() {
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    // The log of HEAD grows at every move. Without that log, the branch's own file or the packed refs change.
    let names = ["HEAD", "logs/HEAD", "packed-refs", "reftable/tables.list"].into_iter().chain(branch.as_deref());
    for name in names {
        let Some(path) = git(&["rev-parse", "--git-path", name]) else { continue };
        let path = Path::new(&path);
        // The next commit on a packed branch creates a file for it: watch the folder for that.
        let shown = if path.exists() || !name.starts_with("refs/") { Some(path) } else { path.parent() };
        if let Some(shown) = shown.filter(|shown| shown.exists()) {
            println!("cargo::rerun-if-changed={}", shown.display());
        }
    }
}

/// Runs git and returns its trimmed output; `None` if git is missing, fails or prints nothing.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

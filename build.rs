//! Tells the program which commit it is built from, as `SWITCHBOARD_COMMIT`.
//!
//! `GIT_COMMIT` decides where it is set, as the Dockerfile does; else git is asked; else it is `unknown`.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo over standard output")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Digits of a commit that git is asked for.
const DIGITS: &str = "--short=12";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=GIT_COMMIT");
    #[expect(clippy::disallowed_methods, reason = "this is the build's environment, not the program's configuration")]
    let given = std::env::var("GIT_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(checked_out).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=SWITCHBOARD_COMMIT={commit}");
}

/// The commit that is checked out here, where this folder is the top of a git checkout. Sources that were unpacked inside
/// another project's checkout are not of its commit.
fn checked_out() -> Option<String> {
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().ok()? {
        return None;
    }
    watch_head();
    git(&["rev-parse", DIGITS, "HEAD"])
}

/// Has cargo run this script again when HEAD moves. Only files that exist are named: cargo takes a missing one for changed,
/// at every build.
fn watch_head() {
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    // The log of HEAD grows at every move. Where no log is kept, the branch's own file, or what it is packed into, changes.
    let names = ["HEAD", "logs/HEAD", "packed-refs", "reftable/tables.list"].into_iter().chain(branch.as_deref());
    for name in names {
        let Some(path) = git(&["rev-parse", "--git-path", name]) else { continue };
        let path = Path::new(&path);
        // A packed branch gets a file of its own with the next commit: its folder shows that.
        let shown = if path.exists() || !name.starts_with("refs/") { Some(path) } else { path.parent() };
        if let Some(shown) = shown.filter(|shown| shown.exists()) {
            println!("cargo::rerun-if-changed={}", shown.display());
        }
    }
}

/// What git answers, trimmed; none where there is no git, or it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

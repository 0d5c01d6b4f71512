//! Checks of the source tree: the imports that a module may have, and the length of a file.
//!
//! [`ALLOWED`] lists every allowed import between the modules at the top of `src/`. An import outside the list fails,
//! and so does a row that no module uses. Tests inside `src/` may import any module.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

#[path = "imports/circles.rs"]
mod circles;

/// What a module may import of ours.
enum May {
    /// Any module: it builds or starts the program.
    Anything,
    /// These modules, or these parts of a module (`outbox::Frame`).
    Only(&'static [&'static str]),
}
use May::{Anything, Only};

/// Every top-level module and its allowed imports.
const ALLOWED: &[(&str, May)] = &[
    ("model", Only(&[])),
    ("metrics", Only(&[])),
    ("config", Only(&["model"])),
    ("credentials", Only(&["config"])),
    ("supervise", Only(&["metrics"])),
    ("degrade", Only(&[])),
    ("faults", Only(&[])),
    ("restrictions", Only(&["metrics", "model"])),
    ("auth", Only(&["config", "model", "restrictions"])),
    // These three must not import one another; chat combines them.
    ("store", Only(&["config", "credentials", "degrade", "faults", "metrics", "model", "supervise"])),
    ("backplane", Only(&["config", "credentials", "degrade", "faults", "metrics", "model", "supervise"])),
    ("hub", Only(&["dialect", "faults", "metrics", "model", "outbox", "supervise"])),
    ("tail", Only(&["config::ConsoleConfig", "metrics", "model"])),
    ("outbox", Only(&["faults", "metrics", "model", "supervise"])),
    ("webhook", Only(&["config", "metrics", "model::Content", "supervise"])),
    ("dialect", Only(&["config::Secret", "model", "outbox::Class", "outbox::Frame"])),
    (
        "chat",
        Only(&[
            "backplane",
            "config",
            "degrade",
            "dialect::AutoJoin",
            "dialect::Dialect",
            "dialect::RosterPolicy",
            "faults",
            "hub",
            "metrics",
            "model",
            "outbox",
            "restrictions",
            "store",
            "supervise",
            "webhook",
        ]),
    ),
    ("admission", Only(&["config::Limits"])),
    ("advice", Only(&["admission::Refusal", "model"])),
    // What sockets and requests ask of a running node; `app` builds it.
    (
        "broker",
        Only(&[
            "admission",
            "advice",
            "auth",
            "backplane",
            "chat",
            "config",
            "degrade",
            "metrics",
            "model",
            "outbox",
            "supervise",
            "tail",
            "webhook",
        ]),
    ),
    (
        "session",
        Only(&[
            "admission::Permit",
            "advice",
            "auth",
            "broker::Drain",
            "chat",
            "config",
            "dialect",
            "faults",
            "metrics",
            "model",
            "outbox",
            "restrictions::SessionTicket",
            "supervise",
            "tail",
        ]),
    ),
    ("listener", Only(&["admission", "broker", "http", "supervise"])),
    (
        "http",
        Only(&[
            "admission",
            "advice",
            "auth",
            "backplane::RedisStatus",
            "broker",
            "chat",
            "config",
            "degrade",
            "dialect",
            "metrics",
            "model",
            "session",
            "supervise",
            "tail",
            "webhook",
        ]),
    ),
    ("app", Anything),
    ("cli", Anything),
    ("lib", Only(&[])),
    ("main", Only(&["cli"])),
];

/// Maximum number of lines of a source file; a longer one holds more than one idea.
const MAX_LINES: usize = 450;

#[test]
fn no_module_has_a_forbidden_import() {
    let mut faults = String::new();
    for (module, imports) in imports() {
        let Some(may) = allowed(&module) else {
            faults += &format!("  src/{module}.rs has no row in ALLOWED\n");
            continue;
        };
        let Only(may) = may else { continue };
        for import in &imports {
            if import.target != module && !may.iter().any(|row| import.is_within(row)) {
                faults += &format!("  {}:{}: {module} may not import {}\n", import.file, import.line, import.path());
            }
        }
    }
    assert!(faults.is_empty(), "imports that the table in tests/imports.rs does not allow:\n{faults}");
}

#[test]
fn no_row_of_the_table_is_stale() {
    let imports = imports();
    let mut faults = String::new();
    for (module, may) in ALLOWED {
        let Some(imports) = imports.get(*module) else {
            faults += &format!("  {module}: no such module\n");
            continue;
        };
        let Only(may) = may else { continue };
        for row in *may {
            if !imports.iter().any(|import| import.is_within(row)) {
                faults += &format!("  {module} no longer imports {row}\n");
            }
        }
    }
    assert!(faults.is_empty(), "rows to remove from the table in tests/imports.rs:\n{faults}");
}

#[test]
fn no_source_file_is_too_long() {
    let mut faults = String::new();
    for path in sources() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > MAX_LINES {
            faults += &format!("  {} has {lines} lines\n", path.display());
        }
    }
    assert!(faults.is_empty(), "files of more than {MAX_LINES} lines:\n{faults}");
}

fn allowed(module: &str) -> Option<&'static May> {
    ALLOWED.iter().find_map(|(name, may)| (*name == module).then_some(may))
}

/// One path into another module of this crate.
#[derive(Debug)]
struct Import {
    /// The top-level module.
    target: String,
    /// The rest of the path.
    rest: Vec<String>,
    file: String,
    line: usize,
}

impl Import {
    /// True if a row (`hub`, `session::outbox`) covers this import.
    fn is_within(&self, row: &str) -> bool {
        let mut path = std::iter::once(&self.target).chain(&self.rest);
        row.split("::").all(|part| path.next().is_some_and(|segment| segment == part))
    }

    fn path(&self) -> String {
        format!("crate::{}", [std::slice::from_ref(&self.target), &self.rest].concat().join("::"))
    }
}

/// All imports, by importing module; `lib` and `main` count as modules.
fn imports() -> BTreeMap<String, Vec<Import>> {
    let root = root();
    let modules: BTreeSet<String> =
        sources().iter().map(|path| module_path(path.strip_prefix(&root).unwrap()).remove(0)).collect();
    let mut all: BTreeMap<String, Vec<Import>> = BTreeMap::new();
    for path in sources() {
        let module = module_path(path.strip_prefix(&root).unwrap());
        let top = module[0].clone();
        let file = format!("src/{}", path.strip_prefix(&root).unwrap().display());
        let depth = if matches!(top.as_str(), "lib" | "main") { 0 } else { module.len() };
        let imports = all.entry(top).or_default();
        for (line, mut segments) in paths_of(&fs::read_to_string(&path).unwrap(), depth) {
            let target = segments.remove(0);
            if modules.contains(&target) {
                imports.push(Import { target, rest: segments, file: file.clone(), line });
            }
        }
    }
    all
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file under `src/`, except those that hold only tests.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !holds_only_tests(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// True if a file holds only tests or their support.
fn holds_only_tests(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.ends_with("fixture.rs")
}

/// Module path of a file: `hub`, `order` for both `hub/order.rs` and `hub/order/mod.rs`.
fn module_path(file: &Path) -> Vec<String> {
    let mut path: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.len() > 1 && path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

/// A word, `::` or a single other character, with its line.
type Token = (usize, String);

/// Returns every path from the crate's root that a file names, in `use` or inline, without the leading `crate`. `depth`
/// is the number of `super` that lead from the file to the root.
fn paths_of(source: &str, depth: usize) -> Vec<(usize, Vec<String>)> {
    let tokens = without_tests(tokens(source));
    let mut found = Vec::new();
    // Number of open braces where each inline module began.
    let mut inline: Vec<usize> = Vec::new();
    let mut braces = 0;
    let mut at = 0;
    while at < tokens.len() {
        let word = tokens[at].1.as_str();
        let continues = at > 0 && tokens[at - 1].1 == "::";
        match word {
            "{" => {
                if at >= 2 && tokens[at - 2].1 == "mod" {
                    inline.push(braces);
                }
                braces += 1;
            }
            "}" => {
                braces = braces.saturating_sub(1);
                inline.pop_if(|began| *began == braces);
            }
            // The program imports the library by its name; all other files use `crate`.
            "crate" | "super" | "switchboard" if !continues => {
                // Depth at which the path begins: `crate` is the root, each `super` goes one step towards it.
                let base = if word == "super" { (depth + inline.len()).saturating_sub(1) } else { 0 };
                at = follow(&tokens, at + 1, base, &[], &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads the path behind `crate` or `super` at `at`, which begins `above` steps under the root with `path`. Adds the
/// paths that begin at the root and returns the index behind the path.
fn follow(
    tokens: &[Token],
    mut at: usize,
    mut above: usize,
    path: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let mut path = path.to_vec();
    while tokens.get(at).is_some_and(|token| token.1 == "::") {
        let Some((_, next)) = tokens.get(at + 1) else { break };
        if next == "super" {
            above = above.saturating_sub(1);
        } else if next == "{" {
            return group(tokens, at + 2, above, &path, found);
        } else if next.starts_with(|c: char| c.is_alphabetic() || c == '_') && next != "self" {
            path.push(next.clone());
        } else {
            // `*`, `self` or a turbofish.
            at += 2;
            break;
        }
        at += 2;
    }
    if above == 0 && !path.is_empty() {
        found.push((tokens[at - 1].0, path));
    }
    at
}

/// Reads the branches of `{a, b::c}` and returns the index behind the closing brace.
fn group(
    tokens: &[Token],
    mut at: usize,
    above: usize,
    path: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    while let Some((line, word)) = tokens.get(at) {
        match word.as_str() {
            "}" => return at + 1,
            "," => at += 1,
            "super" => at = follow(tokens, at + 1, above.saturating_sub(1), path, found),
            "self" | "*" => {
                if above == 0 && !path.is_empty() {
                    found.push((*line, path.to_vec()));
                }
                at += 1;
            }
            "as" => at += 2,
            _ => {
                let longer = [path, std::slice::from_ref(word)].concat();
                at = follow(tokens, at + 1, above, &longer, found);
            }
        }
    }
    at
}

/// Splits source text into words and marks, without comments, strings and characters.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut tokens, mut line, mut at) = (Vec::new(), 1, 0);
    let starts = |at: usize, text: &str| text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while at < chars.len() {
        let begin = at;
        let c = chars[at];
        if starts(at, "//") {
            at += chars[at..].iter().take_while(|&&c| c != '\n').count();
        } else if starts(at, "/*") {
            at += 2;
            while at < chars.len() && !starts(at, "*/") {
                at += 1;
            }
            at += 2;
        } else if c == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == 'r' && (starts(at, "r\"") || starts(at, "r#\"")) {
            let end = if starts(at, "r\"") { "\"" } else { "\"#" };
            at += 1 + end.len();
            while at < chars.len() && !starts(at, end) {
                at += 1;
            }
            at += end.len();
        } else if c == '\'' && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'')) {
            at += 2;
            while at < chars.len() && chars[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else if c.is_alphabetic() || c == '_' {
            at += chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
            tokens.push((line, chars[begin..at].iter().collect()));
        } else {
            at += if starts(at, "::") { 2 } else { 1 };
            if !c.is_whitespace() {
                tokens.push((line, chars[begin..at].iter().collect()));
            }
        }
        line += chars[begin..at.min(chars.len())].iter().filter(|&&c| c == '\n').count();
    }
    tokens
}

/// Removes the item behind each `#[cfg(test)]`, up to its closing brace or semicolon.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let cfg = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().map(|token| token.1.as_str()).take(cfg.len()).eq(cfg) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut braces = 0;
        for (_, word) in &tokens[at..] {
            at += 1;
            match word.as_str() {
                "{" => braces += 1,
                "}" => braces -= 1,
                _ => {}
            }
            if braces == 0 && matches!(word.as_str(), "}" | ";") {
                break;
            }
        }
    }
    kept
}

/// Returns the paths in `source` as text, for a file that lies `depth` steps under the root.
fn found(source: &str, depth: usize) -> Vec<String> {
    paths_of(source, depth).into_iter().map(|(_, path)| path.join("::")).collect()
}

#[test]
fn paths_are_found_in_groups_inline_and_through_super() {
    let source = r#"
        use crate::{a, b::c, d::{self, e::*}, f as g};
        use crate::h::i;
        // use crate::comment;
        fn body() { crate::j::k::<u8>(); let text = "crate::string"; let c = '"'; }
        pub(in crate::l) struct S;
        use super::{m, super::nothing};
    "#;
    let expected = ["a", "b::c", "d", "d::e", "f", "h::i", "j::k", "l", "m", "nothing"];
    assert_eq!(found(source, 1), expected);
    assert_eq!(found("fn main() { switchboard::cli::run() }", 0), ["cli::run"]);
}

#[test]
fn super_counts_the_modules_it_leaves() {
    assert_eq!(found("use super::{inner, super::hub};", 2), ["hub"]);
    assert_eq!(found("mod make { use super::inner; use super::super::store; }", 1), ["store"]);
    assert_eq!(found("mod make { } use super::chat;", 1), ["chat"]);
}

#[test]
fn tests_may_import_any_module() {
    let source =
        "#[cfg(test)] mod tests { use crate::store; fn f() {} } #[cfg(test)] use crate::hub; use crate::model;";
    assert_eq!(found(source, 1), ["model"]);
}

#[test]
fn a_row_covers_a_module_or_a_part_of_it() {
    let import =
        Import { target: "session".into(), rest: vec!["outbox".into(), "Outbox".into()], file: String::new(), line: 1 };
    assert!(import.is_within("session") && import.is_within("session::outbox"));
    assert!(!import.is_within("session::socket") && !import.is_within("store"));
}

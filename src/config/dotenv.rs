//! The `.env` file.

use std::{collections::BTreeMap, fs, io, path::Path};

/// Reads a `.env` file without changing the process's environment. A missing file is empty.
///
/// # Errors
/// The fault of the file, in words that follow its name. They never repeat a value, as it may be a secret.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(format!("can't be read: {}", error.kind())),
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("is not UTF-8 text, first on line {line}: save the file as UTF-8")
    })?;
    // Editors of Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((number, flaw)) = flawed_line(text) {
        return Err(match flaw {
            Flaw::NoAssignment => {
                format!(
                    "has a line that is not NAME=value: line {number}. Correct it, or begin it with # to leave it out"
                )
            }
            Flaw::Altered(name) => format!(
                "has a value that would be altered or is not one word, because it contains a blank, $, #, \\ or a quote: put the \
                 value of {name} on line {number} in single quotes: {name}='…'"
            ),
        });
    }
    dotenvy::from_read_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|error| {
        // The error's own text repeats the line, which may hold a secret.
        let dotenvy::Error::LineParse(line, _) = error else { return "can't be read".to_owned() };
        let number = text.lines().position(|known| known.trim() == line.trim()).map_or(0, |index| index + 1);
        format!("has a value that can't be read, on line {number}: put it in single quotes: NAME='…'")
    })
}

/// The fault of a line.
#[derive(Debug, PartialEq, Eq)]
enum Flaw<'a> {
    /// It is not `NAME=value`.
    NoAssignment,
    /// The value of this name would be altered.
    Altered(&'a str),
}

/// The first line of a `.env` file, by number, that can't be read, or whose value the usual rules of such files alter: they
/// replace `$NAME`, end an unquoted value at a #, and read a \ as an escape. A secret would be another one without a word.
fn flawed_line(text: &str) -> Option<(usize, Flaw<'_>)> {
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(index, line)| (index + 1, line)).find_map(|(number, line)| Some((number, flaw(line)?)))
}

fn flaw(line: &str) -> Option<Flaw<'_>> {
    let Some((name, value)) = line.split_once('=') else { return Some(Flaw::NoAssignment) };
    let name = name.trim();
    let name = name.strip_prefix("export ").unwrap_or(name).trim();
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !begins || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
        return Some(Flaw::NoAssignment);
    }
    let value = value.trim();
    let plain = match value.chars().next() {
        Some('\'') => value.len() > 1 && value.ends_with('\'') && value.matches('\'').count() == 2,
        Some('"') => value.len() > 1 && value.ends_with('"') && !value[1..value.len() - 1].contains(['$', '\\', '"']),
        // A comment begins behind a blank.
        _ => {
            let before = value.split(" #").next().unwrap_or_default().trim_end();
            !before.contains(['$', '#', '\\', '"', '\'']) && !before.contains(char::is_whitespace)
        }
    };
    let comment = |quote: char| {
        // A quoted value may be followed by a comment.
        let rest = value.strip_prefix(quote)?.split_once(quote)?.1.trim();
        (rest.is_empty() || rest.starts_with('#')).then_some(())
    };
    let quoted = comment('\'').is_some()
        || comment('"').is_some_and(|()| !value[1..].split('"').next().unwrap_or_default().contains(['$', '\\']));
    (!plain && !quoted).then_some(Flaw::Altered(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_would_be_altered_are_found() {
        for fine in [
            "A=b",
            "# A=$b",
            "A='a$b#c\\d'",
            "A=\"a#b\"",
            "A=b # a comment",
            "A='x' # it's",
            "A=",
            "export A=b",
            "A=\"b\" # c",
        ] {
            assert_eq!(flawed_line(fine), None, "{fine}");
        }
        for bad in [
            "A=a$b",
            "A=a#b",
            "A=\"a$b\"",
            "A=a\\b",
            "A='it''s'",
            "A=it's",
            "\n\nexport A=a$b",
            "A=\"a\\n\"",
            "A=a bxx",
            "B=1\nA=a\tb # c",
        ] {
            let (number, flaw) = flawed_line(bad).unwrap_or_else(|| panic!("{bad}"));
            assert_eq!((number, flaw), (bad.lines().count(), Flaw::Altered("A")), "{bad}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_says_which_line_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        for (bytes, says) in [
            (&b"A=1\nJWT_SECRET=planted bxx\n"[..], ["JWT_SECRET on line 2", "JWT_SECRET='"]),
            (b"A=1\n\nplanted\n", ["line 3", "NAME=value"]),
            (b"A=1\nB-C=planted\n", ["line 2", "NAME=value"]),
            (b"A=1\nB=planted\xff\n", ["line 2", "save the file as UTF-8"]),
            (b"\xff\xfeA\0=\x001\0", ["line 1", "save the file as UTF-8"]),
        ] {
            fs::write(&path, bytes).unwrap();
            let why = read(&path).unwrap_err();
            assert!(says.iter().all(|part| why.contains(part)) && !why.contains("planted"), "{why}");
        }
        fs::write(&path, "\u{feff}A=1\r\nB=2\r\n").unwrap();
        assert_eq!(read(&path).unwrap(), BTreeMap::from([("A".into(), "1".into()), ("B".into(), "2".into())]));
    }
}

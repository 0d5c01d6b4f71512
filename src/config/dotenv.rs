//! The `.env` file.

use std::{collections::BTreeMap, fs, path::Path};

/// Reads a `.env` file without changing the process's environment. A missing file is empty.
///
/// # Errors
/// The fault of the file, in words that follow its name.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, String> {
    if let Some((number, name)) = fs::read_to_string(path).ok().as_deref().and_then(ambiguous_line) {
        return Err(format!(
            "has a value that would be altered, because it contains $, #, \\ or a quote: put the value of {name} on line {number} \
             in single quotes: {name}='…'"
        ));
    }
    match dotenvy::from_path_iter(path) {
        Ok(pairs) => pairs.collect::<Result<_, _>>().map_err(|error| {
            // The error's own text repeats the line, which may hold a secret.
            match error {
                dotenvy::Error::LineParse(_, at) => {
                    format!("has a line that is not NAME=value (at its character {at})")
                }
                _ => "can't be read".to_owned(),
            }
        }),
        Err(error) if error.not_found() => Ok(BTreeMap::new()),
        Err(_) => Err("can't be read".into()),
    }
}

/// The first line of a `.env` file, by number and name, whose value the usual rules of such files alter: they replace `$NAME`,
/// end an unquoted value at a #, and read a \ as an escape. A secret would be another one without a word.
fn ambiguous_line(text: &str) -> Option<(usize, &str)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'));
    lines.filter_map(|(index, line)| line.split_once('=').map(|(name, value)| (index + 1, name, value))).find_map(
        |(number, name, value)| {
            let value = value.trim();
            let plain = match value.chars().next() {
                Some('\'') => value.len() > 1 && value.ends_with('\'') && value.matches('\'').count() == 2,
                Some('"') => {
                    value.len() > 1 && value.ends_with('"') && !value[1..value.len() - 1].contains(['$', '\\', '"'])
                }
                // A comment begins behind a blank.
                _ => !value.split(" #").next().unwrap_or_default().contains(['$', '#', '\\', '"', '\'']),
            };
            let comment = |quote: char| {
                // A quoted value may be followed by a comment.
                let rest = value.strip_prefix(quote)?.split_once(quote)?.1.trim();
                (rest.is_empty() || rest.starts_with('#')).then_some(())
            };
            let quoted = comment('\'').is_some()
                || comment('"')
                    .is_some_and(|()| !value[1..].split('"').next().unwrap_or_default().contains(['$', '\\']));
            (!plain && !quoted).then(|| (number, name.trim().trim_start_matches("export ").trim()))
        },
    )
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
            assert_eq!(ambiguous_line(fine), None, "{fine}");
        }
        for bad in ["A=a$b", "A=a#b", "A=\"a$b\"", "A=a\\b", "A='it''s'", "A=it's", "\n\nexport A=a$b", "A=\"a\\n\""] {
            let (number, name) = ambiguous_line(bad).unwrap_or_else(|| panic!("{bad}"));
            assert_eq!((number, name), (bad.lines().count(), "A"), "{bad}");
        }
    }
}

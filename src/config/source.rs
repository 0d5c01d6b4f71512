//! Where values come from: flags over environment over `.env` over defaults; and the faults found on the way.

use std::{collections::BTreeMap, ffi::OsString, fmt, fs, path::Path, time::Duration};

use super::{
    parse,
    settings::{Kind, Setting},
};

/// The largest file that a secret is read from, in bytes.
const MAX_SECRET_FILE: u64 = 64 * 1_024;

/// Looks a variable up.
pub type Lookup = Box<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// What configuration is read from. Tests make their own; the program asks [`Sources::of_process`].
pub struct Sources {
    /// Values given as flags, by variable name.
    pub flags: BTreeMap<String, String>,
    /// The environment.
    pub environment: Lookup,
    /// What the `.env` file says.
    pub dotenv: BTreeMap<String, String>,
    /// How many files the process may open, where that is known.
    pub open_files: Option<usize>,
}

impl Sources {
    /// The process's own: its environment, and `.env` in the working directory.
    ///
    /// # Errors
    /// A `.env` that is not what such files are.
    pub fn of_process(flags: BTreeMap<String, String>) -> Result<Self, Faults> {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
        let environment: Lookup = Box::new(|name| std::env::var_os(name));
        Ok(Self { flags, environment, dotenv: read_dotenv(Path::new(".env"))?, open_files: open_files() })
    }
}

/// Reads a `.env` file without touching the process's environment; one that doesn't exist says nothing.
fn read_dotenv(path: &Path) -> Result<BTreeMap<String, String>, Faults> {
    match dotenvy::from_path_iter(path) {
        Ok(pairs) => pairs.collect::<Result<_, _>>().map_err(|error| {
            // The error's own text repeats the line, which may hold a secret.
            let message = match error {
                dotenvy::Error::LineParse(_, at) => {
                    format!("has a line that is no NAME=value (at character {at} of it)")
                }
                _ => "can't be read".to_owned(),
            };
            Faults(vec![Fault { variable: ".env".into(), message }])
        }),
        Err(error) if error.not_found() => Ok(BTreeMap::new()),
        Err(_) => Err(Faults(vec![Fault { variable: ".env".into(), message: "can't be read".into() }])),
    }
}

/// The process's soft limit of open files, as Linux tells it.
fn open_files() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The variable (or flag, or file) that is at fault.
    pub variable: String,
    /// What is wrong with it.
    pub message: String,
}

/// All that is wrong with the configuration, at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad configuration:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {} {}", fault.variable, fault.message))
    }
}

impl std::error::Error for Faults {}

/// One of the places that values come from.
type Level<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A value, and the name under which it was given.
struct Found {
    name: String,
    value: String,
}

/// Reads settings and collects what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) sources: &'a Sources,
    /// Under `switchboard dev`, whose defaults are used.
    pub(super) dev: bool,
    /// Dev's secret is made where there is none: dev itself does so, and nothing else.
    pub(super) makes_secret: bool,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources, dev: bool) -> Self {
        Self { sources, dev, makes_secret: false, faults: Vec::new() }
    }

    /// What was read, or everything that is wrong.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(Faults(self.faults)),
        }
    }

    /// Notes a fault.
    pub(super) fn fault(&mut self, variable: impl Into<String>, message: impl Into<String>) {
        let fault = Fault { variable: variable.into(), message: message.into() };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Notes that a setting is required and missing.
    pub(super) fn missing(&mut self, setting: &Setting) {
        self.fault(setting.name, "is required");
    }

    /// Reads a setting, or its default; `None` where there is neither, or where it is bad.
    pub(super) fn read<T>(&mut self, setting: &Setting, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let Some(found) = self.find(setting) else {
            return setting.default_in(self.dev).and_then(|default| parse(default).ok());
        };
        match parse(&found.value) {
            Ok(value) => Some(value),
            Err(message) if setting.secret => {
                self.fault(found.name, message);
                None
            }
            Err(message) => {
                self.fault(found.name, format!("{message} (it is {:?})", found.value));
                None
            }
        }
    }

    /// Reads text.
    pub(super) fn text(&mut self, setting: &Setting) -> Option<String> {
        self.read(setting, |text| Ok(text.to_owned()))
    }

    /// Reads `true` or `false`.
    pub(super) fn switch(&mut self, setting: &Setting) -> bool {
        self.read(setting, parse::switch).unwrap_or_default()
    }

    /// Reads a number within the bounds of its kind. What is bad reads as the least of `T`: nothing starts with it.
    pub(super) fn number<T: TryFrom<u64> + Default>(&mut self, setting: &Setting) -> T {
        let read = |text: &str| {
            let (number, least, most) = match setting.kind {
                Kind::Count(_, least, most) => (parse::count(text)?, least, most),
                Kind::Size(least, most) => (parse::size(text)?, least, most),
                Kind::Text(_) | Kind::Duration(..) | Kind::Switch => return Err("is not a number".to_owned()),
            };
            if !(least..=most).contains(&number) {
                return Err(format!("must be from {least} to {most}"));
            }
            T::try_from(number).map_err(|_| "is too large".to_owned())
        };
        self.read(setting, read).unwrap_or_default()
    }

    /// Reads a duration within the bounds of its kind.
    pub(super) fn duration(&mut self, setting: &Setting) -> Duration {
        let read = |text: &str| {
            let duration = parse::duration(text)?;
            let Kind::Duration(least, most) = setting.kind else { return Err("is not a duration".to_owned()) };
            let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
            if (least..=most).contains(&duration) {
                Ok(duration)
            } else {
                Err(format!("must be from {}s to {}s", least.as_secs(), most.as_secs()))
            }
        };
        self.read(setting, read).unwrap_or_default()
    }

    /// Whether a setting was given at all, well or badly, rather than left at its default.
    pub(super) fn given(&self, setting: &Setting) -> bool {
        let sources = self.sources;
        let file = setting.file_name();
        let aliases = setting.aliases.iter().map(|alias| alias.name);
        std::iter::once(setting.name).chain(file.as_deref()).chain(aliases).any(|name| {
            let written = [sources.flags.get(name), sources.dotenv.get(name)];
            written.into_iter().flatten().any(|value| !value.trim().is_empty())
                || (sources.environment)(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
        })
    }

    /// The value of the highest source that has one. What is empty counts as not given.
    fn find(&mut self, setting: &Setting) -> Option<Found> {
        let sources = self.sources;
        let flags = |name: &str| sources.flags.get(name).map(OsString::from);
        let dotenv = |name: &str| sources.dotenv.get(name).map(OsString::from);
        let levels: [Level<'_>; 3] = [&flags, &*sources.environment, &dotenv];
        levels.into_iter().find_map(|level| self.find_in(level, setting))
    }

    fn find_in(&mut self, level: Level<'_>, setting: &Setting) -> Option<Found> {
        let direct = self.value(level, setting.name);
        let file = setting.file_name().and_then(|name| self.value(level, &name).map(|path| (name, path)));
        match (direct, file) {
            (Some(_), Some((name, _))) => {
                self.fault(name, format!("and {} are both given", setting.name));
                None
            }
            (Some(value), None) => Some(Found { name: setting.name.to_owned(), value }),
            (None, Some((name, path))) => match read_secret(Path::new(&path)) {
                Ok(value) => Some(Found { name, value }),
                Err(message) => {
                    self.fault(name, message);
                    None
                }
            },
            (None, None) => setting.aliases.iter().find_map(|alias| {
                let value = self.value(level, alias.name)?;
                let plain = value.bytes().all(|b| b.is_ascii_digit());
                let unit = if plain { alias.plain_unit } else { "" };
                Some(Found { name: alias.name.to_owned(), value: value + unit })
            }),
        }
    }

    /// What one source says, trimmed.
    fn value(&mut self, level: Level<'_>, name: &str) -> Option<String> {
        match level(name)?.into_string() {
            Ok(value) => Some(value.trim().to_owned()).filter(|value| !value.is_empty()),
            Err(_) => {
                self.fault(name, "is not UTF-8");
                None
            }
        }
    }
}

/// Reads a secret from a file; line ends around it don't count.
fn read_secret(path: &Path) -> Result<String, &'static str> {
    let size = fs::metadata(path).map_err(|_| "names a file that can't be read")?.len();
    if size > MAX_SECRET_FILE {
        return Err("names a file that is too large");
    }
    let text = fs::read_to_string(path).map_err(|_| "names a file that can't be read as text")?;
    match text.trim() {
        "" => Err("names an empty file"),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_limit_is_read() {
        assert!(open_files().is_none_or(|limit| limit > 2));
    }

    #[test]
    fn a_bad_dotenv_is_named_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        assert!(read_dotenv(&path).unwrap().is_empty());
        fs::write(&path, "A=1\n# note\nB='two words'\n").unwrap();
        assert_eq!(read_dotenv(&path).unwrap()["B"], "two words");
        fs::write(&path, "A=1\nplanted secret without a sign\n").unwrap();
        let faults = read_dotenv(&path).unwrap_err().to_string();
        assert!(faults.contains(".env") && !faults.contains("planted"), "{faults}");
    }
}

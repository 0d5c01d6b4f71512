//! Sources of values (flags override the environment, which overrides `.env`, which overrides defaults), and the faults
//! found while reading them.

use std::{collections::BTreeMap, ffi::OsString, fmt, fs, path::Path, time::Duration};

use super::{
    dotenv, parse,
    secret::Secret,
    secret_source::{SecretSource, read_secret},
    settings::{Kind, Setting},
};

/// Looks up an environment variable.
pub type Lookup = Box<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// The sources of the configuration. Tests construct their own; the program uses [`Sources::of_process`].
pub struct Sources {
    /// Values given as flags, by variable name.
    pub flags: BTreeMap<String, String>,
    /// The environment.
    pub environment: Lookup,
    /// The variables of the `.env` file.
    pub dotenv: BTreeMap<String, String>,
    /// The process's limit of open files, if known.
    pub open_files: Option<usize>,
}

impl Sources {
    /// The sources of this process: its environment, and `.env` in the working directory.
    ///
    /// # Errors
    /// The `.env` file can't be read or parsed.
    pub fn of_process(flags: BTreeMap<String, String>) -> Result<Self, ConfigFaults> {
        let fault = |message| ConfigFaults(vec![ConfigFault { variable: ".env".into(), message }]);
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
        let environment: Lookup = Box::new(|name| std::env::var_os(name));
        Ok(Self {
            flags,
            environment,
            dotenv: dotenv::read(Path::new(".env")).map_err(fault)?,
            open_files: open_files(),
        })
    }
}

/// The process's soft limit of open files, from /proc; `None` where that does not exist.
fn open_files() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// One fault of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// The variable (or flag, or file) that is at fault.
    pub variable: String,
    /// Message that follows the variable's name.
    pub message: String,
}

/// Every fault of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults(pub Vec<ConfigFault>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad configuration:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {} {}", fault.variable, fault.message))
    }
}

impl std::error::Error for ConfigFaults {}

/// One source, by which a value is looked up.
type Source<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A place where values are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Flag,
    Environment,
    DotEnv,
}

/// A value, the variable that it came from, and where that was given.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) place: Place,
    /// The file that holds it, if it is a secret in a file.
    pub(super) file: Option<String>,
}

/// Reads settings and collects their faults.
pub(super) struct Reader<'a> {
    pub(super) sources: &'a Sources,
    /// True under `switchboard dev`, which has other defaults.
    pub(super) dev: bool,
    /// True if a missing secret of dev is created: only for `switchboard dev` itself.
    pub(super) creates_secret: bool,
    faults: Vec<ConfigFault>,
}

/// Parses a duration within the bounds of the setting's kind.
///
/// # Errors
/// The text is no duration, or is out of the bounds; the message names them.
pub fn duration_within(setting: &Setting, text: &str) -> Result<Duration, String> {
    let duration = parse::duration(text)?;
    let Kind::Duration(min, max) = setting.kind else { return Err("is not a duration".to_owned()) };
    let bounds = Duration::from_millis(min)..=Duration::from_millis(max);
    if bounds.contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("must be from {} to {}", parse::duration_text(min), parse::duration_text(max)))
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources, dev: bool) -> Self {
        Self { sources, dev, creates_secret: false, faults: Vec::new() }
    }

    /// The value that was read, or every fault.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, ConfigFaults> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(ConfigFaults(self.faults)),
        }
    }

    /// Records a fault.
    pub(super) fn fault(&mut self, variable: impl Into<String>, message: impl Into<String>) {
        let fault = ConfigFault { variable: variable.into(), message: message.into() };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Records that a required setting is missing.
    pub(super) fn missing(&mut self, setting: &Setting) {
        self.fault(setting.name, "is required");
    }

    /// Reads a setting, or its default; `None` if there is neither, or if the value is bad.
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

    /// Reads a text.
    pub(super) fn text(&mut self, setting: &Setting) -> Option<String> {
        self.read(setting, |text| Ok(text.to_owned()))
    }

    /// Reads a secret, with the file that it comes from.
    pub(super) fn secret(&mut self, setting: &Setting) -> Option<SecretSource> {
        let found = self.find(setting)?;
        Some(match found.file {
            Some(path) => SecretSource::of_file(Secret::new(found.value), found.name, path.into()),
            None => SecretSource::fixed(found.value),
        })
    }

    /// Reads `true` or `false`.
    pub(super) fn switch(&mut self, setting: &Setting) -> bool {
        self.read(setting, parse::switch).unwrap_or_default()
    }

    /// Reads a number within the bounds of its kind. A bad value reads as `T::default()`, and the fault prevents the
    /// start.
    pub(super) fn number<T: TryFrom<u64> + Default>(&mut self, setting: &Setting) -> T {
        let read = |text: &str| {
            let (number, min, max) = match setting.kind {
                Kind::Count(_, min, max) => (parse::count(text)?, min, max),
                Kind::Size(min, max) => (parse::size(text)?, min, max),
                Kind::Text(_) | Kind::Duration(..) | Kind::Switch => return Err("is not a number".to_owned()),
            };
            if !(min..=max).contains(&number) {
                return Err(format!("must be from {min} to {max}"));
            }
            T::try_from(number).map_err(|_| "is too large".to_owned())
        };
        self.read(setting, read).unwrap_or_default()
    }

    /// Reads a duration within the bounds of its kind.
    pub(super) fn duration(&mut self, setting: &Setting) -> Duration {
        self.read(setting, |text| duration_within(setting, text)).unwrap_or_default()
    }

    /// True if a source has a value for the setting, good or bad.
    pub(super) fn given(&self, setting: &Setting) -> bool {
        let sources = self.sources;
        let file = setting.file_name();
        let aliases = setting.aliases.iter().map(|alias| alias.name);
        std::iter::once(setting.name).chain(file.as_deref()).chain(aliases).any(|name| {
            let values = [sources.flags.get(name), sources.dotenv.get(name)];
            values.into_iter().flatten().any(|value| !value.trim().is_empty())
                || (sources.environment)(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
        })
    }

    /// The value from the first source that has one. An empty value counts as not set.
    pub(super) fn find(&mut self, setting: &Setting) -> Option<Found> {
        let sources = self.sources;
        let flags = |name: &str| sources.flags.get(name).map(OsString::from);
        let dotenv = |name: &str| sources.dotenv.get(name).map(OsString::from);
        let all_sources: [(Source<'_>, Place); 3] =
            [(&flags, Place::Flag), (&*sources.environment, Place::Environment), (&dotenv, Place::DotEnv)];
        all_sources.into_iter().find_map(|(source, place)| self.find_in(source, place, setting))
    }

    fn find_in(&mut self, source: Source<'_>, place: Place, setting: &Setting) -> Option<Found> {
        let direct = self.value(source, setting.name);
        let file = setting.file_name().and_then(|name| self.value(source, &name).map(|path| (name, path)));
        match (direct, file) {
            (Some(_), Some((name, _))) => {
                self.fault(name, format!("and {} are both given; give only one", setting.name));
                None
            }
            (Some(value), None) => Some(Found { name: setting.name.to_owned(), value, place, file: None }),
            (None, Some((name, path))) => match read_secret(Path::new(&path)) {
                Ok(value) => Some(Found { name, value, place, file: Some(path) }),
                Err(message) => {
                    self.fault(name, message);
                    None
                }
            },
            (None, None) => setting.aliases.iter().find_map(|alias| {
                let value = self.value(source, alias.name)?;
                let plain = value.bytes().all(|b| b.is_ascii_digit());
                let unit = if plain { alias.plain_unit } else { "" };
                Some(Found { name: alias.name.to_owned(), value: value + unit, place, file: None })
            }),
        }
    }

    /// A variable's trimmed value in one source; `None` if empty.
    fn value(&mut self, source: Source<'_>, name: &str) -> Option<String> {
        match source(name)?.into_string() {
            Ok(value) => Some(value.trim().to_owned()).filter(|value| !value.is_empty()),
            Err(_) => {
                self.fault(name, "is not UTF-8");
                None
            }
        }
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
        assert!(dotenv::read(&path).unwrap().is_empty());
        fs::write(&path, "A=1\n# note\nB='two words'\n").unwrap();
        assert_eq!(dotenv::read(&path).unwrap()["B"], "two words");
        fs::write(&path, "A=1\nplanted secret without a sign\n").unwrap();
        let faults = dotenv::read(&path).unwrap_err().to_string();
        assert!(faults.contains("NAME=value") && !faults.contains("planted"), "{faults}");
    }
}

//! Secrets with the place that they come from: those in files can be read again when a server refuses what they held.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use super::secret::Secret;

/// Maximum length of a file with a secret, in bytes.
const MAX_SECRET_FILE: u64 = 64 * 1_024;

/// A secret as it was read at the start, and its file if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    value: Secret,
    file: Option<SecretFile>,
}

/// A file that holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The variable that names the file.
    variable: String,
    path: PathBuf,
}

impl SecretSource {
    /// A secret that has no file.
    pub fn fixed(text: impl Into<String>) -> Self {
        Self { value: Secret::new(text), file: None }
    }

    /// A secret that was read from the file at `path`, which `variable` names.
    pub(super) fn of_file(value: Secret, variable: String, path: PathBuf) -> Self {
        Self { value, file: Some(SecretFile { variable, path }) }
    }

    /// A secret of a file, which is not read.
    #[cfg(test)]
    pub(crate) fn for_tests(value: Secret, variable: &str, path: &Path) -> Self {
        Self::of_file(value, variable.to_owned(), path.to_owned())
    }

    /// The secret as it was at the start.
    pub fn value(&self) -> &Secret {
        &self.value
    }

    /// Its file; `None` if it has none.
    pub fn file(&self) -> Option<&SecretFile> {
        self.file.as_ref()
    }

    /// The secret as its file holds it now, or as it was.
    ///
    /// # Errors
    /// The file can't be read; the message names the variable and the file.
    pub fn read_again(&self) -> Result<Secret, String> {
        match &self.file {
            None => Ok(self.value.clone()),
            Some(file) => read_secret(&file.path).map(Secret::new).map_err(|why| format!("{file} {why}")),
        }
    }
}

impl fmt::Display for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.variable, self.path.display())
    }
}

/// Reads a secret from a file and trims white space.
pub(super) fn read_secret(path: &Path) -> Result<String, &'static str> {
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

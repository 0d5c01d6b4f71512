//! [`Run`]: what a run measured, and the JSON file that keeps it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::record::Figure;

/// Version of the file's shape; it changes if a program that reads the file must.
const FORMAT: u32 = 1;

/// A run, as its file holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub format: u32,
    /// The begin, RFC 3339 in UTC.
    pub started_at: String,
    /// Version and commit of the program.
    pub version: String,
    pub commit: String,
    /// Cores of the machine.
    pub cores: usize,
    /// Arguments, defaults included.
    pub arguments: Map<String, Value>,
    pub figures: Vec<Figure>,
}

impl Run {
    /// A run that begins.
    pub fn begin(started_at: String, version: &str, commit: &str, cores: usize, arguments: Map<String, Value>) -> Self {
        let (version, commit) = (version.to_owned(), commit.to_owned());
        Self { format: FORMAT, started_at, version, commit, cores, arguments, figures: Vec::new() }
    }

    /// The file of this run in `folder`.
    pub fn path(&self, folder: &Path) -> PathBuf {
        // Colons trouble shells and other systems.
        folder.join(self.started_at.replace(':', "-") + ".json")
    }

    /// Writes the file. A reader finds either the file before or this one.
    ///
    /// # Errors
    /// The message for the user.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            let part = path.with_extension("part");
            fs::write(&part, serde_json::to_string_pretty(self)? + "\n")?;
            fs::rename(part, path)
        };
        write().map_err(|error| format!("{} can't be written: {error}", path.display()))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The message for the user.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |why: String| format!("{} {why}", path.display());
        let text = fs::read_to_string(path).map_err(|error| wrong(format!("can't be read: {error}")))?;
        let run: Self =
            serde_json::from_str(&text).map_err(|error| wrong(format!("is no file of `make bench`: {error}")))?;
        if run.format == FORMAT {
            Ok(run)
        } else {
            Err(wrong(format!("has format {}, and this program compares format {FORMAT}", run.format)))
        }
    }
}

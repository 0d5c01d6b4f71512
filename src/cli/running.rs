//! `running.json`: a running `switchboard dev` writes its addresses to this file in its data folder, for other commands
//! on this machine.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    net::SocketAddr,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::config::{make_private_folder, open_private_file};

/// Name of the file in the data folder.
const FILE: &str = "running.json";
/// Name of the file that a running dev holds locked.
const LOCK_FILE: &str = "lock";

/// Creates the data folder if need be, and locks it for this process. Two nodes on one data folder would share the messages but not deliver to each
/// other. The lock ends when the file is closed, also if the process is killed.
///
/// # Errors
/// A message for the user: another dev runs with this folder, or the file can't be locked.
pub(super) fn lock_folder(folder: &Path) -> Result<File, String> {
    let path = folder.join(LOCK_FILE);
    let cannot = |error: io::Error| format!("{} can't be locked: {error}", path.display());
    make_private_folder(folder).map_err(cannot)?;
    let file = open_private_file(&path, true).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "a switchboard dev runs already with the data folder {}. Its page: switchboard dev --page --data-dir '{}'. For a \
             second one, name another folder: --data-dir FOLDER",
            folder.display(),
            folder.display()
        )),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

/// Process and addresses of a running dev.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    /// Process id.
    pub(super) pid: u32,
    /// Address of the clients' listener; the first of several.
    pub(super) clients: SocketAddr,
    /// Address of the admin listener, if there is one.
    pub(super) admin: Option<SocketAddr>,
}

impl Running {
    /// Writes the file.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_string(self)?;
        // The rename is atomic: readers see the old file or the new one, never a part.
        let fresh = folder.join(format!("{FILE}.{}", self.pid));
        open_private_file(&fresh, true)?.write_all(text.as_bytes())?;
        fs::rename(fresh, folder.join(FILE))
    }

    /// Removes the file, unless another process has replaced it.
    pub(super) fn remove(&self, folder: &Path) {
        if Self::find(folder).is_ok_and(|found| found.pid == self.pid) {
            // A file that can't be removed does no harm: connecting to its address fails.
            let _ = fs::remove_file(folder.join(FILE));
        }
    }

    /// Reads the file of the dev with this data folder. The file of a killed dev remains, so the dev may not run any
    /// more.
    ///
    /// # Errors
    /// A message for the user: no dev runs with this folder, or the file can't be read.
    pub(super) fn find(folder: &Path) -> Result<Self, String> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_running_message(folder)),
            Err(error) => return Err(format!("{} can't be read: {error}", path.display())),
        };
        serde_json::from_str(&text).map_err(|_| format!("{} is damaged: start switchboard dev anew", path.display()))
    }
}

/// The message that no dev runs with this data folder, with the remedy.
pub(super) fn not_running_message(folder: &Path) -> String {
    format!(
        "no switchboard dev runs with the data folder {}. Start it (switchboard dev), or name the folder that dev shows as \
         Data: --data-dir FOLDER",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_by_one_dev_at_a_time() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("new");
        let first = lock_folder(&folder).unwrap();
        assert!(lock_folder(&folder).unwrap_err().contains("--data-dir"));
        drop(first);
        lock_folder(&folder).unwrap();
    }

    #[test]
    fn the_file_is_found_until_its_own_process_removes_it() {
        let folder = tempfile::tempdir().unwrap();
        let clients = "127.0.0.1:4711".parse().unwrap();
        let first = Running { pid: 1, clients, admin: None };
        let second = Running { pid: 2, ..first.clone() };
        assert!(Running::find(folder.path()).unwrap_err().contains(folder.path().to_str().unwrap()));
        first.write(folder.path()).unwrap();
        assert_eq!(Running::find(folder.path()), Ok(first.clone()));
        second.write(folder.path()).unwrap();
        first.remove(folder.path());
        assert_eq!(Running::find(folder.path()), Ok(second.clone()), "the second process owns the file");
        second.remove(folder.path());
        assert!(Running::find(folder.path()).is_err());
    }
}

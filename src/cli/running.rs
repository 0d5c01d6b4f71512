//! Where a running `switchboard dev` listens: it says so in a file in its data folder, for other commands on this machine.

use std::{fs, io, net::SocketAddr, path::Path};

use serde::{Deserialize, Serialize};

/// The file, within the data folder.
const FILE: &str = "running.json";

/// Where dev listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    /// Its process.
    pub(super) pid: u32,
    /// Where clients connect; the first of several.
    pub(super) clients: SocketAddr,
    /// Where metrics are, if anywhere.
    pub(super) admin: Option<SocketAddr>,
}

impl Running {
    /// Says that this process listens there.
    pub(super) fn announce(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_string(self)?;
        // Readers see the old file or the new one, never a part of it.
        let fresh = folder.join(format!("{FILE}.{}", self.pid));
        fs::write(&fresh, text)?;
        fs::rename(fresh, folder.join(FILE))
    }

    /// Takes the file back, unless another process has written it since.
    pub(super) fn withdraw(&self, folder: &Path) {
        if Self::find(folder).is_ok_and(|found| found.pid == self.pid) {
            // A file that stays is found out by whoever connects.
            let _ = fs::remove_file(folder.join(FILE));
        }
    }

    /// Where the dev with this data folder listens, or listened when it was killed.
    ///
    /// # Errors
    /// None runs, in words for the user.
    pub(super) fn find(folder: &Path) -> Result<Self, String> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(none_runs(folder)),
            Err(error) => return Err(format!("{} can't be read: {error}", path.display())),
        };
        serde_json::from_str(&text).map_err(|_| format!("{} is damaged: start switchboard dev anew", path.display()))
    }
}

/// That no dev runs with this data folder, and what to do.
pub(super) fn none_runs(folder: &Path) -> String {
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
    fn what_was_announced_is_found_until_it_is_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let clients = "127.0.0.1:4711".parse().unwrap();
        let first = Running { pid: 1, clients, admin: None };
        let second = Running { pid: 2, ..first.clone() };
        assert!(Running::find(folder.path()).unwrap_err().contains(folder.path().to_str().unwrap()));
        first.announce(folder.path()).unwrap();
        assert_eq!(Running::find(folder.path()), Ok(first.clone()));
        second.announce(folder.path()).unwrap();
        first.withdraw(folder.path());
        assert_eq!(Running::find(folder.path()), Ok(second.clone()), "the file is the other one's by now");
        second.withdraw(folder.path());
        assert!(Running::find(folder.path()).is_err());
    }
}

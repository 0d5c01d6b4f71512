//! Certificates of an authority that a test makes.

use std::{
    fs::{Permissions, set_permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{guard, postgres::other_user};

/// An authority, in a folder that every server can read.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Makes one.
    pub fn new() -> Self {
        let authority = Self { folder: guard::folder("switchboard-authority-") };
        set_permissions(authority.folder.path(), Permissions::from_mode(0o755)).expect("the folder is ours");
        // Of two with the same name, a server would blame the signature.
        let name = authority.folder.path().file_name().expect("it has a name").to_string_lossy();
        authority.openssl(&format!("req -x509 -days 2 -subj /CN={name}"), "-keyout ca.key -out ca.pem");
        authority
    }

    /// The file with its certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Makes a certificate for a name, which is also that of a host. Returns its file and that of its key, which PostgreSQL can
    /// read too.
    pub fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue_for(name, 2)
    }

    /// The same, valid for some days. For none, it has expired after a second.
    pub fn issue_for(&self, name: &str, days: u32) -> (PathBuf, PathBuf) {
        self.openssl(
            &format!("req -subj /CN={name} -addext subjectAltName=DNS:{name},IP:127.0.0.1"),
            &format!("-keyout {name}.key -out {name}.csr"),
        );
        self.run(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -days {days} -copy_extensions copy -out {name}.pem"
        ));
        let [certificate, key] = ["pem", "key"].map(|kind| self.folder.path().join(format!("{name}.{kind}")));
        set_permissions(&key, Permissions::from_mode(0o600)).expect("the file is ours");
        if let Some((user, group)) = other_user() {
            chown(&key, Some(user), Some(group)).expect("root may give files away");
        }
        (certificate, key)
    }

    fn openssl(&self, request: &str, files: &str) {
        self.run(&format!("{request} -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes {files}"));
    }

    fn run(&self, words: &str) {
        let run = Command::new("openssl").args(words.split_whitespace()).current_dir(self.folder.path()).output();
        let run = run.expect("openssl runs");
        assert!(run.status.success(), "{words}: {}", String::from_utf8_lossy(&run.stderr));
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// Replaces the content of a file by that of another one, as tools that renew secrets do: at once.
pub fn replace(file: &Path, by: &Path) {
    let new = file.with_extension("new");
    std::fs::copy(by, &new).expect("both files are readable");
    std::fs::rename(new, file).expect("the file can be replaced");
}

//! Logins and certificates that change while the node runs. A login is read again from its file after a server refused the one
//! before; certificates are read again before a new connection. Open connections stay as they are.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::config::{SecretFile, TlsFiles, TlsMaterial};

mod alert;

pub use alert::{causes, refused_certificate};

/// Minimum time between two reads of the same files.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Time after which the same remark is logged again.
const QUIET: Duration = Duration::from_secs(60);

/// Reads a login as its files hold it now.
type Read<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// The login at servers of one kind, and the one before it. Servers that are told of a new password one after another take the
/// one or the other meanwhile.
pub struct Logins<T> {
    /// Words for the servers: `Redis`.
    servers: &'static str,
    /// The files of the login in words; empty if it has none.
    files: String,
    read: Read<T>,
    state: Mutex<LoginState<T>>,
}

struct LoginState<T> {
    current: Arc<T>,
    former: Option<Arc<T>>,
    read_at: Option<Instant>,
    /// The result of the last read.
    remark: String,
    told: Option<(String, Instant)>,
}

impl<T: PartialEq> Logins<T> {
    /// A login that comes from `files`, and how it is read again.
    pub fn new(servers: &'static str, login: T, files: &[&SecretFile], read: Read<T>) -> Self {
        let files = files.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        let (current, remark) = (Arc::new(login), String::new());
        Self {
            servers,
            files,
            read,
            state: Mutex::new(LoginState { current, former: None, read_at: None, remark, told: None }),
        }
    }

    /// The login for the next connection.
    pub fn current(&self) -> Arc<T> {
        self.state().current.clone()
    }

    /// The login to try once more after a server refused `refused`; `None` if there is no other. Reads the files again, unless
    /// that was done less than a second ago.
    pub fn after_refusal(&self, refused: &Arc<T>) -> Option<Arc<T>> {
        if self.files.is_empty() {
            return None;
        }
        let mut state = self.state();
        if !Arc::ptr_eq(&state.current, refused) {
            return Some(state.current.clone());
        }
        let now = Instant::now();
        if state.read_at.is_some_and(|at| now.duration_since(at) < READ_EVERY) {
            return state.former.clone();
        }
        state.read_at = Some(now);
        let (remark, next) = match (self.read)() {
            Ok(login) if login == *state.current => {
                (format!("{} was read again and holds the same login", self.files), state.former.clone())
            }
            Ok(login) => {
                let new = Arc::new(login);
                state.former = Some(std::mem::replace(&mut state.current, new.clone()));
                (format!("{} was read again and holds a new login", self.files), Some(new))
            }
            Err(why) => (format!("the login could not be read again: {why}"), state.former.clone()),
        };
        let known = state.told.as_ref().is_some_and(|(told, at)| *told == remark && now.duration_since(*at) < QUIET);
        if !known {
            tracing::warn!(servers = self.servers, remark, "a server refused the login");
            state.told = Some((remark.clone(), now));
        }
        state.remark = remark;
        next
    }

    /// The result of the last read of the files, to add to the reason of a refusal; empty if there was none.
    pub fn remark(&self) -> String {
        let state = self.state();
        if state.remark.is_empty() { String::new() } else { format!("; {}", state.remark) }
    }

    fn state(&self) -> MutexGuard<'_, LoginState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes something of the content of TLS files.
type Make<T> = Box<dyn Fn(&TlsMaterial) -> Result<T, String> + Send + Sync>;

/// A value made from TLS files, made anew when their content changes.
pub struct WatchedTls<T> {
    files: TlsFiles,
    make: Make<T>,
    state: Mutex<TlsState<T>>,
}

struct TlsState<T> {
    made: T,
    material: TlsMaterial,
    read_at: Instant,
    told: Option<String>,
}

impl<T: Clone> WatchedTls<T> {
    /// Reads the files.
    ///
    /// # Errors
    /// A file is bad; the message names it.
    pub fn new(
        files: TlsFiles,
        make: impl Fn(&TlsMaterial) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let material = files.read()?;
        let made = make(&material)?;
        let state = Mutex::new(TlsState { made, material, read_at: Instant::now(), told: None });
        Ok(Self { files, make: Box::new(make), state })
    }

    /// The words for a server that refuses the certificate that the node shows, or demands one, for the reason `why`.
    pub fn refused(&self, why: &str) -> String {
        self.files.refused(why)
    }

    /// The value for the files as they are now. Files that are bad at the moment, because they are just being replaced, change nothing.
    pub fn current(&self) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_files = self.files.ca.is_some() || self.files.client.is_some();
        if !has_files || state.read_at.elapsed() < READ_EVERY {
            return state.made.clone();
        }
        state.read_at = Instant::now();
        let read = self.files.read().and_then(|material| {
            if material == state.material {
                Ok(None)
            } else {
                (self.make)(&material).map(|made| Some((material, made)))
            }
        });
        match read {
            Ok(None) => state.told = None,
            Ok(Some((material, made))) => {
                tracing::info!(
                    files = self.files.in_words(),
                    "certificates were replaced; new connections use the new ones"
                );
                (state.material, state.made, state.told) = (material, made, None);
            }
            Err(why) => {
                if state.told.as_ref() != Some(&why) {
                    tracing::warn!(why, "certificates can't be read again; new connections use those from before");
                    state.told = Some(why);
                }
            }
        }
        state.made.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Secret, SecretSource};

    fn logins(values: &Arc<Mutex<Result<&'static str, String>>>) -> Logins<&'static str> {
        let source = SecretSource::for_tests(Secret::new("planted"), "REDIS_PASSWORD_FILE", Path::new("/run/p"));
        let values = values.clone();
        Logins::new("Redis", "old", &[source.file().unwrap()], Box::new(move || values.lock().unwrap().clone()))
    }

    /// Lets the next refusal read the files again.
    fn wait(logins: &Logins<&'static str>) {
        logins.state().read_at = None;
    }

    #[test]
    fn a_refused_login_is_read_again_and_the_one_before_is_kept() {
        let values = Arc::new(Mutex::new(Ok("old")));
        let logins = logins(&values);
        let first = logins.current();
        assert_eq!(logins.after_refusal(&first), None, "the file holds the same");
        assert!(logins.remark().contains("REDIS_PASSWORD_FILE (/run/p) was read again and holds the same"));
        *values.lock().unwrap() = Ok("new");
        assert_eq!(logins.after_refusal(&first), None, "it was read a moment ago");
        wait(&logins);
        assert_eq!(logins.after_refusal(&first).as_deref(), Some(&"new"));
        assert_eq!(*logins.current(), "new");
        // A connection that began before gets the new one without a read.
        assert_eq!(logins.after_refusal(&first).as_deref(), Some(&"new"));
        // A server that was not told yet takes the one before.
        wait(&logins);
        assert_eq!(logins.after_refusal(&logins.current()).as_deref(), Some(&"old"));
        wait(&logins);
        *values.lock().unwrap() = Err("REDIS_PASSWORD_FILE (/run/p) names an empty file".to_owned());
        assert_eq!(logins.after_refusal(&logins.current()).as_deref(), Some(&"old"));
        assert!(logins.remark().contains("names an empty file") && !logins.remark().contains("planted"));
    }

    #[test]
    fn a_login_without_a_file_is_never_read_again() {
        let logins = Logins::new("Redis", "old", &[], Box::new(|| panic!("it was read")));
        assert_eq!(logins.after_refusal(&logins.current()), None);
        assert_eq!(logins.remark(), "");
    }

    #[test]
    fn replaced_certificates_are_used_and_bad_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, "one").unwrap();
        let make = |material: &TlsMaterial| match material.ca.as_deref() {
            Some(b"bad") => Err("no certificate in it".to_owned()),
            ca => Ok(String::from_utf8(ca.unwrap().to_vec()).unwrap()),
        };
        let tls = WatchedTls::new(TlsFiles { ca: Some(ca.clone()), ..TlsFiles::default() }, make).unwrap();
        let after = |text: Option<&str>| {
            match text {
                Some(text) => std::fs::write(&ca, text).unwrap(),
                None => std::fs::remove_file(&ca).unwrap(),
            }
            tls.state.lock().unwrap().read_at -= READ_EVERY;
            tls.current()
        };
        assert_eq!(tls.current(), "one");
        assert_eq!(after(Some("bad")), "one");
        assert_eq!(after(None), "one");
        assert_eq!(after(Some("two")), "two");
        std::fs::write(&ca, "three").unwrap();
        assert_eq!(tls.current(), "two", "it was read a moment ago");
    }
}

//! The data folder of `switchboard dev`, and the secret in it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rand::Rng;

use super::{
    secret::{MIN_SECRET_BYTES, check_secret_length},
    settings as set,
    source::{ConfigFaults, Reader, Sources},
};

/// The file with the secret of dev, within DATA_DIR.
pub(crate) const SECRET_FILE: &str = "secret";
/// The file with the token of dev's console, within DATA_DIR.
pub(crate) const ADMIN_TOKEN_FILE: &str = "admin-token";
/// The database file of dev, within DATA_DIR.
pub(super) const DATABASE_FILE: &str = "switchboard.db";
/// Beginnings of the names of all entries that dev makes in DATA_DIR; `python` is the environment of its page.
const OWN_ENTRIES: [&str; 6] = [SECRET_FILE, ADMIN_TOKEN_FILE, DATABASE_FILE, "running.json", "lock", "python"];
/// Permissions of the data folder: only its owner may enter it.
const FOLDER_MODE: u32 = 0o700;
/// Permissions of the files in it: only their owner may read them.
const FILE_MODE: u32 = 0o600;

/// The data folder of dev, as an absolute path. It need not exist.
///
/// # Errors
/// DATA_DIR has a fault.
pub fn data_folder(sources: &Sources) -> Result<PathBuf, ConfigFaults> {
    let mut reader = Reader::new(sources, true);
    let folder = folder(&mut reader);
    reader.finish(folder)
}

fn folder(reader: &mut Reader<'_>) -> Option<PathBuf> {
    let folder = PathBuf::from(reader.text(&set::DATA_DIR)?);
    Some(std::path::absolute(&folder).unwrap_or(folder))
}

/// The secret of dev. `switchboard dev` creates it in DATA_DIR at its first start; for other commands a missing secret
/// is a fault that names the folder.
pub(super) fn secret(reader: &mut Reader<'_>) -> Option<String> {
    secret_in(reader, SECRET_FILE)
}

/// The token of dev's console, likewise.
pub(super) fn admin_token(reader: &mut Reader<'_>) -> Option<String> {
    secret_in(reader, ADMIN_TOKEN_FILE)
}

fn secret_in(reader: &mut Reader<'_>, file: &str) -> Option<String> {
    let folder = folder(reader)?;
    let found = if reader.creates_secret { read_or_create(&folder, file) } else { read(&folder, file) };
    let message = match found {
        Ok(secret) => return Some(secret),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !reader.creates_secret => format!(
            "does not name a data folder of switchboard dev: {} holds no secret. Name the folder that dev shows as \
             Data (--data-dir FOLDER), or start switchboard dev first",
            folder.display()
        ),
        Err(error) => {
            format!("names a folder in which the secret can't be read or created: {} ({error})", folder.display())
        }
    };
    reader.fault(set::DATA_DIR.name, message);
    None
}

fn read(folder: &Path, file: &str) -> io::Result<String> {
    let path = folder.join(file);
    let secret = fs::read_to_string(&path)?.trim().to_owned();
    check_secret_length(&secret).map_err(|message| io::Error::other(format!("{} {message}", path.display())))
}

fn read_or_create(folder: &Path, name: &str) -> io::Result<String> {
    make_private_folder(folder)?;
    let path = folder.join(name);
    match fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path) {
        Ok(mut file) => {
            let mut bytes = [0_u8; MIN_SECRET_BYTES];
            rand::rng().fill_bytes(&mut bytes);
            let secret = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            file.write_all(secret.as_bytes()).map(|()| secret)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            restrict(&path, FILE_MODE)?;
            read(folder, name)
        }
        Err(error) => Err(error),
    }
}

/// Creates the data folder for its owner only. An existing folder is restricted to its owner if it holds nothing but
/// the files of dev; in any other folder other programs may need the access, and only dev's files are restricted. The
/// same holds for a folder that belongs to another user, such as a volume of a container.
///
/// # Errors
/// The folder can't be created or read.
pub fn make_private_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    let is_own = |entry: io::Result<fs::DirEntry>| {
        let name = entry?.file_name();
        Ok::<_, io::Error>(name.to_str().is_some_and(|name| OWN_ENTRIES.iter().any(|own| name.starts_with(own))))
    };
    for entry in fs::read_dir(folder)? {
        if !is_own(entry)? {
            return Ok(());
        }
    }
    match restrict(folder, FOLDER_MODE) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        restricted => restricted,
    }
}

/// Opens a file for writing that only its owner may read, and creates it if it doesn't exist. `truncate` empties it.
///
/// # Errors
/// The file can't be opened, or its permissions can't be changed.
pub fn open_private_file(path: &Path, truncate: bool) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(truncate).mode(FILE_MODE).open(path)?;
    restrict(path, FILE_MODE)?;
    Ok(file)
}

/// Removes all permissions beyond `mode` that a file or a folder has.
fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::metadata(path)?.permissions().mode() & 0o7777;
    if found & !mode == 0 { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(found & mode)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_data_folder_and_its_files_are_private() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("data");
        make_private_folder(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        open_private_file(&folder.join("lock"), true).unwrap();
        assert_eq!(mode(&folder.join("lock")), 0o600);

        // A folder that an earlier version made is restricted; a folder with other files is not.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(folder.join("lock"), fs::Permissions::from_mode(0o644)).unwrap();
        make_private_folder(&folder).unwrap();
        open_private_file(&folder.join("lock"), false).unwrap();
        assert_eq!((mode(&folder), mode(&folder.join("lock"))), (0o700, 0o600));
        fs::write(folder.join("notes.txt"), "mine").unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        make_private_folder(&folder).unwrap();
        assert_eq!((mode(&folder), mode(&folder.join("notes.txt")) & 0o044), (0o755, 0o044));
    }
}

//! The data folder of `switchboard dev`, and the secret in it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
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
/// The database file of dev, within DATA_DIR.
pub(super) const DATABASE_FILE: &str = "switchboard.db";

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
    let folder = folder(reader)?;
    let found = if reader.creates_secret { read_or_create(&folder) } else { read(&folder) };
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

fn read(folder: &Path) -> io::Result<String> {
    let path = folder.join(SECRET_FILE);
    let secret = fs::read_to_string(&path)?.trim().to_owned();
    check_secret_length(&secret).map_err(|message| io::Error::other(format!("{} {message}", path.display())))
}

fn read_or_create(folder: &Path) -> io::Result<String> {
    fs::create_dir_all(folder)?;
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(SECRET_FILE)) {
        Ok(mut file) => {
            let mut bytes = [0_u8; MIN_SECRET_BYTES];
            rand::rng().fill_bytes(&mut bytes);
            let secret = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            file.write_all(secret.as_bytes()).map(|()| secret)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(folder),
        Err(error) => Err(error),
    }
}

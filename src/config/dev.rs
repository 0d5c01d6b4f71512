//! What `switchboard dev` keeps in its data folder beside the database: its secret.

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
    source::{Faults, Reader, Sources},
};

/// Where dev keeps its secret, within DATA_DIR.
pub(crate) const SECRET_FILE: &str = "secret";
/// Where dev keeps its database, within DATA_DIR.
pub(super) const DATABASE_FILE: &str = "switchboard.db";

/// Dev's data folder, as an absolute path. It need not exist.
///
/// # Errors
/// DATA_DIR is bad.
pub fn data_folder(sources: &Sources) -> Result<PathBuf, Faults> {
    let mut reader = Reader::new(sources, true);
    let folder = folder(&mut reader);
    reader.finish(folder)
}

fn folder(reader: &mut Reader<'_>) -> Option<PathBuf> {
    let folder = PathBuf::from(reader.text(&set::DATA_DIR)?);
    Some(std::path::absolute(&folder).unwrap_or(folder))
}

/// The secret of dev: kept in its data folder, made at the first start. Whoever else asks for it is told where it was
/// looked for.
pub(super) fn secret(reader: &mut Reader<'_>) -> Option<String> {
    let folder = folder(reader)?;
    let found = if reader.makes_secret { read_or_make(&folder) } else { read(&folder) };
    let why = match found {
        Ok(secret) => return Some(secret),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !reader.makes_secret => format!(
            "names no data folder of switchboard dev: there is no secret in {}. Name the folder that dev shows as Data \
             (--data-dir FOLDER), or start switchboard dev first",
            folder.display()
        ),
        Err(error) => format!("names a folder whose secret can't be read or made: {} ({error})", folder.display()),
    };
    reader.fault(set::DATA_DIR.name, why);
    None
}

fn read(folder: &Path) -> io::Result<String> {
    let path = folder.join(SECRET_FILE);
    let secret = fs::read_to_string(&path)?.trim().to_owned();
    check_secret_length(&secret).map_err(|message| io::Error::other(format!("{} {message}", path.display())))
}

fn read_or_make(folder: &Path) -> io::Result<String> {
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

//! The files of TLS to a server: the certificates to trust, and the certificate that the node shows.

use std::{fmt, fs, path::PathBuf};

use rustls::{
    CertificateError, Error,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{settings::Setting, source::Reader};

/// Maximum length of a file, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The files of TLS to a server. They may be replaced while the node runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates (PEM) to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The certificate that the node shows; `None`: it shows none.
    pub client: Option<ClientCertificate>,
    /// The name of the setting for that certificate.
    pub setting: &'static str,
}

/// The files with the certificate that the node shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and those between it and its CA (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM), without a password.
    pub key: PathBuf,
}

/// The content of [`TlsFiles`]. It has no `Debug`, because it holds a private key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsMaterial {
    /// Certificates (PEM) to trust.
    pub ca: Option<Vec<u8>>,
    /// The certificate that the node shows, and its key (PEM).
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// The reason for which a certificate and a key can't be used. It follows the name of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsFlaw {
    /// The certificate is at fault.
    Certificate(String),
    /// The key is at fault.
    Key(String),
}

impl fmt::Display for TlsFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Certificate(why) | Self::Key(why)) = self;
        f.write_str(why)
    }
}

/// The remedy for a certificate of a version that TLS has given up.
const OLD_VERSION: &str = "names a certificate of X.509 version 1, which can't be used: make one of version 3 (openssl x509 -req makes \
     version 1 unless it is given extensions: add -extfile with a file that has the line basicConstraints=CA:FALSE)";

/// The certificate that the node shows, and its key.
pub(crate) type CertificateAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl TlsFiles {
    /// The files in words.
    pub fn in_words(&self) -> String {
        let client = self.client.iter().flat_map(|client| [&client.certificate, &client.key]);
        self.ca.iter().chain(client).map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Reads the files.
    ///
    /// # Errors
    /// A file can't be read, or a key does not belong to its certificate; the message names the file.
    pub fn read(&self) -> Result<TlsMaterial, String> {
        let read = |path: &PathBuf| read(path).map_err(|why| format!("{}: {why}", path.display()));
        let ca = self.ca.as_ref().map(read).transpose()?;
        let client = match &self.client {
            Some(ClientCertificate { certificate, key }) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        let material = TlsMaterial { ca, client };
        if let Some(ClientCertificate { certificate, key }) = &self.client {
            material.certificate_and_key().map_err(|flaw| match flaw {
                TlsFlaw::Certificate(why) => format!("{}: {why}", certificate.display()),
                TlsFlaw::Key(why) => format!("{}: {why}", key.display()),
            })?;
        }
        Ok(material)
    }

    /// The words for a server that refuses the certificate that the node shows, or demands one, for the reason `why`.
    pub fn refused(&self, why: &str) -> String {
        let setting = self.setting;
        match &self.client {
            Some(ClientCertificate { certificate, .. }) => format!(
                "the server refuses this node's own certificate, {} ({setting}): {why}; put one there that the server accepts, \
                 which new connections then show",
                certificate.display()
            ),
            None => format!(
                "the server demands a certificate of this node: {why}; set {setting}, and the setting of its key"
            ),
        }
    }
}

impl TlsMaterial {
    /// The certificate that the node shows; `None` if it shows none.
    ///
    /// # Errors
    /// There is no certificate or key, one of them can't be used, or they do not belong together.
    pub(crate) fn certificate_and_key(&self) -> Result<Option<CertificateAndKey>, TlsFlaw> {
        let Some((certificate, key)) = &self.client else { return Ok(None) };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| TlsFlaw::Certificate("names a file that holds no PEM certificate".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            TlsFlaw::Key(
                "names a file that holds no private key in PEM form; one with a password can't be used".to_owned(),
            )
        })?;
        let checked = CertifiedKey::from_der(chain.clone(), key.clone_key(), &aws_lc_rs::default_provider());
        checked.map_err(|error| flaw(&error))?;
        Ok(Some((chain, key)))
    }
}

fn flaw(error: &Error) -> TlsFlaw {
    match error {
        Error::InconsistentKeys(_) => {
            TlsFlaw::Key("names a private key that does not belong to the certificate".to_owned())
        }
        // The library that reads certificates is not one of ours, so that its errors have no type here.
        Error::InvalidCertificate(CertificateError::Other(other))
            if other.0.to_string() == "UnsupportedCertVersion" =>
        {
            TlsFlaw::Certificate(OLD_VERSION.to_owned())
        }
        Error::InvalidCertificate(why) => {
            TlsFlaw::Certificate(format!("names a certificate that can't be used: {why}"))
        }
        error => TlsFlaw::Key(format!("names a private key that can't be used: {error}")),
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, &'static str> {
    let size = fs::metadata(path).map_err(|_| "can't be read")?.len();
    if size > MAX_FILE {
        return Err("is too large");
    }
    fs::read(path).map_err(|_| "can't be read")
}

/// Reads the names of the files of TLS to a server.
pub(super) fn read_tls(reader: &mut Reader<'_>, ca: &Setting, certificate: &Setting, key: &Setting) -> TlsFiles {
    let ca = reader.read(ca, |text| match fs::read_to_string(text) {
        Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Ok(PathBuf::from(text)),
        Ok(_) => Err("names a file that holds no PEM certificate".to_owned()),
        Err(_) => Err("names a file that can't be read".to_owned()),
    });
    let mut readable = |setting: &Setting| {
        reader.read(setting, |text| {
            let path = PathBuf::from(text);
            read(&path).map(|content| (path, content)).map_err(|why| format!("names a file that {why}"))
        })
    };
    let (shown, proof) = (readable(certificate), readable(key));
    for (given, other) in [(certificate, key), (key, certificate)] {
        if reader.given(given) && !reader.given(other) {
            reader.fault(given.name, format!("is given without {}: a certificate needs its key", other.name));
        }
    }
    let client = shown.zip(proof).and_then(|((shown, chain), (proof, content))| {
        let material = TlsMaterial { ca: None, client: Some((chain, content)) };
        match material.certificate_and_key() {
            Ok(_) => Some(ClientCertificate { certificate: shown, key: proof }),
            Err(flaw) => {
                match flaw {
                    TlsFlaw::Certificate(why) => reader.fault(certificate.name, why),
                    TlsFlaw::Key(why) => reader.fault(key.name, why),
                }
                None
            }
        }
    });
    TlsFiles { ca, client, setting: certificate.name }
}

//! Alerts of TLS by which a server refuses the certificate of this node. A server sends them only about its client's certificate.

use std::{error::Error, io, iter::successors, sync::Arc};

use rustls::AlertDescription;

/// Why a server refuses the certificate of this node, or the lack of one; `None` if the error is another one.
pub fn refused_certificate(error: &(dyn Error + 'static)) -> Option<String> {
    causes(error).find_map(|cause| match cause.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => in_words(*alert).map(|why| format!("{why} (alert {alert:?})")),
        _ => None,
    })
}

/// The words for an alert about a certificate; `None` for other alerts.
fn in_words(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateExpired => "it has expired, or is not valid yet",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::UnknownCA => "the server does not trust the authority that issued it",
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => "it got none",
        // Nothing else that a server verifies of a client fails in practice.
        AlertDescription::DecryptError => {
            "its signature can't be verified, as if an authority of the same name had another key"
        }
        AlertDescription::UnsupportedCertificate => "it is of a kind that the server does not accept",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => "it was not accepted",
        AlertDescription::AccessDenied => "it gives no access",
        _ => return None,
    })
}

/// The error, its cause, the cause of that, and so on.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| {
        // `source` of such errors skips the error inside.
        let of_io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let of_io = of_io.map(|inner| inner as &(dyn Error + 'static));
        let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>();
        of_io.or(shared.map(|inner| &**inner as &(dyn Error + 'static))).or_else(|| error.source())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not connect")]
    struct Outer(#[source] io::Error);

    fn failed(error: rustls::Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn alerts_about_the_own_certificate_are_found_behind_every_error() {
        let expired = || failed(rustls::Error::AlertReceived(AlertDescription::CertificateExpired));
        let words = Some("it has expired, or is not valid yet (alert CertificateExpired)".to_owned());
        assert_eq!(refused_certificate(&Outer(expired())), words);
        // The library of Redis shares its errors.
        assert_eq!(refused_certificate(&redis::RedisError::from(expired())), words);
        for other in [
            rustls::Error::AlertReceived(AlertDescription::HandshakeFailure),
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer),
        ] {
            assert_eq!(refused_certificate(&Outer(failed(other))), None);
        }
    }
}

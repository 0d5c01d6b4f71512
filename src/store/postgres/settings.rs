//! Reads the connection URL: the driver's settings, and the TLS modes that the driver doesn't know.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::StoreError;
use crate::config::{Secret, is_tls_optional, read_postgres_url};

/// Maximum time to open a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the settings of the server and of TLS.
pub(super) fn read(url: &Secret, ca_file: Option<&Path>) -> Result<(Config, MakeRustlsConnect), StoreError> {
    let mut config = read_postgres_url(url.reveal()).map_err(|why| invalid(format!("DATABASE_URL {why}")))?;
    // An operator who names a CA wants TLS; without it, a server that offers none would be used in plain text.
    if ca_file.is_some() && is_tls_optional(&config) {
        config.ssl_mode(SslMode::Require);
    }
    let each = host_timeout(config.get_hosts().len().max(config.get_hostaddrs().len()));
    watch_connection(&mut config, each);
    let roots = if config.get_ssl_mode() == SslMode::Disable { RootCertStore::empty() } else { roots(ca_file)? };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((config, MakeRustlsConnect::new(tls)))
}

/// Bounds the time until the host accepts, and the time until the loss of a connection is noticed.
fn watch_connection(config: &mut Config, accepts_within: Duration) {
    config
        .application_name("switchboard")
        .connect_timeout(accepts_within)
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(15))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(15));
}

/// The settings for each host alone, with its name for people.
pub(super) fn each_host(config: &Config) -> Vec<(String, Config)> {
    let (names, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let alone = |at: usize| {
        let mut one = Config::new();
        let port = *ports.get(at).or(ports.first()).unwrap_or(&5432);
        one.port(port).ssl_mode(config.get_ssl_mode()).target_session_attrs(config.get_target_session_attrs());
        one.ssl_negotiation(config.get_ssl_negotiation()).channel_binding(config.get_channel_binding());
        let mut name = String::new();
        match names.get(at) {
            Some(Host::Tcp(host)) => {
                one.host(host);
                name = format!("{host}:{port}");
            }
            #[cfg(unix)]
            Some(Host::Unix(folder)) => {
                one.host_path(folder);
                name = format!("{}:{port}", folder.display());
            }
            None => {}
        }
        if let Some(&address) = addresses.get(at) {
            one.hostaddr(address);
            name = if name.is_empty() { format!("{address}:{port}") } else { name };
        }
        config.get_user().map(|user| one.user(user));
        config.get_password().map(|password| one.password(password));
        config.get_dbname().map(|database| one.dbname(database));
        config.get_options().map(|options| one.options(options));
        watch_connection(&mut one, *config.get_connect_timeout().unwrap_or(&CONNECT_TIMEOUT));
        (name, one)
    };
    (0..names.len().max(addresses.len())).map(alone).collect()
}

/// Maximum time until one of several hosts accepts, and until it has let the user in. If the machine of one is gone, no packet says so, and the others must be
/// reached within the time for the whole connection.
pub(super) fn host_timeout(hosts: usize) -> Duration {
    match u32::try_from(hosts) {
        Ok(several @ 2..) => CONNECT_TIMEOUT / (2 * several),
        _ => CONNECT_TIMEOUT,
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let unreadable = |error: &dyn std::fmt::Display| invalid(format!("DATABASE_CA_FILE: {error}"));
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(unreadable(&"it contains no certificate"));
    }
    Ok(roots)
}

fn invalid(reason: impl Into<String>) -> StoreError {
    StoreError::Failed(reason.into().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_never_answer_leave_time_for_the_last_one() {
        let timeout = |url: &str| *read(&Secret::new(url), None).unwrap().0.get_connect_timeout().unwrap();
        assert_eq!(timeout("postgres://one/chat"), CONNECT_TIMEOUT);
        for hosts in 2..5 {
            let url = format!("postgres://{}/chat", vec!["host"; hosts].join(","));
            let others = u32::try_from(hosts - 1).unwrap();
            assert!(timeout(&url) * others + Duration::from_secs(1) <= CONNECT_TIMEOUT, "{url}");
        }
    }
}

//! The driver's settings for connections, and TLS.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{TlsFiles, TlsMaterial, is_tls_optional};

/// Maximum time to open a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of connections to the server of a URL.
pub(super) fn of_connections(mut config: Config, files: &TlsFiles) -> Config {
    // An operator who names a CA or a certificate wants TLS; without it, a server that offers none would be used in plain text.
    if (files.ca.is_some() || files.client.is_some()) && is_tls_optional(&config) {
        config.ssl_mode(SslMode::Require);
    }
    let each = host_timeout(config.get_hosts().len().max(config.get_hostaddrs().len()));
    watch_connection(&mut config, each);
    config
}

/// True if connections may use TLS.
pub(super) fn uses_tls(config: &Config) -> bool {
    config.get_ssl_mode() != SslMode::Disable
}

/// TLS with these certificates. Without `trusts`, no certificate is read, because no connection uses TLS.
pub(super) fn tls(material: &TlsMaterial, trusts: bool) -> Result<MakeRustlsConnect, String> {
    let roots = if trusts { roots(material.ca.as_deref())? } else { RootCertStore::empty() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let tls = match material.certificate_and_key().map_err(|flaw| flaw.to_string())? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?,
        None => builder.with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(tls))
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

/// The settings for each host alone, without a login, and its name for people.
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

fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("DATABASE_CA_FILE: {error}"))?;
        roots.add(certificate).map_err(|error| format!("DATABASE_CA_FILE: {error}"))?;
    }
    if roots.is_empty() {
        return Err("DATABASE_CA_FILE: it contains no certificate".to_owned());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read_postgres_url;

    #[test]
    fn hosts_that_never_answer_leave_time_for_the_last_one() {
        let timeout = |url: &str| {
            let config = of_connections(read_postgres_url(url).unwrap(), &TlsFiles::default());
            *config.get_connect_timeout().unwrap()
        };
        assert_eq!(timeout("postgres://one/chat"), CONNECT_TIMEOUT);
        for hosts in 2..5 {
            let url = format!("postgres://{}/chat", vec!["host"; hosts].join(","));
            let others = u32::try_from(hosts - 1).unwrap();
            assert!(timeout(&url) * others + Duration::from_secs(1) <= CONNECT_TIMEOUT, "{url}");
        }
    }
}

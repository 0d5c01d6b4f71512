//! The URL of PostgreSQL, read as `psql` reads it. What can't be read is refused with a sentence that names the part and the
//! remedy. Messages never repeat a value, as it may be a secret.

use tokio_postgres::{
    Config,
    config::{SslMode, TargetSessionAttrs},
};

/// Parameters of a PostgreSQL URL that the driver knows.
const PARAMETERS: [&str; 18] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslmode",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
];

/// Remedy for a port that can't be.
pub(super) const PORTS: &str = "a port is a number from 1 to 65535";

/// Parameters that count as not given if they are empty.
const PLACES: [&str; 3] = ["host", "hostaddr", "port"];

/// Reads a PostgreSQL URL: `postgres://user:password@host:port,other/database?sslmode=…`. `sslmode` may also be `verify-ca`
/// or `verify-full`, which the driver doesn't know: this program always checks the certificate of a TLS connection. Of
/// several hosts, only one that takes writes is used, unless the URL says otherwise.
///
/// # Errors
/// The part of the URL that is at fault, in words that follow the setting's name.
pub fn read_postgres_url(text: &str) -> Result<Config, String> {
    let schemes = ["postgres://", "postgresql://"];
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    let rest = rest.ok_or("must be a URL that begins with postgres:// or postgresql://")?;
    // As in libpq, the first @ ends the password; a host has none.
    let (credentials, place) = rest.split_once('@').map_or(("", rest), |(credentials, place)| (credentials, place));
    let (authority, query) = place.split_once('?').unwrap_or((place, ""));
    if authority.contains('@') {
        return Err("has an @ in the user or the password: write it as %40".to_owned());
    }
    let before_path = !authority.split('/').next().unwrap_or_default().is_empty();
    let mut has_host = before_path;
    let mut parameters = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or("has a parameter without a value after the ?")?;
        check_parameter(name)?;
        if value.is_empty() && PLACES.contains(&name) {
            continue;
        }
        if before_path && matches!(name, "host" | "port") {
            return Err(format!(
                "has a host or a port both before the database and in the parameter {name}: write each host with its port before \
                 the database (host:port,host:port), or all of them as parameters (?host=one,two&port=5432,5433)"
            ));
        }
        has_host |= matches!(name, "host" | "hostaddr");
        parameters.push(driver_parameter(name, value)?);
    }
    if !has_host {
        return Err(
            "must have a host: postgres://user:password@host/database, or ?host=/folder for a Unix socket".into()
        );
    }
    let at = if credentials.is_empty() && !rest.contains('@') { "" } else { "@" };
    let mark = if parameters.is_empty() { "" } else { "?" };
    let known = format!("postgres://{credentials}{at}{authority}{mark}{}", parameters.join("&"));
    let config = known.parse().map_err(|error: tokio_postgres::Error| {
        // The driver names the option, and never the value.
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        let remedy = if why.contains("`port`") { format!("; {PORTS}") } else { String::new() };
        format!("can't be read as a PostgreSQL URL: {why}{remedy}")
    })?;
    let chosen = query.split('&').any(|parameter| parameter.starts_with("target_session_attrs="));
    with_places(config, chosen)
}

/// Checks that each host has its address and its port, and demands writes of several hosts unless the operator has `chosen`.
fn with_places(mut config: Config, chosen: bool) -> Result<Config, String> {
    let (names, addresses, ports) = (config.get_hosts().len(), config.get_hostaddrs().len(), config.get_ports().len());
    let hosts = names.max(addresses);
    if names > 0 && addresses > 0 && names != addresses {
        return Err(format!("has {names} hosts and {addresses} addresses in hostaddr: give one address for each host"));
    }
    if config.get_ports().contains(&0) {
        return Err(format!("has the port 0: {PORTS}"));
    }
    if ports > 1 && ports != hosts {
        return Err(format!("has {ports} ports for {hosts} hosts: give one port for each host, or one for all"));
    }
    if hosts > 1 && !chosen {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    Ok(config)
}

/// A parameter as the driver takes it.
fn driver_parameter(name: &str, value: &str) -> Result<String, String> {
    match (name, value) {
        ("sslmode", "verify-ca" | "verify-full") => Ok("sslmode=require".to_owned()),
        ("sslmode", "disable" | "prefer" | "require") => Ok(format!("sslmode={value}")),
        ("sslmode", _) => {
            Err("has an sslmode that is none of disable, prefer, require, verify-ca and verify-full".to_owned())
        }
        ("target_session_attrs", "any" | "read-write") => Ok(format!("target_session_attrs={value}")),
        ("target_session_attrs", _) => Err("has a target_session_attrs that is neither read-write nor any: a node \
                                            needs the server that takes writes, so use read-write"
            .to_owned()),
        // The driver takes one host for each parameter.
        ("host", several) => {
            let several = several.replace("%2C", ",").replace("%2c", ",");
            Ok(several.split(',').map(|host| format!("host={host}")).collect::<Vec<_>>().join("&"))
        }
        _ => Ok(format!("{name}={value}")),
    }
}

/// True if TLS is optional, so that a server without it would be used without a word.
pub fn is_tls_optional(config: &Config) -> bool {
    config.get_ssl_mode() == SslMode::Prefer
}

/// True if connections never use TLS.
pub(super) fn is_without_tls(config: &Config) -> bool {
    config.get_ssl_mode() == SslMode::Disable
}

fn check_parameter(name: &str) -> Result<(), String> {
    match name {
        name if PARAMETERS.contains(&name) => Ok(()),
        "sslrootcert" => Err("has the parameter sslrootcert: set DATABASE_CA_FILE instead".to_owned()),
        "sslcert" => Err("has the parameter sslcert: set DATABASE_CLIENT_CERT_FILE instead".to_owned()),
        "sslkey" => Err("has the parameter sslkey: set DATABASE_CLIENT_KEY_FILE instead".to_owned()),
        name if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            Err(format!("has the parameter {name}, which is not supported: remove it"))
        }
        _ => Err("has a parameter whose name is not a word: write a ? in the password as %3F".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    #[test]
    fn postgres_urls_are_read_as_psql_reads_them() {
        let password = |text: &str| read_postgres_url(text).unwrap().get_password().unwrap().to_vec();
        for (written, meant) in
            [("p#1", "p#1"), ("a/b", "a/b"), ("a%40b", "a@b"), ("a?b", "a?b"), ("a$b", "a$b"), ("a:b", "a:b")]
        {
            assert_eq!(password(&format!("postgres://bob:{written}@db/chat")), meant.as_bytes(), "{written}");
        }
        let several = read_postgres_url("postgres://bob@one,two:5433/chat?target_session_attrs=read-write").unwrap();
        assert_eq!(several.get_hosts(), [Host::Tcp("one".into()), Host::Tcp("two".into())]);
        assert_eq!(several.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        for (text, attributes) in [
            ("postgres://one/chat", TargetSessionAttrs::Any),
            ("postgres://one,two/chat", TargetSessionAttrs::ReadWrite),
            ("postgres:///chat?host=one,two", TargetSessionAttrs::ReadWrite),
            ("postgres:///chat?hostaddr=10.0.0.1,10.0.0.2", TargetSessionAttrs::ReadWrite),
            ("postgres://one,two/chat?target_session_attrs=any", TargetSessionAttrs::Any),
        ] {
            assert_eq!(read_postgres_url(text).unwrap().get_target_session_attrs(), attributes, "{text}");
        }
        let listed = read_postgres_url("postgres://bob@/chat?host=one%2Ctwo,three&port=1,2,3").unwrap();
        assert_eq!(listed.get_hosts(), ["one", "two", "three"].map(|host| Host::Tcp(host.into())));
        assert_eq!(listed.get_ports(), [1, 2, 3]);
        assert_eq!(read_postgres_url("postgres://one:1/chat?host=").unwrap().get_ports(), [1]);
        let socket = read_postgres_url("postgresql:///chat?host=/run/postgresql&user=bob").unwrap();
        assert_eq!(socket.get_hosts(), [Host::Unix("/run/postgresql".into())]);
        assert_eq!((socket.get_user(), socket.get_dbname()), (Some("bob"), Some("chat")));
        for mode in ["require", "verify-ca", "verify-full"] {
            let config = read_postgres_url(&format!("postgres://db/chat?sslmode={mode}")).unwrap();
            assert_eq!(config.get_ssl_mode(), SslMode::Require);
        }
        assert_eq!(password("postgres://bob:sslmode=verify-full@db/chat"), b"sslmode=verify-full");
    }

    #[test]
    fn what_is_wrong_with_a_postgres_url_is_said() {
        for (text, says) in [
            ("mysql://db/chat", "begins with postgres://"),
            ("postgres:///chat", "must have a host"),
            ("postgres://bob:secret@x@db/chat", "%40"),
            ("postgres://db/chat?sslrootcert=/ca.pem", "DATABASE_CA_FILE"),
            ("postgres://db/chat?sslcert=/c.pem", "DATABASE_CLIENT_CERT_FILE"),
            ("postgres://db/chat?sslkey=/k.pem", "DATABASE_CLIENT_KEY_FILE"),
            ("postgres://db/chat?pgbouncer=true", "pgbouncer"),
            ("postgres://db/chat?sslmode=allow", "sslmode"),
            ("postgres://db:secret/chat", "from 1 to 65535"),
            ("postgres://db:65536/chat", "from 1 to 65535"),
            ("postgres://db:0/chat", "from 1 to 65535"),
            ("postgres:///chat?host=one,two&port=1,b", "from 1 to 65535"),
            ("postgres://db/chat?sslmode", "without a value"),
            ("postgres://db/chat?target_session_attrs=primary", "read-write"),
            ("postgres:///chat?host=one,two,three&port=1,2", "2 ports for 3 hosts"),
            ("postgres:///chat?host=one,two&hostaddr=10.0.0.1", "one address for each host"),
            ("postgres://one,two/chat?port=1,2", "host:port,host:port"),
            ("postgres://:5433/chat?host=one", "host:port,host:port"),
        ] {
            let why = read_postgres_url(text).unwrap_err();
            assert!(why.contains(says) && !why.contains("secret"), "{text}: {why}");
        }
    }
}

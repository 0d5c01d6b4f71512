//! The forms of REDIS_URL, read into addresses and logins. What can't be read is refused with a sentence that names the part
//! and the remedy. Messages never repeat a value, as it may be a secret.

use std::{fmt, net::Ipv6Addr, path::PathBuf};

use percent_encoding::percent_decode_str;

use super::{secret::Secret, urls::PORTS};

/// Largest number of a database that Redis can be given.
const DATABASE_MAX: u32 = 2_147_483_647;
/// Maximum number of addresses in one URL.
const ADDRESSES_MAX: usize = 16;
/// Maximum length of the name of a primary.
const NAME_MAX: usize = 128;
/// Port of a server, and of a sentinel, if the URL has none.
const SERVER_PORT: u16 = 6_379;
const SENTINEL_PORT: u16 = 26_379;
/// The parameter that names the primary.
const MASTER: &str = "sentinel_master_name";

/// The servers to which REDIS_URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServers {
    /// How they are found.
    pub form: RedisForm,
    /// True if connections to them use TLS.
    pub tls: bool,
    /// The login at them.
    pub login: RedisLogin,
    /// Number of the database.
    pub database: u32,
}

/// How the servers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisForm {
    /// One server at a fixed address: `redis://host:port/1`.
    Server(HostPort),
    /// One server on this machine: `unix:///run/redis.sock?db=1`.
    Socket(PathBuf),
    /// The server that sentinels name as the primary: `redis+sentinel://host:port?sentinel_master_name=NAME`.
    Sentinel(SentinelServers),
    /// The nodes of a Redis Cluster, any of which tells the others: `redis+cluster://host:port`.
    Cluster(Vec<HostPort>),
}

/// The sentinels of a primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelServers {
    /// Their addresses; at least one, and none twice.
    pub addresses: Vec<HostPort>,
    /// The name that they give the primary.
    pub master: String,
    /// True if connections to them use TLS.
    pub tls: bool,
    /// The login at them.
    pub login: RedisLogin,
}

/// A login at a Redis server or a sentinel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisLogin {
    /// The user; `None`: the default one.
    pub user: Option<String>,
    /// The password; `None`: no login.
    pub password: Option<Secret>,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The scheme of a URL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Server,
    Socket,
    Sentinel,
    Cluster,
}

/// Every scheme; true if it means TLS.
const SCHEMES: [(&str, Scheme, bool); 8] = [
    ("redis://", Scheme::Server, false),
    ("rediss://", Scheme::Server, true),
    ("unix://", Scheme::Socket, false),
    ("redis+unix://", Scheme::Socket, false),
    ("redis+sentinel://", Scheme::Sentinel, false),
    ("rediss+sentinel://", Scheme::Sentinel, true),
    ("redis+cluster://", Scheme::Cluster, false),
    ("rediss+cluster://", Scheme::Cluster, true),
];

/// Passwords that stand outside the URL.
#[derive(Debug, Clone, Default)]
pub struct RedisPasswords {
    /// That of the servers (REDIS_PASSWORD).
    pub server: Option<Secret>,
    /// That of the sentinels (REDIS_SENTINEL_PASSWORD).
    pub sentinel: Option<Secret>,
}

impl RedisServers {
    /// Reads a URL.
    ///
    /// # Errors
    /// The part of the URL that is at fault, in words that follow the setting's name.
    pub fn parse(text: &str, passwords: &RedisPasswords) -> Result<Self, String> {
        let found = SCHEMES.iter().find_map(|(name, scheme, tls)| Some((text.strip_prefix(name)?, *scheme, *tls)));
        let (rest, scheme, tls) = found.ok_or(
            "must be a URL that begins with redis:// or rediss:// (one server), unix:// (a socket on this machine), or \
             redis+sentinel:// or rediss+sentinel:// (the primary that sentinels name)",
        )?;
        if rest.contains('#') {
            return Err("has a #: in the password, write it as %23".to_owned());
        }
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        if scheme == Scheme::Socket {
            return socket(place, query, passwords);
        }
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        if database.contains('@') || authority.matches('@').count() > 1 {
            return Err("has a / or an @ in the user or the password: write them as %2F and %40".to_owned());
        }
        if query.is_some_and(|query| query.contains('@')) {
            return Err("has an @ after a ?: in a password, write ? as %3F and @ as %40".to_owned());
        }
        let (login, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let login = read_login(login, passwords.server.as_ref())?;
        let sentinel = scheme == Scheme::Sentinel;
        let address = HostPort::parse(host, if sentinel { SENTINEL_PORT } else { SERVER_PORT })?;
        let database = read_database(database)?;
        let form = match (scheme, query.filter(|query| !query.is_empty())) {
            (Scheme::Server, Some(_)) => return Err(no_parameters(query)),
            (Scheme::Server | Scheme::Socket, _) => RedisForm::Server(address),
            (Scheme::Sentinel, query) => {
                RedisForm::Sentinel(Parameters::read(query, address, true)?.sentinels(tls, passwords)?)
            }
            (Scheme::Cluster, _) if database != 0 => {
                return Err("has the number of a database, but a Redis Cluster has only database 0: remove it".into());
            }
            (Scheme::Cluster, query) => RedisForm::Cluster(Parameters::read(query, address, false)?.addresses),
        };
        if !sentinel && passwords.sentinel.is_some() {
            return Err("leads to no sentinel, but REDIS_SENTINEL_PASSWORD is set: remove it".to_owned());
        }
        Ok(Self { form, tls, login, database })
    }
}

impl HostPort {
    /// Reads `host:port`, where IPv6 addresses stand in brackets.
    fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        if text.contains(',') {
            return Err(
                "has several hosts before the parameters: it takes one there; further sentinels, or nodes of a \
                        cluster, follow as ?addr=host:port&addr=host:port"
                    .to_owned(),
            );
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("has a [ without a ] after the IPv6 address")?;
                host.parse::<Ipv6Addr>().map_err(|_| "has in brackets what is no IPv6 address: write [::1]:6379")?;
                if !(port.is_empty() || port.starts_with(':')) {
                    return Err("has an IPv6 address that is followed by no port: write [::1]:6379".to_owned());
                }
                (host, port.strip_prefix(':'))
            }
            None if text.matches(':').count() > 1 => {
                return Err("has an IPv6 address without brackets, or a : too many: write [::1]:6379".to_owned());
            }
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return Err("must be a URL with a host".to_owned());
        }
        if !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':')) {
            return Err("has a host with a character that no name of a host has".to_owned());
        }
        if matches!(host, "0.0.0.0" | "::") {
            return Err("has the address 0.0.0.0 or ::, at which a server listens and none is reached".to_owned());
        }
        let port = port.map(|port| port.parse().ok().filter(|port| *port != 0).ok_or(()));
        let port = port.transpose().map_err(|()| format!("has a port that can't be: {PORTS}"))?;
        Ok(Self { host: host.to_owned(), port: port.unwrap_or(default_port) })
    }
}

/// Why a URL of one server takes no parameters.
fn no_parameters(query: Option<&str>) -> String {
    let sentinel = query.is_some_and(|query| query.contains(MASTER));
    let form = if sentinel { ". Sentinels have the form redis+sentinel://" } else { "" };
    format!(
        "has parameters after a ?: none is supported for one server, and a database is the path: redis://host:6379/1{form}"
    )
}

fn read_database(path: &str) -> Result<u32, String> {
    if !path.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err("has a path that is not the number of a database: redis://host:6379/1".to_owned());
    }
    let number = if path.is_empty() { Some(0) } else { path.parse().ok().filter(|number| *number <= DATABASE_MAX) };
    number.ok_or_else(|| {
        format!(
            "has a path that is too large for the number of a database: write one from 0 to databases - 1 of redis.conf, \
             15 by default, and at most {DATABASE_MAX}: redis://host:6379/1"
        )
    })
}

/// Reads `user:password`. The password may stand outside the URL.
fn read_login(text: &str, outside: Option<&Secret>) -> Result<RedisLogin, String> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    RedisLogin::new(decode(user)?, decode(password)?, outside, ("the user", "REDIS_PASSWORD"))
}

impl RedisLogin {
    fn new(
        user: String,
        password: String,
        outside: Option<&Secret>,
        (whose, setting): (&str, &str),
    ) -> Result<Self, String> {
        let user = Some(user).filter(|user| !user.is_empty());
        let password = match (password.is_empty(), outside) {
            (false, Some(_)) => return Err(format!("has a password, and {setting} is set too: give only one")),
            (false, None) => Some(Secret::new(password)),
            (true, outside) => outside.cloned(),
        };
        if user.is_some() && password.is_none() {
            // The client library would log in as nobody, and the node would have the rights of the default user.
            return Err(format!(
                "has a user without a password ({whose}): write redis://user:password@host, redis://:password@host for a \
                 password alone, or set {setting}"
            ));
        }
        Ok(Self { user, password })
    }
}

/// Decodes `%40` and the like. A + stays as it is.
fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "has a % in a password that begins no UTF-8 text: write % as %25".to_owned())
}

/// The parameters of the forms with several addresses.
struct Parameters {
    addresses: Vec<HostPort>,
    master: Option<String>,
    user: Option<String>,
    password: Option<String>,
    tls: Option<bool>,
}

impl Parameters {
    fn read(query: Option<&str>, first: HostPort, of_sentinels: bool) -> Result<Self, String> {
        let mut read = Self { addresses: vec![first], master: None, user: None, password: None, tls: None };
        let port = if of_sentinels { SENTINEL_PORT } else { SERVER_PORT };
        for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter
                .split_once('=')
                .ok_or("has a parameter without a value after the ?: write name=value, and & in a password as %26")?;
            let value = decode(value)?;
            if value.is_empty() {
                return Err(format!("has an empty value for a parameter: it takes {}", known(of_sentinels)));
            }
            let slot = match name {
                "addr" => {
                    read.add(HostPort::parse(&value, port).map_err(|why| format!("in an addr, {why}"))?)?;
                    continue;
                }
                MASTER if of_sentinels => &mut read.master,
                "sentinel_user" if of_sentinels => &mut read.user,
                "sentinel_password" if of_sentinels => &mut read.password,
                "sentinel_tls" if of_sentinels => {
                    let on = match value.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => return Err("has a sentinel_tls that is neither true nor false".to_owned()),
                    };
                    if read.tls.replace(on).is_some() {
                        return Err("has the parameter sentinel_tls twice".to_owned());
                    }
                    continue;
                }
                name => return Err(read.unknown(name, of_sentinels)),
            };
            if slot.replace(value).is_some() {
                return Err(format!("has the parameter {name} twice"));
            }
        }
        Ok(read)
    }

    fn add(&mut self, address: HostPort) -> Result<(), String> {
        if self.addresses.contains(&address) {
            return Err("has the same address twice".to_owned());
        }
        self.addresses.push(address);
        if self.addresses.len() > ADDRESSES_MAX {
            return Err(format!("has more than {ADDRESSES_MAX} addresses"));
        }
        Ok(())
    }

    /// The refusal of a parameter. What follows a password may be the rest of it after an &, so it is not repeated.
    fn unknown(&self, name: &str, of_sentinels: bool) -> String {
        let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && self.password.is_none();
        let (named, takes) = (if is_word { format!(" {name}") } else { String::new() }, known(of_sentinels));
        format!("has an unknown parameter{named}: it takes {takes}; in a password, write ? as %3F and & as %26")
    }

    fn sentinels(self, tls: bool, passwords: &RedisPasswords) -> Result<SentinelServers, String> {
        let master = self.master.ok_or(
            "lacks sentinel_master_name: add ?sentinel_master_name=NAME, with the name after `sentinel monitor` in the \
             configuration of the sentinels",
        )?;
        if master.len() > NAME_MAX || !master.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!("has a {MASTER} with a blank or another character that no such name has"));
        }
        let (user, password) = (self.user.unwrap_or_default(), self.password.unwrap_or_default());
        let names = ("sentinel_user", "REDIS_SENTINEL_PASSWORD");
        let login = RedisLogin::new(user, password, passwords.sentinel.as_ref(), names)?;
        Ok(SentinelServers { addresses: self.addresses, master, tls: self.tls.unwrap_or(tls), login })
    }
}

fn known(of_sentinels: bool) -> &'static str {
    if of_sentinels { "addr, sentinel_master_name, sentinel_user, sentinel_password and sentinel_tls" } else { "addr" }
}

/// Reads the path of a socket and its parameters.
fn socket(place: &str, query: Option<&str>, passwords: &RedisPasswords) -> Result<RedisServers, String> {
    if !place.starts_with('/') || place.ends_with('/') {
        return Err("must have the path of a socket after unix://: unix:///run/redis/redis.sock".to_owned());
    }
    if passwords.sentinel.is_some() {
        return Err("leads to no sentinel, but REDIS_SENTINEL_PASSWORD is set: remove it".to_owned());
    }
    let (mut database, mut user, mut password) = (None, None, None);
    for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or("has a parameter without a value after the ?")?;
        let slot = match name {
            "db" => &mut database,
            "user" => &mut user,
            "pass" => &mut password,
            _ => {
                return Err(
                    "has an unknown parameter: a socket takes db, user and pass; in a password, write & as %26"
                        .to_owned(),
                );
            }
        };
        if slot.replace(decode(value)?).is_some() {
            return Err(format!("has the parameter {name} twice"));
        }
    }
    let (user, password) = (user.unwrap_or_default(), password.unwrap_or_default());
    let login = RedisLogin::new(user, password, passwords.server.as_ref(), ("the parameter user", "REDIS_PASSWORD"))?;
    let database = read_database(&database.unwrap_or_default())?;
    Ok(RedisServers { form: RedisForm::Socket(decode(place)?.into()), tls: false, login, database })
}

#[cfg(test)]
mod tests;

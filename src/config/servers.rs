//! Redis and PostgreSQL as the settings name them. The texts from which logins are read are kept: those in files may change.

use tokio_postgres::Config;

use super::{
    redis_prefix::RedisPrefix,
    redis_url::{RedisPasswords, RedisServers},
    secret_source::{SecretFile, SecretSource},
    tls_files::TlsFiles,
    urls::read_postgres_url,
};

/// Settings of Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// The servers, with user and password if needed.
    pub servers: RedisServers,
    /// The texts from which `servers` were read.
    pub source: RedisSource,
    /// Certificates for the servers.
    pub tls: TlsFiles,
    /// Certificates for the sentinels.
    pub sentinel_tls: TlsFiles,
    /// The text before every key.
    pub prefix: RedisPrefix,
}

/// The texts from which [`RedisServers`] are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSource {
    /// REDIS_URL.
    pub url: SecretSource,
    /// REDIS_PASSWORD.
    pub password: Option<SecretSource>,
    /// REDIS_SENTINEL_PASSWORD.
    pub sentinel_password: Option<SecretSource>,
}

impl RedisConfig {
    /// The Redis at this URL, with defaults.
    ///
    /// # Errors
    /// As [`RedisServers::parse`].
    pub fn at(url: &str) -> Result<Self, String> {
        let source = RedisSource { url: SecretSource::fixed(url), password: None, sentinel_password: None };
        let servers = source.read_again()?;
        let (tls, sentinel_tls, prefix) = Default::default();
        Ok(Self { servers, source, tls, sentinel_tls, prefix })
    }
}

impl RedisSource {
    /// The servers as the texts, and the files among them, name them now.
    ///
    /// # Errors
    /// A file can't be read, or a text is bad; the message names the file or the part of the URL.
    pub fn read_again(&self) -> Result<RedisServers, String> {
        let read = |source: &Option<SecretSource>| source.as_ref().map(SecretSource::read_again).transpose();
        let passwords = RedisPasswords { server: read(&self.password)?, sentinel: read(&self.sentinel_password)? };
        let url = self.url.read_again()?;
        RedisServers::parse(url.reveal(), &passwords).map_err(|why| format!("REDIS_URL {why}"))
    }

    /// The files from which the login at the servers is read, or that at the sentinels.
    pub fn files(&self, of_sentinels: bool) -> Vec<&SecretFile> {
        let password = if of_sentinels { &self.sentinel_password } else { &self.password };
        self.url.file().into_iter().chain(password.as_ref().and_then(SecretSource::file)).collect()
    }
}

/// Settings of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// `postgres://…`, with `sslmode`.
    pub url: SecretSource,
    /// The password, if the URL has none.
    pub password: Option<SecretSource>,
    /// The URL for migrations; `None`: `url`.
    pub migrate_url: Option<SecretSource>,
    /// Certificates for the server.
    pub tls: TlsFiles,
    /// True if a pooler lends the server's connections by the transaction.
    pub pooled: bool,
}

impl PostgresConfig {
    /// The PostgreSQL at this URL, with defaults.
    pub fn at(url: &str) -> Self {
        let (password, migrate_url, tls) = Default::default();
        Self { url: SecretSource::fixed(url), password, migrate_url, tls, pooled: false }
    }

    /// The server as the texts, and the files among them, name it now.
    ///
    /// # Errors
    /// A file can't be read, or a text is bad; the message names the setting.
    pub fn read_again(&self) -> Result<Config, String> {
        let url = self.url.read_again()?;
        let mut config = read_postgres_url(url.reveal()).map_err(|why| format!("DATABASE_URL {why}"))?;
        if let Some(password) = &self.password {
            if config.get_password().is_some() {
                return Err("DATABASE_URL has a password, and DATABASE_PASSWORD is set too: give only one".to_owned());
            }
            config.password(password.read_again()?.reveal());
        }
        Ok(config)
    }

    /// The files from which the login is read.
    pub fn files(&self) -> Vec<&SecretFile> {
        self.url.file().into_iter().chain(self.password.as_ref().and_then(SecretSource::file)).collect()
    }

    /// The server for migrations, reached without a pooler; `None` without DATABASE_MIGRATE_URL. If that has no password, and the
    /// user of DATABASE_URL, DATABASE_PASSWORD is used.
    pub fn for_migrations(&self) -> Option<Self> {
        let url = self.migrate_url.as_ref()?;
        let user_of = |source: &SecretSource| {
            let config = read_postgres_url(source.value().reveal()).ok()?;
            Some((config.get_user().map(str::to_owned), config.get_password().is_some()))
        };
        let shares = match (user_of(url), user_of(&self.url)) {
            (Some((user, false)), Some((other, _))) => user == other,
            _ => false,
        };
        let password = self.password.clone().filter(|_| shares);
        Some(Self { url: url.clone(), password, migrate_url: None, tls: self.tls.clone(), pooled: false })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path, process::Command};

    use super::*;
    use crate::config::{Config, ConfigFaults, Sources, StoreBackend};

    fn load(more: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
        let base = [
            ("REDIS_URL", "rediss://localhost"),
            ("DATABASE_URL", "postgres://node@localhost/x"),
            ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ];
        let base =
            base.iter().filter(|(name, _)| !more.iter().any(|(other, _)| other.strip_suffix("_FILE") == Some(*name)));
        let flags = base.chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let environment = Box::new(|_: &str| None);
        Config::load(false, &Sources { flags, environment, dotenv: BTreeMap::new(), open_files: None })
    }

    fn postgres(config: Config) -> PostgresConfig {
        match config.store.backend {
            StoreBackend::Postgres(postgres) => *postgres,
            StoreBackend::Sqlite { .. } => panic!("serve uses PostgreSQL"),
        }
    }

    fn password(config: &PostgresConfig) -> Option<Vec<u8>> {
        config.read_again().unwrap().get_password().map(<[u8]>::to_vec)
    }

    #[test]
    fn logins_are_read_again_from_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let write = |name: &str, text: &str| std::fs::write(file(name), text).unwrap();
        write("url", "postgres://node:one@localhost/x\n");
        write("redis", "redis://a:one@localhost");
        write("sentinel", "unused");
        let (url, redis) = (file("url"), file("redis"));
        let config = load(&[("DATABASE_URL_FILE", &url), ("REDIS_URL_FILE", &redis)]).unwrap();
        let of_redis = config.redis.clone().unwrap();
        let login = |servers: RedisServers| servers.login.password.map(|password| password.reveal().to_owned());
        assert_eq!(login(of_redis.servers).as_deref(), Some("one"));
        write("redis", "redis://b:two@localhost");
        assert_eq!(login(of_redis.source.read_again().unwrap()).as_deref(), Some("two"));
        write("redis", "");
        let why = of_redis.source.read_again().unwrap_err();
        assert!(why.contains("REDIS_URL_FILE") && why.contains("empty") && why.contains(&redis), "{why}");
        let postgres = postgres(config);
        assert_eq!(password(&postgres).unwrap(), b"one");
        write("url", "postgres://node:two@localhost/x");
        assert_eq!(password(&postgres).unwrap(), b"two");
        assert!(postgres.files()[0].to_string().starts_with("DATABASE_URL_FILE ("));
    }

    #[test]
    fn the_password_of_postgresql_stands_in_one_place() {
        let config = load(&[("DATABASE_PASSWORD", "p@:/%41")]).unwrap();
        assert_eq!(password(&postgres(config)).unwrap(), b"p@:/%41");
        let faults =
            load(&[("DATABASE_PASSWORD", "a"), ("DATABASE_URL", "postgres://u:b@h/x")]).unwrap_err().to_string();
        assert!(faults.contains("DATABASE_PASSWORD is set, and DATABASE_URL has a password too"), "{faults}");
        for (url, shared) in
            [("postgres://node@h/x", true), ("postgres://owner@h/x", false), ("postgres://node:o@h/x", false)]
        {
            let config = load(&[("DATABASE_PASSWORD", "planted"), ("DATABASE_MIGRATE_URL", url)]).unwrap();
            let migrating = postgres(config).for_migrations().unwrap();
            assert_eq!(password(&migrating).is_some_and(|password| password == b"planted"), shared, "{url}");
        }
        assert!(postgres(load(&[]).unwrap()).for_migrations().is_none());
        assert!(postgres(load(&[("DATABASE_POOLER", "transaction")]).unwrap()).pooled);
        assert!(load(&[("DATABASE_POOLER", "session")]).unwrap_err().to_string().contains("needs no setting"));
    }

    /// Makes a certificate and its key.
    fn certificate(folder: &Path, name: &str) -> (String, String) {
        let made = format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a -keyout {name}.key -out {name}.pem"
        );
        let run = Command::new("openssl").args(made.split(' ')).current_dir(folder).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let file = |kind: &str| folder.join(format!("{name}.{kind}")).display().to_string();
        (file("pem"), file("key"))
    }

    #[test]
    fn a_certificate_needs_its_own_key_and_tls() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (certificate(folder.path(), "one"), certificate(folder.path(), "other"));
        // Without extensions it is of version 1.
        let request = "x509 -x509toreq -in one.pem -signkey one.key -out one.csr";
        for words in [request, "x509 -req -in one.csr -signkey one.key -out old.pem"] {
            let run = Command::new("openssl").args(words.split(' ')).current_dir(folder.path()).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        }
        let old = folder.path().join("old.pem").display().to_string();
        for server in ["REDIS", "DATABASE"] {
            let names = [format!("{server}_CLIENT_CERT_FILE"), format!("{server}_CLIENT_KEY_FILE")];
            let faults = |certificate: &str, key: &str, more: &[(&str, &str)]| {
                let all = [(&*names[0], certificate), (&*names[1], key)];
                let given: Vec<_> = all.iter().filter(|(_, file)| !file.is_empty()).chain(more).copied().collect();
                load(&given).err().map(|faults| faults.to_string()).unwrap_or_default()
            };
            assert_eq!(faults(&one.0, &one.1, &[]), "");
            assert!(faults(&one.0, "", &[]).contains(&format!("{} is given without {}", names[0], names[1])));
            assert!(faults("", &one.1, &[]).contains(&format!("{} is given without {}", names[1], names[0])));
            assert!(faults(&one.0, &other.1, &[]).contains("does not belong to the certificate"));
            assert!(faults(&one.0, &one.0, &[]).contains("no private key"));
            assert!(faults(&one.1, &one.1, &[]).contains("no PEM certificate"));
            assert!(faults(&one.0, "/nowhere", &[]).contains("can't be read"));
            let refused = faults(&old, &one.1, &[]);
            let says = [&*names[0], "X.509 version 1", "-extfile"];
            assert!(says.iter().all(|words| refused.contains(words)), "{refused}");
            assert!(!refused.contains("does not belong") && !refused.contains(&names[1]), "{refused}");
            let plain = [("REDIS_URL", "redis://h"), ("DATABASE_URL", "postgres://h/x?sslmode=disable")];
            let needs = if server == "REDIS" { "asks for no TLS" } else { "sslmode=disable" };
            assert!(faults(&one.0, &one.1, &plain).contains(needs));
        }
        let sentinel = ("REDIS_SENTINEL_CLIENT_CERT_FILE", &*one.0);
        assert!(
            load(&[sentinel, ("REDIS_SENTINEL_CLIENT_KEY_FILE", &one.1)])
                .unwrap_err()
                .to_string()
                .contains("no TLS there")
        );
    }
}

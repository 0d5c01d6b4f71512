//! The settings in force and where each value comes from, for operators. Values of secrets are left out.

use std::sync::Arc;

use super::{
    settings::{self as set, ALL, Setting},
    source::{Place, Reader},
};

/// The source of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingSource {
    /// A flag of the command line.
    Flag,
    /// The environment.
    Environment,
    /// The file `.env`.
    DotEnv,
    /// The default.
    Default,
    /// The data folder of `switchboard dev`, which made it.
    DataDir,
    /// There is no value.
    Unset,
}

impl SettingSource {
    /// The name for operators.
    pub fn label(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::DotEnv => ".env",
            Self::Default => "default",
            Self::DataDir => "DATA_DIR",
            Self::Unset => "unset",
        }
    }
}

/// A setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingInForce {
    /// Its name.
    pub name: &'static str,
    /// The heading of its group.
    pub group: &'static str,
    /// Its value, as it was given; `None` if it has none, or is a secret.
    pub value: Option<String>,
    /// True if it is a secret, whose value is never shown.
    pub secret: bool,
    /// The source of its value.
    pub source: SettingSource,
    /// The variable that holds the value, if it has another name: that of a file, or an older name.
    pub variable: Option<String>,
}

/// Every setting, in the order of the documentation.
pub(super) fn of(reader: &mut Reader<'_>) -> Arc<[SettingInForce]> {
    ALL.iter().map(|setting| one(reader, setting)).collect()
}

fn one(reader: &mut Reader<'_>, setting: &Setting) -> SettingInForce {
    let found = reader.find(setting);
    let default = setting.default_in(reader.dev);
    let (value, source, variable) = match found {
        Some(found) => {
            let source = match found.place {
                Place::Flag => SettingSource::Flag,
                Place::Environment => SettingSource::Environment,
                Place::DotEnv => SettingSource::DotEnv,
            };
            (Some(found.value), source, Some(found.name).filter(|name| name != setting.name))
        }
        None if reader.dev && is_made_by_dev(reader, setting) => (None, SettingSource::DataDir, None),
        None => match default {
            Some(default) => (Some(default.to_owned()), SettingSource::Default, None),
            None => (None, SettingSource::Unset, None),
        },
    };
    let value = value.filter(|_| !setting.secret).map(|value| without_login(&value));
    SettingInForce { name: setting.name, group: setting.group.title(), value, secret: setting.secret, source, variable }
}

/// True for a secret that `switchboard dev` keeps in its data folder, because none was given.
fn is_made_by_dev(reader: &Reader<'_>, setting: &Setting) -> bool {
    let keys = [&set::JWT_PUBLIC_KEY, &set::JWT_JWKS_URL];
    *setting == set::ADMIN_TOKEN || *setting == set::JWT_SECRET && keys.iter().all(|key| !reader.given(key))
}

/// A value whose URLs, if it has some, show no user and no password.
fn without_login(value: &str) -> String {
    let strip = |item: &str| match item.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            match rest[..end].rfind('@') {
                Some(at) => format!("{scheme}://…{}", &rest[at..]),
                None => item.to_owned(),
            }
        }
        None => item.to_owned(),
    };
    value.split(',').map(strip).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn values_have_their_source_and_secrets_have_no_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "planted-planted-planted-planted-planted").unwrap();
        let flags = [
            ("DATA_DIR", folder.path().to_str().unwrap()),
            ("PUBLIC_URL", "https://planted:planted@chat.example.com/x"),
            ("ADMIN_TOKEN_FILE", file.to_str().unwrap()),
        ];
        let sources = Sources {
            flags: flags.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            environment: Box::new(|name| (name == "ACCESS_TOKEN_EXPIRE_MINUTES").then(|| "7".into())),
            dotenv: BTreeMap::from([("MAX_CONNECTIONS".to_owned(), "12".to_owned())]),
            open_files: None,
        };
        let config = Config::load(true, &sources).unwrap();
        let of = |name: &str| config.in_force.iter().find(|one| one.name == name).unwrap();
        assert_eq!(config.in_force.len(), ALL.len());
        assert_eq!(
            (of("MAX_CONNECTIONS").value.as_deref(), of("MAX_CONNECTIONS").source),
            (Some("12"), SettingSource::DotEnv)
        );
        assert_eq!(
            (of("PING_INTERVAL").value.as_deref(), of("PING_INTERVAL").source),
            (Some("25s"), SettingSource::Default)
        );
        let ttl = of("TOKEN_TTL");
        assert_eq!((ttl.value.as_deref(), ttl.source), (Some("7m"), SettingSource::Environment));
        assert_eq!(ttl.variable.as_deref(), Some("ACCESS_TOKEN_EXPIRE_MINUTES"));
        let token = of("ADMIN_TOKEN");
        assert_eq!((&token.value, token.source, token.secret), (&None, SettingSource::Flag, true));
        assert_eq!(token.variable.as_deref(), Some("ADMIN_TOKEN_FILE"));
        assert_eq!(of("JWT_SECRET").source, SettingSource::DataDir);
        assert_eq!(of("JWT_PUBLIC_KEY").source, SettingSource::Unset);
        assert_eq!(of("PUBLIC_URL").value.as_deref(), Some("https://…@chat.example.com/x"));
        assert!(!format!("{:?}", config.in_force).contains("planted"));
    }

    #[test]
    fn the_console_is_off_without_a_token_and_its_token_is_checked() {
        let base = [
            ("REDIS_URL", "redis://localhost"),
            ("DATABASE_URL", "postgres://localhost/x"),
            ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ];
        let load = |more: &[(&str, &str)]| {
            let all = base.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let environment = Box::new(|_: &str| None);
            let sources = Sources { flags: all.collect(), environment, dotenv: BTreeMap::new(), open_files: None };
            Config::load(false, &sources)
        };
        assert!(load(&[]).unwrap().console.is_none());
        let faults = |more: &[(&str, &str)]| load(more).unwrap_err().to_string();
        assert!(faults(&[("ADMIN_TOKEN", "short")]).contains("ADMIN_TOKEN must have at least 32 bytes"));
        assert!(faults(&[("ADMIN_TOKEN", base[2].1)]).contains("ADMIN_TOKEN is the same as JWT_SECRET"));
        let token = ("ADMIN_TOKEN", "abcdefghijklmnopqrstuvwxyzabcdef");
        assert!(load(&[token]).unwrap().console.is_some());
        let off = load(&[token, ("ADMIN_LISTEN", "off")]).unwrap();
        assert!(off.console.is_none() && off.notes.iter().any(|note| note.contains("ADMIN_LISTEN is off")));
        let public = load(&[token, ("ADMIN_LISTEN", "0.0.0.0:8001")]).unwrap();
        assert!(public.console.is_some() && public.notes.iter().any(|note| note.contains("not encrypted")));
    }
}

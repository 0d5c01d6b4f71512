//! Configuration: the only code that reads flags, the environment and `.env`. It checks all settings before anything
//! starts, and reports every fault at once.
//!
//! [`settings`] is the table of all settings; the structs of `values` hold them for the rest of the program.

mod addresses;
mod console;
mod dev;
mod document;
mod dotenv;
mod group;
mod in_force;
mod limits;
mod load;
mod origins;
mod parse;
mod redis_prefix;
mod redis_url;
mod secret;
mod secret_source;
mod servers;
pub mod settings;
mod source;
#[cfg(test)]
mod tests;
mod tls_files;
mod urls;
mod values;
mod webhooks;

pub use addresses::health_address;
pub use console::admin_access;
pub(crate) use dev::{ADMIN_TOKEN_FILE as DEV_ADMIN_TOKEN_FILE, SECRET_FILE as DEV_SECRET_FILE};
pub use dev::{data_folder, make_private_folder, open_private_file};
pub use document::{flag_help, markdown, summary};
pub use in_force::{SettingInForce, SettingSource};
pub use load::max_revocations;
pub use origins::{AllowedOrigins, is_same_host, is_this_machine};
pub use parse::flag_of;
pub use redis_prefix::RedisPrefix;
pub use redis_url::{HostPort, RedisForm, RedisLogin, RedisPasswords, RedisServers, SentinelServers};
pub use secret::Secret;
pub use secret_source::{SecretFile, SecretSource};
pub use servers::{PostgresConfig, RedisConfig, RedisSource};
pub use source::{ConfigFault, ConfigFaults, Lookup, Sources, duration_within};
pub use tls_files::{ClientCertificate, TlsFiles, TlsMaterial};
pub use urls::{is_tls_optional, read_postgres_url};
pub use values::{
    AuthConfig, AuthKey, Config, ConsoleConfig, HealthDetails, JwksConfig, Limits, LogConfig, LogFormat, RateLimit,
    StoreBackend, StoreConfig, Timing,
};
pub use webhooks::{NotificationConfig, PersonaConfig, WebhookConfig, WebhookTarget};

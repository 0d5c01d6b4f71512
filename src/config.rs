//! Configuration: the only reader of flags, environment and `.env`. Everything is checked at once, before anything starts.
//!
//! [`settings`] is the table of all there is; the structs of `values` are what the rest of the program gets to see.

mod dev;
mod document;
mod load;
mod parse;
mod secret;
pub mod settings;
mod source;
#[cfg(test)]
mod tests;
mod values;
mod webhooks;

pub(crate) use dev::SECRET_FILE as DEV_SECRET_FILE;
pub use dev::data_folder;
pub use document::{flag_help, markdown, summary};
pub use load::health_address;
pub use parse::{duration, flag_of, read_postgres_url};
pub use secret::Secret;
pub use source::{Fault, Faults, Lookup, Sources};
pub use values::{
    AuthConfig, AuthKey, Config, Limits, LogConfig, LogFormat, RedisConfig, StoreBackend, StoreConfig, Timing,
};
pub use webhooks::{NotificationConfig, WebhookConfig};

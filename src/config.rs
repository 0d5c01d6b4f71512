//! Configuration: the only reader of flags, environment and `.env`. Everything is checked at once, before anything starts.
//!
//! [`settings`] is the table of all there is; the structs of `values` are what the rest of the program gets to see.

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

pub use document::{flag_help, markdown, summary};
pub(crate) use load::DEV_SECRET_FILE;
pub use load::health_address;
pub use parse::{duration, flag_of, read_postgres_url};
pub use secret::Secret;
pub use source::{Fault, Faults, Lookup, Sources};
pub use values::{
    AuthConfig, AuthKey, Config, Limits, LogConfig, LogFormat, RedisConfig, StoreBackend, StoreConfig, Timing,
};
pub use webhooks::{NotificationConfig, WebhookConfig};

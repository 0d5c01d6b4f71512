//! The maximum lengths of JSON from clients.

use crate::{
    config::Limits,
    model::{Command, Data, DataEdit, Reject},
};

/// Maximum length of the data of an event, in bytes.
const EVENT_BYTES: usize = 4 * 1_024;

/// Maximum lengths of data that are settings, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataLimits {
    /// Of a message.
    pub(super) message: usize,
}

impl DataLimits {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { message: limits.data_bytes }
    }

    /// Refuses a command whose data is too long.
    pub(super) fn check(self, command: &Command) -> Result<(), Reject> {
        match command {
            Command::Send(message) => check_length(message.data.as_ref(), self.message),
            Command::Edit { data: DataEdit::Replace(data), .. } => check_length(Some(data), self.message),
            Command::Event(event) => check_length(event.data.as_ref(), EVENT_BYTES),
            _ => Ok(()),
        }
    }
}

fn check_length(data: Option<&Data>, most: usize) -> Result<(), Reject> {
    match data.map_or(0, Data::bytes) {
        bytes if bytes > most => Err(Reject::Invalid(format!("data has {bytes} bytes, and may have {most}"))),
        _ => Ok(()),
    }
}

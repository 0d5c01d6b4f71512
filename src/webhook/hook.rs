//! The purposes of webhooks.

use crate::supervise::TaskName;

/// The purpose of a webhook: the label in metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Requests answers of personas.
    Persona,
    /// Reports messages that wait for a user who is away.
    Notification,
}

impl Hook {
    /// The task that handles the jobs.
    pub fn task(self) -> TaskName {
        match self {
            Self::Persona => TaskName::Personas,
            Self::Notification => TaskName::Notifications,
        }
    }

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Persona => "persona",
            Self::Notification => "notification",
        }
    }
}

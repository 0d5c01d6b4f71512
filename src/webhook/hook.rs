//! The purposes of webhooks.

/// The purpose of a webhook: the label in metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Requests answers of personas.
    Persona,
    /// Reports messages that wait for a user who is away.
    Notification,
}

impl Hook {
    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Persona => "persona",
            Self::Notification => "notification",
        }
    }
}

//! What webhooks are for.

/// What a webhook is for: the label in metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Personas answer.
    Persona,
    /// Messages wait for somebody.
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

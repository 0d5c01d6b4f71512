//! The identity of a deployment: all nodes that share a store.

use std::fmt;

use uuid::Uuid;

use super::InvalidId;

/// The id of a deployment. The first migration that knows it makes it at random, and the store keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeploymentId(Uuid);

impl DeploymentId {
    /// Reads 32 hexadecimal digits, with or without hyphens.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        Uuid::parse_str(text).map(Self).map_err(|_| InvalidId)
    }

    /// The last 48 bits, which are random in every version of UUIDs that databases make: enough to tell the deployments on
    /// one server apart.
    pub fn short(&self) -> String {
        self.to_string().split_off(20)
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_simple(), f)
    }
}

impl fmt::Debug for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the store says about its deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// Differs between all deployments.
    pub id: DeploymentId,
    /// Increases whenever what was made from an earlier state of the store must not be used any more.
    pub epoch: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_in_one_form() {
        let id = DeploymentId::parse("0190ABCD-0123-4567-89ab-00000000cdef").unwrap();
        assert_eq!(id.to_string(), "0190abcd0123456789ab00000000cdef");
        assert_eq!(DeploymentId::parse(&id.to_string()), Ok(id));
        assert_eq!(id.short(), "00000000cdef");
        assert_eq!(DeploymentId::parse("0190"), Err(InvalidId));
    }
}

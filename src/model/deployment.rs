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

    /// The id of the deployment whose store has this id in this place.
    pub fn at(&self, place: &str) -> Self {
        Self(Uuid::new_v5(&self.0, place.as_bytes()))
    }

    /// The short form.
    pub fn tag(&self) -> DeploymentTag {
        DeploymentTag(self.0.as_u128() as u64 & DeploymentTag::MASK)
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

/// The last 48 bits of a [`DeploymentId`], which are random or a hash in every version of UUIDs: enough to tell the deployments
/// on one Redis apart.
#[derive(Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeploymentTag(u64);

impl DeploymentTag {
    const MASK: u64 = (1 << 48) - 1;
    const DIGITS: usize = 12;

    /// Reads the output of `Display`.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let digits =
            text.len() == Self::DIGITS && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or(InvalidId)
    }
}

/// 12 hexadecimal digits.
impl fmt::Display for DeploymentTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl fmt::Debug for DeploymentTag {
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
        assert_eq!(id.tag().to_string(), "00000000cdef");
        assert_eq!(DeploymentTag::parse("00000000cdef"), Ok(id.tag()));
        assert_ne!(id.at("a/1").tag(), id.at("a/2").tag());
        assert_eq!(id.at("a/1"), id.at("a/1"));
        for wrong in ["", "cdef", "00000000CDEF", "+0000000cdef", "000000000cdef"] {
            assert_eq!(DeploymentTag::parse(wrong), Err(InvalidId), "{wrong}");
        }
        assert_eq!(DeploymentId::parse("0190"), Err(InvalidId));
    }
}

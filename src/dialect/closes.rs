//! Close codes and texts of the dialects, and the drop class of ephemeral frames.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::{
    model::{CloseReason, Ephemeral, EphemeralEvent, Reject},
    outbox::Class,
};

/// Close codes that all dialects share (RFC 6455, section 7.4.1, and the IANA registry of close codes).
pub(super) mod code {
    pub(in crate::dialect) const PROTOCOL: u16 = 1002;
    pub(in crate::dialect) const UNSUPPORTED: u16 = 1003;
    pub(in crate::dialect) const NOT_UTF8: u16 = 1007;
    pub(in crate::dialect) const POLICY: u16 = 1008;
    pub(in crate::dialect) const TOO_LARGE: u16 = 1009;
    pub(in crate::dialect) const INTERNAL: u16 = 1011;
    pub(in crate::dialect) const RESTART: u16 = 1012;
    pub(in crate::dialect) const TRY_LATER: u16 = 1013;
}

/// The close code and text that don't depend on the dialect; `None` if the client is gone.
pub(super) fn common_close(reason: &CloseReason) -> Option<(u16, Cow<'static, str>)> {
    Some(match reason {
        CloseReason::ClientLeft => return None,
        CloseReason::Binary => (code::UNSUPPORTED, "Text frames only".into()),
        CloseReason::TooLarge => (code::TOO_LARGE, "Message too large".into()),
        CloseReason::TooManyFragments => (code::TOO_LARGE, "Too many fragments".into()),
        CloseReason::NotUtf8 => (code::NOT_UTF8, "Not UTF-8".into()),
        CloseReason::Protocol => (code::PROTOCOL, "Protocol error".into()),
        CloseReason::Silent => (code::POLICY, "No answer to ping".into()),
        CloseReason::TooSlow => (code::POLICY, "Too slow: reconnect and resume".into()),
        CloseReason::Flood => (code::POLICY, "Too many frames".into()),
        CloseReason::TokenExpired => (code::POLICY, "Token expired".into()),
        CloseReason::Disconnected => (code::POLICY, "Disconnected by an administrator".into()),
        CloseReason::Refused(reject) => (code::POLICY, reject.to_string().into()),
        CloseReason::Internal => (code::INTERNAL, "Internal error: reconnect and resume".into()),
        CloseReason::Restart(after) => {
            (code::RESTART, format!("Restarting, retry after {} ms", after.as_millis()).into())
        }
    })
}

/// The close of the documented dialects: code 1008 and the reason as text, or 1013 if a retry may succeed.
pub(super) fn document_close(reason: &CloseReason) -> Option<(u16, Cow<'static, str>)> {
    match reason {
        CloseReason::Refused(
            Reject::TooManyConnectionsMaybe
            | Reject::Overloaded { .. }
            | Reject::ReadTooSlow { .. }
            | Reject::Unavailable,
        ) => Some((code::TRY_LATER, "Try again later".into())),
        _ => common_close(reason),
    }
}

/// The class that decides when an ephemeral frame may be dropped for a slow client.
pub(super) fn class_of(ephemeral: &EphemeralEvent) -> Class {
    let mut kind = DefaultHasher::new();
    ephemeral.log.hash(&mut kind);
    std::mem::discriminant(&ephemeral.what).hash(&mut kind);
    match &ephemeral.what {
        Ephemeral::Typing { .. } | Ephemeral::Probe { .. } => return Class::Typing,
        Ephemeral::Custom { .. } => return Class::Event,
        Ephemeral::Listening { user, .. }
        | Ephemeral::Audience { user, .. }
        | Ephemeral::Presence { user, .. }
        | Ephemeral::Receipt { user, .. } => {
            user.hash(&mut kind);
        }
    }
    Class::State(kind.finish())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::TokenFlaw;

    #[test]
    fn the_page_of_connections_lists_every_close() {
        let page = include_str!("../../docs/protocol/connections.md");
        let refused = |reject| CloseReason::Refused(reject);
        let reasons = [
            CloseReason::Binary,
            CloseReason::TooLarge,
            CloseReason::TooManyFragments,
            CloseReason::NotUtf8,
            CloseReason::Protocol,
            CloseReason::Silent,
            CloseReason::TooSlow,
            CloseReason::Flood,
            CloseReason::TokenExpired,
            CloseReason::Disconnected,
            CloseReason::Restart(Duration::from_millis(7)),
            refused(Reject::InvalidToken(TokenFlaw::Missing)),
            refused(Reject::TokenExpired),
            refused(Reject::TokenRevoked),
            refused(Reject::Blocked),
            refused(Reject::AuthTimeout),
            refused(Reject::NotMember),
            refused(Reject::TooManyConnections),
            refused(Reject::TooManyConnectionsMaybe),
            refused(Reject::Unavailable),
        ];
        for reason in reasons {
            for (code, text) in [common_close(&reason), document_close(&reason)].into_iter().flatten() {
                let text = format!("`{}`", text.replace('7', "…"));
                let listed = |line: &str| line.contains(&code.to_string()) && line.contains(&text);
                let native_only =
                    code == code::POLICY && document_close(&reason).is_some_and(|(other, _)| other != code);
                assert!(page.lines().any(listed) || native_only, "{code} {text}");
            }
        }
    }
}

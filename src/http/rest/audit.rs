//! The audit log: one line for each action of an admin over REST. It has no token and no content of messages.

use super::call::Call;
use crate::http::{HttpResult, client};

/// The line of one action. Dropped without a result, because the request timed out or its client left, it says so.
pub(super) struct AuditLine<'a> {
    action: String,
    call: &'a Call<'a>,
    path: &'a str,
    written: bool,
}

impl<'a> AuditLine<'a> {
    /// The line of an action that begins.
    pub(super) fn begin(action: String, call: &'a Call<'a>, path: &'a str) -> Self {
        Self { action, call, path, written: false }
    }

    /// Writes the line of an action that has ended.
    pub(super) fn end(mut self, result: &HttpResult) {
        self.written = true;
        match result {
            Ok(response) => self.write(Some(response.status().as_u16()), "ok"),
            Err(problem) => self.write(Some(problem.status.as_u16()), problem.code()),
        }
    }

    fn write(&self, status: Option<u16>, outcome: &str) {
        let Self { action, call, path, .. } = self;
        let proxies = &call.service.broker().config.trusted_proxies;
        let address = client::address(call.peer.address, call.headers, proxies);
        let named = |segment| call.segment(segment).filter(|text| !text.is_empty());
        tracing::info!(
            target: "audit",
            by = call.identity.user.as_str(),
            admin = call.identity.admin,
            action,
            user = named("user").as_deref(),
            conversation = named("conversation").as_deref(),
            path,
            %address,
            status,
            outcome,
            "admin action"
        );
    }
}

impl Drop for AuditLine<'_> {
    fn drop(&mut self) {
        if !self.written {
            self.write(None, "unknown");
        }
    }
}

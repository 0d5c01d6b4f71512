//! The record of what the console did: one line in the log for each action, and a metric. It has no token and no content.

use std::net::IpAddr;

use crate::http::{HttpResult, rest::Call};

/// The record of one action. Dropped without a result, because its client left, it says so.
pub(super) struct Record<'a> {
    action: &'static str,
    call: &'a Call<'a>,
    path: &'a str,
    address: IpAddr,
    /// True if a success is recorded at debug only.
    quiet: bool,
    written: bool,
}

impl<'a> Record<'a> {
    /// The record of an action that begins.
    pub(super) fn begin(action: &'static str, call: &'a Call<'a>, path: &'a str, address: IpAddr, quiet: bool) -> Self {
        Self { action, call, path, address, quiet, written: false }
    }

    /// Writes the record of an action that has ended.
    pub(super) fn end(mut self, result: &HttpResult) {
        self.written = true;
        match result {
            Ok(response) => self.write(Some(response.status().as_u16()), "ok"),
            Err(problem) => self.write(Some(problem.status.as_u16()), problem.code()),
        }
    }

    fn write(&self, status: Option<u16>, outcome: &'static str) {
        let Self { action, call, path, address, .. } = self;
        call.service.broker().metrics.console_requests.with_label_values(&[action, outcome]).inc();
        let named = |segment| call.segment(segment).filter(|text| !text.is_empty());
        let by = call.identity.user.as_str();
        if self.quiet && outcome == "ok" {
            tracing::debug!(target: "audit", via = "console", by, action, path, %address, status, outcome, "admin action");
            return;
        }
        tracing::info!(
            target: "audit",
            via = "console",
            by,
            admin = true,
            action,
            user = named("user").as_deref(),
            conversation = named("conversation").as_deref(),
            message = named("message").as_deref(),
            delivery = named("delivery").as_deref(),
            path,
            %address,
            status,
            outcome,
            "admin action"
        );
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.written {
            self.write(None, "unknown");
        }
    }
}

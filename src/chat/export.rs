//! The export of a user's data, page by page.

use super::{
    Chat,
    command::{CommandReply, require_feature, unavailable},
};
use crate::{
    degrade::Feature,
    model::{ExportCursor, ExportPage, ExportRecord, LogId, Reject, Reply, UserId},
    store::StoreError,
};

/// Records of a page, about: entries of the page's last log may exceed it by as much.
const ROWS: u32 = 200;
/// Logs that one read looks at.
const LOGS: u32 = 1_000;

impl Chat {
    /// Reads a page of the export of a user's data.
    pub(super) async fn export(&self, user: &UserId, cursor: ExportCursor) -> Result<CommandReply, Reject> {
        require_feature(&self.degrade, Feature::History)?;
        let page = match cursor {
            ExportCursor::Begin => self.export_profile(user).await,
            ExportCursor::Memberships(after) => {
                let found = self.store.memberships(user, after.as_ref(), ROWS).await;
                found.map(|found| {
                    let last = found.last().filter(|_| found.len() >= ROWS as usize);
                    let next = last.map(|last| ExportCursor::Memberships(Some(last.conversation.clone())));
                    (
                        found.into_iter().map(ExportRecord::Membership).collect(),
                        next.or(Some(ExportCursor::Notifications(0))),
                    )
                })
            }
            ExportCursor::Notifications(after) => {
                let found = self.store.notifications_after(user, after, ROWS).await;
                found.map(|found| {
                    let last = found.last().filter(|_| found.len() >= ROWS as usize);
                    let next = last.map(|last| ExportCursor::Notifications(last.id));
                    (
                        found.into_iter().map(ExportRecord::Notification).collect(),
                        next.or(Some(ExportCursor::Logs(None))),
                    )
                })
            }
            ExportCursor::Logs(after) => self.export_logs(user, after).await,
            ExportCursor::Entries(log, after) => {
                let found = self.store.authored(&log, user, Some(&after), ROWS).await;
                found.map(|found| {
                    let next = match found.last().filter(|_| found.len() >= ROWS as usize) {
                        Some((key, _)) => ExportCursor::Entries(log, key.clone()),
                        None => ExportCursor::Logs(Some(log)),
                    };
                    (found.into_iter().map(|(_, entry)| ExportRecord::Entry(entry.into())).collect(), Some(next))
                })
            }
        };
        let (records, next) = page.map_err(|error| unavailable(&error))?;
        let at = self.restriction_reader.clock.now();
        Ok(Reply::Exported(ExportPage { at, records, next }).into())
    }

    async fn export_profile(&self, user: &UserId) -> Result<(Vec<ExportRecord>, Option<ExportCursor>), StoreError> {
        let of = std::slice::from_ref(user);
        let name = self.store.names(of).await?.pop().map(|(_, name)| name);
        let (status, last_seen) = match self.store.statuses(of).await?.pop() {
            Some((_, status, last_seen)) => (Some(status), last_seen),
            None => (None, None),
        };
        let blocks = self.store.blocked(user).await?.into_iter().map(ExportRecord::Block);
        let records = [ExportRecord::Profile { name, status, last_seen }].into_iter().chain(blocks).collect();
        Ok((records, Some(ExportCursor::Memberships(None))))
    }

    /// The entries in the next conversations, until the page is full.
    async fn export_logs(
        &self,
        user: &UserId,
        after: Option<LogId>,
    ) -> Result<(Vec<ExportRecord>, Option<ExportCursor>), StoreError> {
        let (logs, last) = self.store.authored_logs(user, after.as_ref(), LOGS).await?;
        let mut records = Vec::new();
        for log in logs.into_iter().filter(|log| log.conversation().is_some()) {
            let found = self.store.authored(&log, user, None, ROWS).await?;
            let (full, key) = (found.len() >= ROWS as usize, found.last().map(|(key, _)| key.clone()));
            records.extend(found.into_iter().map(|(_, entry)| ExportRecord::Entry(entry.into())));
            match key.filter(|_| full) {
                Some(key) => return Ok((records, Some(ExportCursor::Entries(log, key)))),
                None if records.len() >= ROWS as usize => return Ok((records, Some(ExportCursor::Logs(Some(log))))),
                None => {}
            }
        }
        // Inboxes come after all conversations in the order of names, and say nothing that the user wrote.
        let next = last.filter(|last| last.conversation().is_some()).map(|last| ExportCursor::Logs(Some(last)));
        Ok((records, next))
    }
}

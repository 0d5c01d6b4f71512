//! The data of one user: its export as lines of JSON, and its erasure.

use hyper::{
    Response,
    header::{self, HeaderValue},
};
use serde::Serialize;

use super::conversations::View;
use crate::{
    http::{
        HttpResult,
        problem::{Payload, Problem},
        rest::{Call, ok, unexpected},
    },
    model::{
        Command, ConversationId, Erasure, ExportCursor, ExportPage, ExportRecord, LogOf, Reply, Seq, Status, Timestamp,
        UserId,
    },
};

/// The version of the lines. A new kind of line or a new field does not change it.
const VERSION: u32 = 1;

/// A line of an export.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Export {
        version: u32,
        user_id: &'a UserId,
        at: Timestamp,
    },
    Profile {
        name: Option<&'a str>,
        status: Option<Status>,
        last_seen: Option<Timestamp>,
    },
    Block {
        user_id: &'a UserId,
    },
    Conversation {
        conversation_id: &'a ConversationId,
        name: Option<&'a str>,
        is_group: bool,
        is_creator: bool,
        joined_at: Timestamp,
        delivered_seq: Seq,
        read_seq: Seq,
        is_archived: bool,
    },
    Notification {
        id: i64,
        conversation_id: &'a ConversationId,
        from_seq: Seq,
        count: i64,
        created_at: Timestamp,
        read_at: Option<Timestamp>,
    },
    Entry {
        conversation_id: ConversationId,
        #[serde(flatten)]
        entry: View<'a>,
    },
    /// The page ends; the export goes on at this cursor.
    Next {
        cursor: String,
    },
    /// The export is complete.
    End,
}

impl<'a> Line<'a> {
    /// The line of a record; none for an entry of an inbox.
    fn of(record: &'a ExportRecord) -> Option<Self> {
        Some(match record {
            ExportRecord::Profile { name, status, last_seen } => {
                Self::Profile { name: name.as_deref(), status: *status, last_seen: *last_seen }
            }
            ExportRecord::Block(user_id) => Self::Block { user_id },
            ExportRecord::Membership(membership) => Self::Conversation {
                conversation_id: &membership.conversation,
                name: membership.name.as_deref(),
                is_group: !membership.direct,
                is_creator: membership.created,
                joined_at: membership.joined_at,
                delivered_seq: membership.delivered_seq,
                read_seq: membership.read_seq,
                is_archived: membership.archived,
            },
            ExportRecord::Notification(one) => Self::Notification {
                id: one.id,
                conversation_id: &one.conversation,
                from_seq: one.from_seq,
                count: one.count,
                created_at: one.created_at,
                read_at: one.read_at,
            },
            ExportRecord::Entry(entry) => match entry.log.of() {
                LogOf::Conversation(conversation_id) => Self::Entry { conversation_id, entry: View::of(entry) },
                LogOf::Inbox(_) => return None,
            },
        })
    }
}

pub(super) async fn export(call: &Call<'_>) -> HttpResult {
    let user = call.user_of_path("User")?;
    let cursor = match call.parameter("cursor") {
        None => ExportCursor::Begin,
        Some(text) => ExportCursor::parse(&text)
            .ok_or_else(|| Problem::invalid("cursor must be that of the line \"next\" of the page before"))?,
    };
    let is_first = cursor == ExportCursor::Begin;
    let page = match call.execute(Command::Export { user: user.clone(), cursor }).await? {
        Reply::Exported(page) => page,
        other => return Err(unexpected(&other)),
    };
    let ExportPage { at, records, next } = &page;
    let first = is_first.then_some(Line::Export { version: VERSION, user_id: &user, at: *at });
    let last = next.as_ref().map_or(Line::End, |next| Line::Next { cursor: next.to_string() });
    let mut body = Vec::new();
    for line in first.into_iter().chain(records.iter().filter_map(Line::of)).chain([last]) {
        serde_json::to_writer(&mut body, &line).map_err(|_| Problem::internal())?;
        body.push(b'\n');
    }
    let mut response = Response::new(Payload::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// An erasure as admins see it.
#[derive(Serialize)]
struct ErasureView<'a> {
    user_id: &'a UserId,
    requested_at: Timestamp,
    by: &'a UserId,
    is_done: bool,
    done_at: Option<Timestamp>,
}

pub(super) async fn erase(call: &Call<'_>) -> HttpResult {
    answer_erasure(call, Command::Erase { user: call.user_of_path("User")? }).await
}

pub(super) async fn erasure(call: &Call<'_>) -> HttpResult {
    answer_erasure(call, Command::ShowErasure { user: call.user_of_path("User")? }).await
}

async fn answer_erasure(call: &Call<'_>, command: Command) -> HttpResult {
    match call.execute(command).await? {
        Reply::Erasure(Erasure { user, requested_at, by, done_at, .. }) => {
            ok(&ErasureView { user_id: &user, requested_at, by: &by, is_done: done_at.is_some(), done_at })
        }
        other => Err(unexpected(&other)),
    }
}

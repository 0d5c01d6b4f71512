//! A user: sockets on all nodes, presence, block, and the marks in the user's conversations.

use serde::Serialize;

use super::overview::{Unknown, knows_other_nodes};
use crate::{
    http::{
        HttpResult,
        rest::{Call, ok, unexpected},
    },
    model::{
        Command, ConnectionId, Conversation, ConversationId, ConversationKind, ConversationList, Listed, NodeId,
        Offset, PageLimit, Reject, Reply, Seq, Status, Timestamp, UserId,
    },
};

#[derive(Serialize)]
struct User<'a> {
    user_id: &'a UserId,
    connections: Vec<Connection<'a>>,
    /// False if sockets on other nodes are unknown, because Redis is away.
    connections_complete: bool,
    presence: Option<Presence>,
    blocked: Option<bool>,
    block: Option<Block>,
    unknown: Vec<Unknown>,
}

#[derive(Serialize)]
struct Connection<'a> {
    connection_id: ConnectionId,
    node: &'a NodeId,
    dialect: Option<&'a str>,
    connected_at: Timestamp,
    age_seconds: u64,
}

/// The presence as other users see it.
#[derive(Serialize)]
struct Presence {
    online: bool,
    status: Status,
    last_seen: Option<Timestamp>,
}

#[derive(Serialize)]
struct Block {
    at: Timestamp,
    by: Box<str>,
}

#[derive(Serialize)]
struct OnlineUsers<'a> {
    users: &'a [UserId],
    count: u64,
    next: Option<u64>,
    unknown: Vec<Unknown>,
}

pub(super) async fn online(call: &Call<'_>) -> HttpResult {
    let (users, count, next) = call.online_users().await?;
    let complete = knows_other_nodes(call.service.broker());
    let unknown = if complete { Vec::new() } else { vec![Unknown::without_redis("users on other nodes")] };
    ok(&OnlineUsers { users: &users, count, next, unknown })
}

pub(super) async fn show(call: &Call<'_>) -> HttpResult {
    let user = call.user_of_path("User")?;
    let users = Listed::given("user", vec![user.clone()])?;
    let (held, seen, block) = tokio::join!(
        call.execute(Command::ConnectionsOf { user: user.clone() }),
        call.execute(Command::Presence { users }),
        call.execute(Command::ShowBlock { user: user.clone() }),
    );
    let (mut unknown, complete) = (Vec::new(), knows_other_nodes(call.service.broker()));
    if !complete {
        unknown.push(Unknown::without_redis("connections"));
    }
    let mut known = |what, reply: Result<Reply, Reject>| match reply {
        Ok(reply) => Some(reply),
        Err(reject) => {
            unknown.push(Unknown { what, why: reject.to_string() });
            None
        }
    };
    let (held, seen, block) = (known("connections", held), known("presence", seen), known("block", block));
    let now = call.service.broker().clock.now();
    let held = match held {
        Some(Reply::Connections(held)) => held,
        Some(other) => return Err(unexpected(&other)),
        None => Vec::new(),
    };
    let presence = match seen {
        Some(Reply::Presence { users, .. }) => users.into_iter().next(),
        Some(other) => return Err(unexpected(&other)),
        None => None,
    };
    let presence =
        presence.map(|seen| Presence { online: seen.online, status: seen.status, last_seen: seen.last_seen });
    let (blocked, block) = match block {
        Some(Reply::BlockOf(block)) => {
            (Some(block.is_some()), block.map(|block| Block { at: block.at, by: (&*block.by).into() }))
        }
        Some(other) => return Err(unexpected(&other)),
        None => (None, None),
    };
    let connections = held.iter().map(|one| Connection {
        connection_id: one.connection,
        node: &one.node,
        dialect: one.dialect.as_deref(),
        connected_at: one.since,
        age_seconds: now.since(one.since).as_secs(),
    });
    let connections = connections.collect();
    ok(&User { user_id: &user, connections, connections_complete: complete, presence, blocked, block, unknown })
}

#[derive(Serialize)]
struct Conversations<'a> {
    conversations: Vec<Marks<'a>>,
    total: i64,
    limit: PageLimit,
    offset: Offset,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<u32>,
}

/// A conversation, with the marks of one member.
#[derive(Serialize)]
struct Marks<'a> {
    conversation_id: &'a ConversationId,
    name: Option<&'a str>,
    is_group: bool,
    seq: Seq,
    unread_count: i64,
    /// None of a member beyond the first hundred, whom lists don't show.
    delivered_seq: Option<Seq>,
    read_seq: Option<Seq>,
    updated_at: Timestamp,
}

impl<'a> Marks<'a> {
    fn of(conversation: &'a Conversation, user: &UserId) -> Self {
        let member = conversation.members.iter().find(|member| member.user == *user);
        Self {
            conversation_id: &conversation.id,
            name: conversation.name.as_deref(),
            is_group: conversation.kind == ConversationKind::Group,
            seq: conversation.head,
            unread_count: conversation.unread,
            delivered_seq: member.map(|member| member.delivered_seq),
            read_seq: member.map(|member| member.read_seq),
            updated_at: conversation.updated_at,
        }
    }
}

pub(super) async fn conversations(call: &Call<'_>) -> HttpResult {
    let (user, page, archived) = (call.user_of_path("User")?, call.page()?, call.flag("archived")?);
    match call.execute(Command::ConversationsOf { user: user.clone(), archived, page }).await? {
        Reply::Conversations(ConversationList { conversations, total, next_offset, .. }) => {
            let conversations = conversations.iter().map(|one| Marks::of(one, &user)).collect();
            ok(&Conversations { conversations, total, limit: page.limit, offset: page.offset, next_offset })
        }
        other => Err(unexpected(&other)),
    }
}

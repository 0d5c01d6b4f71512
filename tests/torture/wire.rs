//! The dialects' frames: requests of clients, and what frames of nodes say.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    history::{About, Delivered, Dialect, Kind, Name, hash_of},
    operations::{Operation, To},
    support::token,
};

/// The meaning of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The socket listens to a conversation; `head` is its newest entry.
    Joined { conversation: Name, head: i64, by_itself: bool },
    /// The socket listens from `head` on, and will not get what it missed.
    Resync { conversation: Name, head: i64, asked: bool },
    /// A join was refused; without a conversation, the oldest join without an answer.
    JoinRefused { conversation: Option<Name>, code: String },
    /// The socket no longer listens.
    Left { conversation: Name },
    /// The user became a member of a conversation with this head.
    Added { conversation: Name, head: i64 },
    /// An operation is stored.
    Acked { id: Name, conversation: Name, seq: i64, duplicate: bool },
    /// An operation changed nothing, and stored nothing: a reaction that stood already.
    Unchanged { id: Name },
    /// An operation was refused.
    Refused { id: Name, code: String },
    /// An entry of a log.
    Entry { conversation: Name, entry: Delivered },
    /// A user began or ceased to listen to a conversation.
    Here { conversation: Name, user: Name, here: bool },
    /// A user went online or offline; the conversation is none in dialects that don't name it.
    Online { user: Name, online: bool },
    /// All users who listen to the conversation of the socket.
    Roster { users: Vec<Name> },
}

/// URL at which a dialect's socket is opened.
pub fn url(dialect: Dialect, address: SocketAddr, user: &str, bound: Option<&(Name, Option<i64>)>) -> String {
    let token = token(user);
    let path = match (dialect, bound) {
        (Dialect::Native, _) => "/v1/ws".to_owned(),
        (Dialect::Direct, _) => "/ws".to_owned(),
        (Dialect::Personas, _) => "/ws/auth".to_owned(),
        (Dialect::Rooms, Some((room, _))) => format!("/ws/{room}"),
        (Dialect::Conversation, Some((room, _))) => format!("/api/chat/ws/{room}"),
        (Dialect::Rooms | Dialect::Conversation, None) => panic!("{dialect:?} needs a conversation"),
    };
    let since = bound.and_then(|(_, since)| *since).map(|since| format!("&since_seq={since}")).unwrap_or_default();
    format!("ws://{address}{path}?token={token}{since}")
}

/// True for a dialect's greeting.
pub fn is_greeting(dialect: Dialect, frame: &Value) -> bool {
    match dialect {
        Dialect::Native | Dialect::Direct => frame["type"] == "authenticated",
        Dialect::Rooms => frame["type"] == "connected",
        // Later `system` frames name no seq.
        Dialect::Conversation => frame["type"] == "system" && frame["seq"].is_number(),
        Dialect::Personas => frame["type"] == "online_users",
    }
}

/// The frame that joins a conversation.
pub fn join(dialect: Dialect, conversation: &Name, since: Option<i64>) -> Value {
    let mut frame = match dialect {
        Dialect::Personas => json!({ "type": "join_conversation", "conversation_id": conversation }),
        _ => {
            let reference = format!("join {conversation}");
            json!({ "type": "join", "conversation_id": conversation, "roster": true, "ref": reference })
        }
    };
    if let Some(since) = since {
        frame["since_seq"] = json!(since);
    }
    frame
}

/// The frame that says that the user types, or has stopped. The direct dialect has none.
pub fn typing(dialect: Dialect, conversation: &Name, active: bool) -> Option<Value> {
    let kind = if active { "typing_start" } else { "typing_stop" };
    match dialect {
        Dialect::Native => Some(json!({ "type": "typing", "conversation_id": conversation, "active": active })),
        Dialect::Personas => Some(json!({ "type": kind, "conversation_id": conversation })),
        Dialect::Rooms => Some(json!({ "type": kind })),
        Dialect::Conversation => active.then(|| json!({ "type": "typing" })),
        Dialect::Direct => None,
    }
}

/// The frame of an operation; none if the dialect has no such frame.
pub fn operation(dialect: Dialect, Operation { id, to, kind, about, text, .. }: &Operation) -> Option<Value> {
    let message = *kind == Kind::Message;
    let frame = match (dialect, to) {
        (Dialect::Rooms, _) if message => {
            json!({ "type": "send_message", "data": { "content": text, "client_id": id } })
        }
        (Dialect::Conversation, _) if message => json!({ "type": "message", "content": text, "client_id": id }),
        (Dialect::Personas, To::Conversation(to)) if message => {
            json!({ "type": "send_message", "conversation_id": to, "content": text, "client_id": id })
        }
        (Dialect::Direct, To::User(user)) if message => {
            json!({ "type": "send_message", "recipient_id": user, "content": text, "client_id": id })
        }
        (Dialect::Native, To::User(user)) if message => {
            json!({ "type": "send", "recipient_id": user, "content": text, "client_id": id, "ref": id })
        }
        (Dialect::Native, To::Conversation(to)) => {
            let mut frame = match (kind, about) {
                (Kind::Message, _) => json!({ "type": "send", "content": text }),
                (Kind::Edited, About::Message(seq)) => json!({ "type": "edit", "seq": seq, "content": text }),
                (Kind::Deleted, About::Message(seq)) => json!({ "type": "delete", "seq": seq }),
                (Kind::Reaction, About::Message(seq)) => {
                    json!({ "type": "react", "seq": seq, "emoji": "👍", "active": text == "on" })
                }
                _ => return None,
            };
            (frame["conversation_id"], frame["client_id"], frame["ref"]) = (json!(to), json!(id), json!(id));
            frame
        }
        _ => return None,
    };
    Some(frame)
}

/// Reads a frame. `bound` is the conversation of the socket's URL.
pub fn read(dialect: Dialect, bound: Option<&Name>, frame: &Value) -> Vec<Heard> {
    match dialect {
        Dialect::Native => native(frame),
        Dialect::Direct => direct(frame),
        Dialect::Rooms => rooms(bound.expect("rooms are bound"), frame),
        Dialect::Conversation => conversation(bound.expect("conversations are bound"), frame),
        Dialect::Personas => personas(frame),
    }
}

fn native(frame: &Value) -> Vec<Heard> {
    let kind = text(&frame["type"]);
    let conversation = || name(&frame["conversation_id"]);
    let mark = frame["ref"].as_str().unwrap_or_default();
    let head = || number(&frame["head"]);
    if let Some(kind) = Kind::of_frame(kind) {
        let entry = entry(frame, kind, frame["deleted"] == true);
        return vec![Heard::Entry { conversation: conversation(), entry }];
    }
    let one = match kind {
        "joined" => Heard::Joined { conversation: conversation(), head: head(), by_itself: frame["ref"].is_null() },
        "resync" => Heard::Resync { conversation: conversation(), head: head(), asked: !frame["ref"].is_null() },
        "synced" => return frame["conversations"].as_array().into_iter().flatten().map(synced).collect(),
        "left" => Heard::Left { conversation: conversation() },
        "conversation_added" => Heard::Added { conversation: conversation(), head: number(&frame["since_seq"]) },
        "ack" => acked(frame, conversation(), frame["duplicate"] == true),
        "ok" => match frame["client_id"].as_str() {
            Some(id) => Heard::Unchanged { id: id.into() },
            None => return Vec::new(),
        },
        "error" => match (frame["client_id"].as_str(), mark.strip_prefix("join ")) {
            (Some(id), _) => Heard::Refused { id: id.into(), code: text(&frame["code"]).into() },
            (None, Some(joined)) => {
                Heard::JoinRefused { conversation: Some(joined.into()), code: text(&frame["code"]).into() }
            }
            (None, None) => return Vec::new(),
        },
        "user_joined" | "user_left" => {
            Heard::Here { conversation: conversation(), user: name(&frame["user_id"]), here: kind == "user_joined" }
        }
        "presence" => {
            let (user, online) = (name(&frame["user_id"]), frame["online"] == true);
            Heard::Online { user, online }
        }
        _ => return Vec::new(),
    };
    vec![one]
}

fn synced(one: &Value) -> Heard {
    let (conversation, head) = (name(&one["conversation_id"]), number(&one["head"]));
    match (&one["error"]["code"], one["resync"].is_object()) {
        (Value::String(code), _) => Heard::JoinRefused { conversation: Some(conversation), code: code.clone() },
        (_, true) => Heard::Resync { conversation, head, asked: true },
        (_, false) => Heard::Joined { conversation, head, by_itself: false },
    }
}

fn direct(frame: &Value) -> Vec<Heard> {
    let data = &frame["data"];
    let conversation = || name(&data["conversation_id"]);
    match text(&frame["type"]) {
        "new_message" => {
            vec![Heard::Entry { conversation: conversation(), entry: entry(data, Kind::Message, false) }]
        }
        "message_sent" => vec![acked(data, conversation(), false)],
        "resync" => vec![Heard::Resync { conversation: conversation(), head: number(&data["head"]), asked: true }],
        "error" => refused(frame).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn rooms(room: &Name, frame: &Value) -> Vec<Heard> {
    let (kind, data, room) = (text(&frame["type"]), &frame["data"], room.clone());
    let user = || name(&data["user_id"]);
    match kind {
        "connected" => vec![Heard::Joined { conversation: room, head: number(&data["seq"]), by_itself: false }],
        "resync" => vec![Heard::Resync { conversation: room, head: number(&data["head"]), asked: true }],
        "new_message" => vec![Heard::Entry { conversation: room, entry: entry(data, Kind::Message, false) }],
        "message_sent" => vec![acked(data, room, false)],
        "message_error" => refused(data).into_iter().collect(),
        "user_joined" | "user_left" => {
            vec![Heard::Here { conversation: room, user: user(), here: kind == "user_joined" }]
        }
        _ => Vec::new(),
    }
}

fn conversation(room: &Name, frame: &Value) -> Vec<Heard> {
    match text(&frame["type"]) {
        "system" => {
            let users = frame["active_users"].as_array().into_iter().flatten().map(name).collect();
            let head = frame["seq"].as_i64();
            let joined = head.map(|head| Heard::Joined { conversation: room.clone(), head, by_itself: false });
            joined.into_iter().chain([Heard::Roster { users }]).collect()
        }
        "resync" => vec![Heard::Resync { conversation: room.clone(), head: number(&frame["head"]), asked: true }],
        "message" => vec![Heard::Entry { conversation: room.clone(), entry: entry(frame, Kind::Message, false) }],
        "error" => refused(frame).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn personas(frame: &Value) -> Vec<Heard> {
    let conversation = || name(&frame["conversation_id"]);
    match text(&frame["type"]) {
        "conversation_joined" => {
            vec![Heard::Joined { conversation: conversation(), head: number(&frame["seq"]), by_itself: false }]
        }
        "resync" => vec![Heard::Resync { conversation: conversation(), head: number(&frame["head"]), asked: true }],
        "new_message" => {
            let entry = entry(&frame["message"], Kind::Message, false);
            vec![Heard::Entry { conversation: conversation(), entry }]
        }
        // The greeting comes before the joins: whoever leaves between them is not announced to this socket.
        "online_users" => Vec::new(),
        "presence_update" => {
            let (user, online) = (name(&frame["user_id"]), frame["online"] == true);
            vec![Heard::Online { user, online }]
        }
        // The frame names no join; the answers to joins keep their order.
        "error" => vec![
            refused(frame)
                .unwrap_or_else(|| Heard::JoinRefused { conversation: None, code: text(&frame["code"]).into() }),
        ],
        _ => Vec::new(),
    }
}

fn acked(frame: &Value, conversation: Name, duplicate: bool) -> Heard {
    Heard::Acked { id: name(&frame["client_id"]), conversation, seq: number(&frame["seq"]), duplicate }
}

fn refused(frame: &Value) -> Option<Heard> {
    Some(Heard::Refused { id: frame["client_id"].as_str()?.into(), code: text(&frame["code"]).into() })
}

fn entry(frame: &Value, kind: Kind, deleted: bool) -> Delivered {
    let about = match kind {
        Kind::Message => About::Nothing,
        Kind::Edited | Kind::Deleted | Kind::Reaction => About::Message(number(&frame["target_seq"])),
        Kind::MemberAdded | Kind::MemberRemoved => About::User(name(&frame["user_id"])),
    };
    let text = if deleted { 0 } else { hash_of(text(&frame["content"])) };
    let id = frame["client_id"].as_str().map(Into::into);
    Delivered { seq: number(&frame["seq"]), kind, sender: name(&frame["sender_id"]), id, about, text }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn name(value: &Value) -> Name {
    text(value).into()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

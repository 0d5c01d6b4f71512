//! The broker's own types: ids, commands, events, replies and refusals. This module does no I/O and names no wire
//! format.

mod ack;
mod answer_size;
mod bounds;
mod command;
mod content;
mod cost;
mod culprit;
mod data;
mod deployment;
mod event;
mod event_name;
mod history;
mod ids;
mod invisible;
mod node_keys;
mod notification;
mod personal;
mod reject;
mod reply;
mod restriction;
mod retention;
mod rights;
mod search_terms;
mod search_text;
mod surrogates;
mod time;
mod user;

pub use ack::{PendingAck, TakenAck};
pub use answer_size::{ids_within, json_length};
pub use bounds::{EntrySeq, GivenNumber, Listed, Offset, OutOfBounds, Page, PageLimit, SinceSeq};
pub use command::{Command, NewConversation, NewEvent, NewMessage, Target};
pub use content::{Content, Emoji, InvalidContent, InvalidEmoji, MAX_CONTENT_CHARS};
pub use cost::{Budget, Cost};
pub use culprit::{explain_json, in_plain_words, printable_name};
pub use data::{Data, DataEdit, InvalidData, MAX_JSON_DEPTH, given_or_null};
pub use deployment::{Deployment, DeploymentId, DeploymentTag};
pub use event::{Body, Entry, EntryStamp, Ephemeral, EphemeralEvent, Event};
pub use event_name::{EventName, InvalidEventName};
pub use history::{EntryPage, EntryRange, FoundMessages, HistoryRange, Message, MessagePage, Reactions};
pub use ids::{ClientId, ConnectionId, ConversationId, EntryId, InvalidId, LogId, LogOf, NodeId, Seq, UserId};
pub use invisible::{is_blank, is_invisible};
pub use node_keys::{NodeKey, NodeKeys};
pub use notification::Notification;
pub use personal::{Erasure, ExportCursor, ExportPage, ExportRecord, Membership};
pub use reject::{CloseReason, Reject, TokenFlaw};
pub use reply::{
    ConnectionInfo, Conversation, ConversationKind, ConversationList, Joined, Member, NodeStats, Presence, Reply,
    Resumed, Sent, Stats, Unread,
};
pub use restriction::{InvalidTokenId, Restriction, RestrictionChange, RestrictionMark, RestrictionRequest, TokenId};
pub use retention::{Retention, RetentionDays};
pub use rights::Right;
pub use search_terms::{InvalidSearch, SearchTerms};
pub use search_text::{QueryToken, search_tokens};
pub use surrogates::{HALF_A_CHARACTER, without_lone_surrogates};
pub use time::{Clock, Timestamp};
pub use user::{Identity, Pair, Status};

//! Formats frames as lines for a person, and parses typed lines.

use jiff::tz::TimeZone;

use super::frames::{Frame, Kind, Member, UserPresence};
use crate::model::{MAX_CONTENT_CHARS, Status, Timestamp, UserId};

/// The text of `/help`.
pub(super) const HELP: &str = "\
  /who           show which members are online
  /history [n]   show the last n messages, at most 100 (default 20)
  /help          show this help
  /quit          leave; Ctrl-D does the same
  //text         send /text
Any other line is sent. If a message interrupts your typing, Ctrl-R shows again what you have typed.";

/// Default number of messages of `/history`.
const HISTORY: u32 = 20;
/// Maximum number of messages of `/history`.
const HISTORY_MAX: u32 = 100;

/// A parsed line of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Send this text.
    Message(String),
    /// Show the presence of the members.
    Who,
    /// Show this number of the last messages.
    History(u32),
    /// Show the help.
    Help,
    /// Leave.
    Quit,
    /// A blank line.
    Nothing,
    /// An invalid line, with the reason.
    Invalid(String),
}

impl Typed {
    pub(super) fn parse(line: &str) -> Self {
        let line = line.trim_end();
        if line.trim().is_empty() {
            return Self::Nothing;
        }
        let Some(command) = line.strip_prefix('/') else { return Self::message(line) };
        if command.starts_with('/') {
            return Self::message(command);
        }
        let mut words = command.split_whitespace();
        let (name, argument) = (words.next().unwrap_or_default(), words.next());
        match (name, argument) {
            ("who" | "help" | "quit" | "exit" | "history", _) if command.starts_with(char::is_whitespace) => {
                Self::Invalid(format!("a command has no blank after its /: write /{name}; //… sends a line with /"))
            }
            ("who", None) => Self::Who,
            ("help", None) => Self::Help,
            ("quit" | "exit", None) => Self::Quit,
            ("who" | "help" | "quit" | "exit", Some(_)) => {
                Self::Invalid(format!("nothing follows /{name}: write /{name} alone; //… sends a line with /"))
            }
            ("history", None) => Self::History(HISTORY),
            ("history", Some(count)) => match count.parse() {
                Ok(count) if (1..=HISTORY_MAX).contains(&count) && words.next().is_none() => Self::History(count),
                _ => Self::Invalid(format!("/history takes a number from 1 to {HISTORY_MAX}: /history {HISTORY}")),
            },
            _ => Self::Invalid(format!(
                "there is no /{}: /help lists what there is; //… sends a line with /",
                clean(name)
            )),
        }
    }

    /// The refusal of a line with this number of characters.
    pub(super) fn too_long(count: usize) -> Self {
        Self::Invalid(format!("not sent: {count} characters, and a message has at most {MAX_CONTENT_CHARS}"))
    }

    fn message(text: &str) -> Self {
        // A key such as Ctrl-L or an arrow was pressed, and nothing of it is visible in the line.
        if let Some(control) = text.chars().find(|character| character.is_control() && *character != '\t') {
            return Self::Invalid(format!("not sent: the line has {}; write it again without", control_name(control)));
        }
        match text.chars().count() {
            count if count > MAX_CONTENT_CHARS => Self::too_long(count),
            _ => Self::Message(text.to_owned()),
        }
    }
}

/// Name of the key that types this control character.
fn control_name(control: char) -> String {
    match control {
        '\u{1B}' => "an Escape, as arrow keys type it".to_owned(),
        '\u{7F}' => "a Delete".to_owned(),
        // Ctrl clears bit 6 of the key's character.
        '\0'..='\u{1F}' => format!("a Ctrl-{}", char::from(control as u8 | 0x40)),
        other => format!("the control character U+{:04X}", u32::from(other)),
    }
}

/// Removes control characters from others' texts, so that they can't control the terminal. Indents further lines.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => cleaned.push_str("\n    "),
            '\t' => cleaned.push(' '),
            '\r' => {}
            control if control.is_control() => cleaned.push('\u{FFFD}'),
            // Bidirectional controls reverse the text after them and could make a line look like another.
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => cleaned.push('\u{FFFD}'),
            other => cleaned.push(other),
        }
    }
    cleaned
}

/// The sender's name for display.
fn sender(frame: &Frame) -> String {
    let id = frame.sender_id.as_ref().map(UserId::as_str);
    clean(frame.sender_name.as_deref().or(id).unwrap_or("somebody"))
}

fn user(frame: &Frame) -> String {
    let id = frame.user_id.as_ref().map(UserId::as_str);
    clean(frame.name.as_deref().or(id).unwrap_or("somebody"))
}

/// Formats an entry of the log; `None` if this kind of entry is not shown.
pub(super) fn entry(frame: &Frame) -> Option<String> {
    let content = || match (clean(frame.content.as_deref().unwrap_or_default()), frame.data) {
        (content, Some(_)) if content.is_empty() => "(data)".to_owned(),
        (content, _) => content,
    };
    Some(match frame.kind {
        Kind::Message if frame.deleted => format!("{}: (deleted)", sender(frame)),
        Kind::Message if frame.edited_at.is_some() => format!("{}: {} (edited)", sender(frame), content()),
        Kind::Message => format!("{}: {}", sender(frame), content()),
        Kind::MessageEdited => format!("* {} changed a message to: {}", sender(frame), content()),
        Kind::MessageDeleted => format!("* {} deleted a message", sender(frame)),
        Kind::Reaction if frame.active == Some(true) => {
            format!("* {} reacted with {}", sender(frame), clean(frame.emoji.as_deref().unwrap_or_default()))
        }
        // Joining an open conversation adds the user too, but `user_joined` is shown for that.
        Kind::MemberAdded if frame.sender_id != frame.user_id => {
            format!("* {} added {}", sender(frame), user(frame))
        }
        Kind::MemberRemoved if frame.sender_id != frame.user_id => {
            format!("* {} removed {}", sender(frame), user(frame))
        }
        Kind::MemberRemoved => format!("* {} is no longer a member", user(frame)),
        _ => return None,
    })
}

/// Formats a `user_joined` or `user_left`.
pub(super) fn presence(frame: &Frame) -> Option<String> {
    match frame.kind {
        Kind::UserJoined => Some(format!("* {} joined", user(frame))),
        Kind::UserLeft => Some(format!("* {} left", user(frame))),
        _ => None,
    }
}

/// Formats a message of a history, with its time.
pub(super) fn dated_entry(frame: &Frame, zone: &TimeZone) -> Option<String> {
    let line = entry(frame)?;
    Some(match frame.created_at.and_then(|at| local(at, zone)) {
        Some(at) => format!("  {at}  {line}"),
        None => format!("  {line}"),
    })
}

fn local(at: Timestamp, zone: &TimeZone) -> Option<String> {
    let at = jiff::Timestamp::from_microsecond(at.micros()).ok()?.to_zoned(zone.clone());
    Some(at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// Formats the presence of these members.
pub(super) fn who(members: &[Member], users: &[UserPresence], me: Option<&UserId>) -> String {
    let shown = |user: &UserPresence| {
        let name =
            members.iter().find(|member| member.user_id == user.user_id).and_then(|member| member.name.as_deref());
        let mut shown = clean(name.unwrap_or(user.user_id.as_str()));
        if Some(&user.user_id) == me {
            shown.push_str(" (you)");
        }
        match user.status {
            Status::Away => shown.push_str(" (away)"),
            Status::Dnd => shown.push_str(" (do not disturb)"),
            Status::Online | Status::Invisible => {}
        }
        shown
    };
    let list = |online| users.iter().filter(|user| user.online == online).map(shown).collect::<Vec<_>>().join(", ");
    let (here, away) = (list(true), list(false));
    let nobody = |list: String| if list.is_empty() { "nobody".to_owned() } else { list };
    if away.is_empty() {
        format!("* online: {}", nobody(here))
    } else {
        format!("* online: {}\n* offline: {away}", nobody(here))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(json: &str) -> Frame {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn typed_lines_are_parsed() {
        assert_eq!(Typed::parse("hello there \n"), Typed::Message("hello there".into()));
        assert_eq!(Typed::parse("//quit"), Typed::Message("/quit".into()));
        assert_eq!(Typed::parse("  "), Typed::Nothing);
        assert_eq!(Typed::parse("/history"), Typed::History(20));
        assert_eq!(Typed::parse("/history 100"), Typed::History(100));
        for bad in ["/history no", "/history 0", "/history 101", "/history 1 2", "/dance", "/"] {
            assert!(matches!(Typed::parse(bad), Typed::Invalid(_)), "{bad}");
        }
        assert!(matches!(Typed::parse(&"ä".repeat(5_001)), Typed::Invalid(_)));
        assert!(matches!(Typed::parse(&"ä".repeat(5_000)), Typed::Message(_)));
    }

    #[test]
    fn a_command_in_another_form_is_refused_with_the_right_one() {
        for (line, right) in [("/who me", "/who"), ("/ who", "/who"), ("/help who", "/help"), ("/quit now", "/quit")] {
            let parsed = Typed::parse(line);
            assert!(
                matches!(&parsed, Typed::Invalid(why) if why.contains(&format!("write {right}"))),
                "{line}: {parsed:?}"
            );
        }
        assert_eq!((Typed::parse("/who "), Typed::parse("/quit")), (Typed::Who, Typed::Quit));
    }

    #[test]
    fn control_characters_of_a_typed_line_are_refused_by_name() {
        for (line, name) in [
            ("hel\u{c}lo", "a Ctrl-L;"),
            ("\u{1b}[A", "an Escape, as arrow keys type it;"),
            ("a\0b", "a Ctrl-@;"),
            ("//a\u{7f}", "a Delete;"),
            ("a\u{85}b", "the control character U+0085;"),
        ] {
            let parsed = Typed::parse(line);
            assert!(matches!(&parsed, Typed::Invalid(why) if why.contains(name)), "{line:?}: {parsed:?}");
        }
        assert_eq!(Typed::parse("a\tb"), Typed::Message("a\tb".into()));
        assert_eq!(Typed::parse("\u{c}"), Typed::Nothing, "Ctrl-L alone is blank");
    }

    #[test]
    fn control_characters_of_others_are_removed() {
        let line = entry(&frame(
            r#"{"type":"message","sender_name":"B\u001b]0;x\u0007ob","content":"a\u001b[2J\nmallory: b\u202e"}"#,
        ));
        assert_eq!(line.unwrap(), "B\u{FFFD}]0;x\u{FFFD}ob: a\u{FFFD}[2J\n    mallory: b\u{FFFD}");
    }

    #[test]
    fn entries_are_formatted_for_people() {
        for (json, shown) in [
            (r#"{"type":"message","sender_id":"bob","content":"hi"}"#, Some("bob: hi")),
            (r#"{"type":"message","sender_name":"Bob","content":"","deleted":true}"#, Some("Bob: (deleted)")),
            (r#"{"type":"message","sender_id":"bob","content":"","data":{"a":[1]}}"#, Some("bob: (data)")),
            (r#"{"type":"reaction","sender_id":"bob","emoji":"👍","active":true}"#, Some("* bob reacted with 👍")),
            (r#"{"type":"reaction","sender_id":"bob","emoji":"👍","active":false}"#, None),
            (r#"{"type":"member_added","sender_id":"bob","user_id":"bob"}"#, None),
            (r#"{"type":"member_added","sender_id":"bob","user_id":"carol"}"#, Some("* bob added carol")),
            (r#"{"type":"something_new","seq":4}"#, None),
        ] {
            assert_eq!(entry(&frame(json)).as_deref(), shown, "{json}");
        }
        let left = presence(&frame(r#"{"type":"user_left","user_id":"bob","name":"Bob"}"#));
        assert_eq!(left.as_deref(), Some("* Bob left"));
    }

    #[test]
    fn history_lines_have_times() {
        let message = frame(r#"{"sender_id":"bob","content":"hi","created_at":"2026-11-21T09:31:07.120000Z"}"#);
        assert_eq!(dated_entry(&message, &TimeZone::UTC).unwrap(), "  2026-11-21 09:31  bob: hi");
    }
}

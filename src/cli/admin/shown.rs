//! Answers of the console as text for people. What clients chose reaches a terminal without control characters.

use serde_json::Value;

/// A text without what a terminal would act on.
pub(super) fn clean(text: &str) -> String {
    let is_bidi = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || is_bidi(c) { '\u{fffd}' } else { c }).collect()
}

/// A value as a cell of a table.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text),
        other => clean(&other.to_string()),
    }
}

/// Rows of a list as a table, with these fields under these headings.
fn table(list: &Value, columns: &[(&str, &str)]) -> String {
    let heading = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let row = |item: &Value| {
        columns.iter().map(|(_, field)| cell(field.split('.').fold(item, |item, part| &item[part]))).collect()
    };
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(items(list).map(row)).collect();
    let width = |column: usize| rows.iter().map(|row: &Vec<String>| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The lines that tell what an answer could not say.
fn unknown(value: &Value) -> String {
    items(&value["unknown"]).map(|one| format!("unknown: {}: {}\n", cell(&one["what"]), cell(&one["why"]))).collect()
}

/// The flags that get the next page, if there is one.
fn more(next: &Value, flag: &str) -> String {
    if next.is_null() { String::new() } else { format!("… more: {flag} {}\n", cell(next)) }
}

fn percentiles(value: &Value) -> String {
    match value["p50"].is_null() {
        true => "none in the last minute".to_owned(),
        false => format!("p50 {} ms, p99 {} ms", value["p50"], value["p99"]),
    }
}

pub(super) fn overview(value: &Value) -> String {
    let mut text = format!(
        "{} is {} ({}, up {} s)\nsockets here {}, of all nodes {}; users online {}\n",
        cell(&value["node"]),
        cell(&value["status"]),
        cell(&value["version"]),
        value["uptime_seconds"],
        value["connections"],
        cell(&value["connections_total"]),
        cell(&value["users_online"]),
    );
    let (rates, latency) = (&value["per_second"], &value["latency"]);
    text += &format!("here: {} deliveries/s, {} messages/s\n", rates["deliveries"], rates["messages"]);
    text += &format!("send to ack: {}\n", percentiles(&latency["send_ack_ms"]));
    text += &format!("commit to socket: {}\n\n", percentiles(&latency["delivery_ms"]));
    text += &table(
        &value["nodes"],
        &[("NODE", "node"), ("ALIVE", "alive"), ("SOCKETS", "connections"), ("USERS", "users")],
    );
    for one in items(&value["degraded"]) {
        let detail = one["detail"].as_str().map_or_else(String::new, |detail| format!(": {}", clean(detail)));
        let section = one["section"].as_str().map_or_else(String::new, |section| format!(" ({section})"));
        text += &format!("DEGRADED {} since {}{detail}{section}\n", cell(&one["name"]), cell(&one["since"]));
    }
    for task in items(&value["failing_tasks"]) {
        text += &format!("FAILING TASK {}\n", cell(task));
    }
    text + &unknown(value)
}

pub(super) fn users(value: &Value) -> String {
    let list: String = items(&value["users"]).map(|user| cell(user) + "\n").collect();
    format!("{list}{} online\n", value["count"]) + &unknown(value)
}

pub(super) fn connections(value: &Value) -> String {
    let columns = [
        ("CONNECTION", "connection_id"),
        ("NODE", "node"),
        ("DIALECT", "dialect"),
        ("OPENED", "connected_at"),
        ("AGE S", "age_seconds"),
    ];
    table(&value["connections"], &columns) + &unknown(value)
}

pub(super) fn user(value: &Value) -> String {
    let presence = &value["presence"];
    let online = match presence["online"].as_bool() {
        Some(true) => "online",
        Some(false) => "offline",
        None => "presence unknown",
    };
    let blocked = match value["blocked"].as_bool() {
        Some(true) => format!("BLOCKED at {} by {}", cell(&value["block"]["at"]), cell(&value["block"]["by"])),
        Some(false) => "not blocked".to_owned(),
        None => "block unknown".to_owned(),
    };
    format!(
        "{}: {online}, status {}, last seen {}; {blocked}\n{}",
        cell(&value["user_id"]),
        cell(&presence["status"]),
        cell(&presence["last_seen"]),
        connections(value)
    )
}

pub(super) fn conversations(value: &Value) -> String {
    let columns = [
        ("CONVERSATION", "conversation_id"),
        ("NAME", "name"),
        ("SEQ", "seq"),
        ("READ", "read_seq"),
        ("DELIVERED", "delivered_seq"),
        ("UNREAD", "unread_count"),
    ];
    table(&value["conversations"], &columns) + &more(&value["next_offset"], "--offset")
}

/// One entry as a line.
fn entry(entry: &Value) -> String {
    let what = match entry["kind"].as_str().unwrap_or_default() {
        "message" if entry["is_deleted"] == true => "(deleted)".to_owned(),
        "message" => cell(&entry["content"]),
        "edited" => format!("edited {}: {}", entry["target_seq"], cell(&entry["content"])),
        "deleted" => format!("deleted {}", entry["target_seq"]),
        "reacted" => format!("reacted to {}: {} {}", entry["target_seq"], cell(&entry["emoji"]), entry["active"]),
        kind => format!("{} {}", clean(kind), cell(&entry["user_id"])),
    };
    format!("{:>8}  {}  {}: {what}\n", entry["seq"], cell(&entry["created_at"]), cell(&entry["sender_id"]))
}

pub(super) fn conversation(value: &Value) -> String {
    let (about, page) = (&value["conversation"], &value["entries"]);
    let kind = if about["is_group"] == true { "group" } else { "direct" };
    let mut text = format!(
        "{} ({kind}{}), name {}, by {}, newest seq {}\n\n",
        cell(&about["id"]),
        if about["open"] == true { ", open" } else { "" },
        cell(&about["name"]),
        cell(&about["created_by"]),
        page["head_seq"],
    );
    let columns = [("MEMBER", "user_id"), ("NAME", "username"), ("READ", "read_seq"), ("DELIVERED", "delivered_seq")];
    text += &table(&value["members"]["members"], &columns);
    if !value["members"]["next_offset"].is_null() {
        text += &format!("… of {} members\n", value["members"]["listed"]);
    }
    text.push('\n');
    text.extend(items(&page["entries"]).map(entry));
    text + &more(&page["next_before_seq"], "--before") + &more(&page["next_after_seq"], "--after")
}

pub(super) fn found(value: &Value) -> String {
    let line = |one: &Value| {
        format!(
            "{:>8}  {}  {}: {}\n",
            one["seq"],
            cell(&one["created_at"]),
            cell(&one["sender_id"]),
            cell(&one["content"])
        )
    };
    items(&value["messages"]).map(line).collect()
}

/// One connect, refusal or close as a line.
pub(super) fn event(one: &Value) -> String {
    let word = |name: &str, value: &Value| match value.is_null() {
        true => String::new(),
        false => format!(" {name}={}", cell(value)),
    };
    let words = ["dialect", "address", "origin", "agent", "detail"].map(|name| word(name, &one[name])).concat();
    let user = word("user", &one["user_id"]);
    format!("{} {:<7} {}{user}{words}\n", cell(&one["at"]), cell(&one["kind"]), cell(&one["reason"]))
}

pub(super) fn tail(value: &Value) -> String {
    let events: String = items(&value["events"]).map(event).collect();
    let columns = [("COUNT", "count"), ("KIND", "kind"), ("REASON", "reason"), ("ORIGIN", "origin"), ("LAST", "last")];
    format!("{events}\n{}", table(&value["groups"], &columns))
}

pub(super) fn token(value: &Value) -> String {
    let mut text = String::new();
    for (place, list) in [("header", &value["header"]), ("claim", &value["claims"])] {
        for one in items(list) {
            text += &format!("{place:<6} {:<9} {}\n", cell(&one["name"]), cell(&one["value"]));
        }
    }
    let detail = value["signature_detail"].as_str().map_or_else(String::new, |why| format!(" ({})", clean(why)));
    text += &format!("signature: {}{detail}\n\n", cell(&value["signature"]));
    for flaw in items(&value["flaws"]) {
        text += &format!("FAIL  {}: {}. {}\n", cell(&flaw["place"]), cell(&flaw["flaw"]), cell(&flaw["remedy"]));
    }
    match value["kept_out"].as_str() {
        Some("blocked") => text += "FAIL  an admin blocked the user: switchboard admin unblock USER\n",
        Some(_) => text += "FAIL  an admin revoked the token: the user needs a new one\n",
        None if value["accepted"] == true => text += "ok    this node accepts the token\n",
        None => {}
    }
    text
}

pub(super) fn deliveries(value: &Value) -> String {
    let columns = [
        ("NUMBER", "delivery"),
        ("AT", "at"),
        ("HOOK", "hook"),
        ("RESULT", "result"),
        ("TRIES", "tries"),
        ("MS", "took_ms"),
        ("BYTES", "bytes"),
        ("REPEATS", "repeats"),
        ("ERROR", "error"),
    ];
    table(&value["deliveries"], &columns)
}

pub(super) fn replayed(value: &Value) -> String {
    let error = value["error"].as_str().map_or_else(String::new, |error| format!(": {}", clean(error)));
    format!("request {} was repeated as {}: {}{error}\n", value["repeats"], value["delivery"], cell(&value["result"]))
}

pub(super) fn retention(value: &Value) -> String {
    let kept = |days: &Value| match days.as_u64() {
        Some(0) => "for ever".to_owned(),
        Some(1) => "for 1 day".to_owned(),
        Some(days) => format!("for {days} days"),
        None => "as RETENTION_DAYS says".to_owned(),
    };
    let (own, default) = (kept(&value["days"]), kept(&value["default_days"]));
    let default = if value["days"].is_null() { format!(" ({default})") } else { String::new() };
    let (id, first) = (cell(&value["conversation_id"]), &value["first_seq"]);
    format!("{id}: entries are kept {own}{default}; the first one is {first}\n")
}

pub(super) fn erasure(value: &Value) -> String {
    let (user, at, by) = (cell(&value["user_id"]), cell(&value["requested_at"]), cell(&value["by"]));
    let state = match value["done_at"].as_str() {
        Some(done) => format!("done at {}", clean(done)),
        None => "under way".to_owned(),
    };
    format!("{user}: the erasure that {by} requested at {at} is {state}\n")
}

pub(super) fn settings(value: &Value) -> String {
    let shown = |one: &Value| match one["secret"] == true && one["source"] != "unset" {
        true => "(secret)".to_owned(),
        false => cell(&one["value"]),
    };
    let line = |one: &Value| {
        let variable = one["variable"].as_str().map_or_else(String::new, |name| format!(" as {}", clean(name)));
        format!("{}={}  [{}{variable}]\n", cell(&one["name"]), shown(one), cell(&one["source"]))
    };
    let notes = items(&value["notes"]).map(|note| format!("note: {}\n", cell(note)));
    items(&value["settings"]).map(line).chain(notes).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_clients_chose_does_not_reach_the_terminal_as_a_command() {
        let event_of =
            event(&json!({"kind": "refusal", "reason": "origin", "at": "t", "origin": "https://a\u{1b}[31m\u{202e}"}));
        assert!(!event_of.contains('\u{1b}') && !event_of.contains('\u{202e}'), "{event_of:?}");
        let text = entry(
            &json!({"kind": "message", "content": "a\r\nb\u{1b}]0;x\u{7}", "seq": 1, "sender_id": "x", "created_at": "t"}),
        );
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
    }

    #[test]
    fn tables_have_aligned_columns() {
        let list = json!([{"a": "one", "b": 1}, {"a": "éé", "b": null}]);
        assert_eq!(table(&list, &[("NAME", "a"), ("B", "b")]), "NAME  B\none   1\néé    -\n");
    }
}

//! Patterns of a transcript: expected values, and names for values to remember.
//!
//! A string that begins with `$` is a placeholder; `README.md` lists all of them.

use std::collections::HashMap;

use serde_json::Value;

/// Remembered values, by name.
pub(crate) type Known = HashMap<String, Value>;

/// Checks a value and remembers the named parts. Fields that the pattern lacks may be present or not.
pub(crate) fn check(pattern: &Value, value: &Value, known: &mut Known) -> Result<(), String> {
    let mut learnt = known.clone();
    matches(pattern, value, &mut learnt, "")?;
    *known = learnt;
    Ok(())
}

fn matches(pattern: &Value, value: &Value, known: &mut Known, at: &str) -> Result<(), String> {
    match (pattern, value) {
        (Value::String(text), _) if text.starts_with('$') => {
            placeholder(text, value, known).map_err(|why| wrong(at, &why, value))
        }
        (Value::Object(wanted), _) if wanted.contains_key("$set") => set(&wanted["$set"], value, known, at, true),
        (Value::Object(wanted), _) if wanted.contains_key("$has") => set(&wanted["$has"], value, known, at, false),
        (Value::Object(wanted), Value::Object(given)) => {
            for (key, wanted) in wanted {
                let at = format!("{at}.{key}");
                match given.get(key) {
                    Some(_) if wanted == "$absent" => return Err(format!("{at} is there")),
                    Some(value) => matches(wanted, value, known, &at)?,
                    None if wanted == "$absent" => {}
                    None => return Err(format!("{at} is missing")),
                }
            }
            Ok(())
        }
        (Value::Array(wanted), Value::Array(given)) if wanted.len() == given.len() => {
            let mut each = wanted.iter().zip(given).enumerate();
            each.try_for_each(|(index, (wanted, value))| matches(wanted, value, known, &format!("{at}[{index}]")))
        }
        _ if pattern == value => Ok(()),
        _ => Err(wrong(at, &pattern.to_string(), value)),
    }
}

fn wrong(at: &str, wanted: &str, value: &Value) -> String {
    format!("{}: wanted {wanted}, got {value}", if at.is_empty() { "the whole value" } else { at })
}

/// Checks for these elements in any order; with `all`, the value must have no others.
fn set(wanted: &Value, value: &Value, known: &mut Known, at: &str, all: bool) -> Result<(), String> {
    let (Value::Array(wanted), Value::Array(given)) = (wanted, value) else {
        return Err(wrong(at, "an array", value));
    };
    let mut left: Vec<&Value> = given.iter().collect();
    for one in wanted {
        let found = left.iter().position(|value| check(one, value, known).is_ok());
        left.remove(found.ok_or_else(|| wrong(at, &format!("{one} among them"), value))?);
    }
    if left.is_empty() || !all { Ok(()) } else { Err(wrong(at, "nothing else", value)) }
}

fn placeholder(text: &str, value: &Value, known: &mut Known) -> Result<(), String> {
    let says = |holds: bool| if holds { Ok(()) } else { Err(text.to_owned()) };
    if let Some(kind) = kind_of(text) {
        return says(kind(value));
    }
    if let Some((least, most)) = text[1..].split_once("..") {
        let bounds = least.parse().ok().zip(most.parse().ok());
        let (least, most): (i64, i64) = bounds.ok_or_else(|| format!("{text}, which is no range"))?;
        return says(value.as_i64().is_some_and(|number| (least..=most).contains(&number)));
    }
    if let Some(wanted) = fill_text(text, known) {
        return if wanted == *value { Ok(()) } else { Err(format!("{text}, which is {wanted}")) };
    }
    let (name, kind) = text.split_once(':').unwrap_or((text, "$any"));
    if let Some(wanted) = known.get(&name[1..]) {
        return says(wanted == value);
    }
    let kind = kind_of(&format!("${}", kind.trim_start_matches('$')));
    says(kind.is_some_and(|kind| kind(value)))?;
    known.insert(name[1..].to_owned(), value.clone());
    Ok(())
}

fn kind_of(text: &str) -> Option<fn(&Value) -> bool> {
    Some(match text {
        "$any" => |_| true,
        "$int" => Value::is_i64,
        "$text" => |value| value.as_str().is_some_and(|text| !text.is_empty()),
        "$time" => |value| value.as_str().is_some_and(is_time),
        "$id" => |value| value.as_str().is_some_and(|text| uuid::Uuid::parse_str(text).is_ok()),
        _ => return None,
    })
}

/// True for an RFC 3339 time in UTC with a `Z`.
fn is_time(text: &str) -> bool {
    text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
}

/// Fills a value to be sent: remembered values replace their names.
pub(crate) fn fill(value: &Value, known: &Known) -> Value {
    match value {
        Value::String(text) if text.starts_with('$') => {
            fill_text(text, known).unwrap_or_else(|| panic!("{text} is not known yet"))
        }
        Value::Array(all) => all.iter().map(|value| fill(value, known)).collect(),
        Value::Object(all) => all.iter().map(|(key, value)| (fill_path(key, known), fill(value, known))).collect(),
        other => other.clone(),
    }
}

/// Value of a placeholder, if it is known: `$name`, `$name+1`, `$chars(5000)`, `$chars(5000,é)`.
fn fill_text(text: &str, known: &Known) -> Option<Value> {
    if let Some(inner) = text.strip_prefix("$chars(").and_then(|rest| rest.strip_suffix(')')) {
        let (count, letter) = inner.split_once(',').unwrap_or((inner, "x"));
        return Some(letter.repeat(count.parse().ok()?).into());
    }
    match text.split_once('+') {
        Some((name, plus)) => Some((known.get(&name[1..])?.as_i64()? + plus.parse::<i64>().ok()?).into()),
        None => known.get(&text[1..]).cloned(),
    }
}

/// Fills a path, a key or a word: remembered values replace their names.
pub(crate) fn fill_path(path: &str, known: &Known) -> String {
    let mut names: Vec<&String> = known.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let filled = names.into_iter().fold(path.to_owned(), |path, name| {
        let text = known[name].as_str().map_or_else(|| known[name].to_string(), ToOwned::to_owned);
        path.replace(&format!("${name}"), &text)
    });
    assert!(!filled.contains('$'), "something in {path} is not known yet");
    filled
}

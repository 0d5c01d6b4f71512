//! Parsers of values: durations, sizes, lists, addresses. Error messages never repeat the value, as it may be a secret.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use tracing_subscriber::filter::Targets;

/// The unit of minutes in a duration.
pub(super) const MINUTES: &str = "m";

/// The name of a variable's flag.
pub fn flag_of(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Parses a duration: `500ms`, `10s`, `30m`, `1h`, `7d`, or plain seconds.
///
/// # Errors
/// The text is not a duration; the message shows the valid forms.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text).ok_or("must be a duration: 500ms, 10s, 30m, 1h, 7d, or plain seconds")?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        MINUTES => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("must be a duration with one of the units ms, s, m, h, d".into()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "is too long".into())
}

/// Formats milliseconds in the largest unit that needs no fraction.
pub(super) fn duration_text(millis: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit, _)| millis.is_multiple_of(*unit)).filter(|_| millis > 0);
    let (unit, name) = unit.unwrap_or(if millis == 0 { (1, "s") } else { (1, "ms") });
    format!("{}{name}", millis / unit)
}

/// Parses a size: `64KiB`, `1MiB`, `1GiB`, or plain bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text).ok_or("must be a size: 64KiB, 1MiB, or plain bytes")?;
    let bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("must be a size with one of the units B, KiB, MiB, GiB".into()),
    };
    number.checked_mul(bytes).ok_or_else(|| "is too large".into())
}

/// Formats bytes in the largest unit that needs no fraction.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit)).filter(|_| bytes > 0);
    let (unit, name) = unit.unwrap_or((1, ""));
    format!("{}{name}", bytes / unit)
}

/// Splits a number from the text that follows it.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

/// Parses a whole number.
pub(super) fn count(text: &str) -> Result<u64, String> {
    // `parse` alone would accept "+5".
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| "must be a whole number".into())
}

/// Parses `true` or `false`, and their usual synonyms.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false".into()),
    }
}

/// The items of a list separated by commas, trimmed; empty items are skipped.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Parses an address: `1.2.3.4:8000`, `[::1]:8000` or `localhost:8000`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    local
        .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
        .or_else(|| text.parse().ok())
        .ok_or_else(|| "must be an IP address and a port: 0.0.0.0:8000".into())
}

/// Parses a list of at least one address.
pub(super) fn addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
    let list = items(text).map(address).collect::<Result<Vec<_>, _>>()?;
    if list.is_empty() { Err("must name at least one address".into()) } else { Ok(list) }
}

/// Parses a list of networks; a single address is a network of one.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let network = |item: &str| item.parse::<IpNet>().ok().or_else(|| item.parse::<IpAddr>().ok().map(IpNet::from));
    items(text)
        .map(|item| network(item).ok_or_else(|| "must list networks in CIDR form: 10.0.0.0/8".to_owned()))
        .collect()
}

/// Parses a list of host names without ports, in lower case.
pub(super) fn hosts(text: &str) -> Result<Vec<String>, String> {
    let is_name = |item: &str| item.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let host = |item: &str| is_name(item).then(|| item.to_ascii_lowercase());
    items(text)
        .map(|item| host(item).ok_or_else(|| "must list host names without ports: console.example.com".to_owned()))
        .collect()
}

/// Parses limits by tier: `pro=60,bot=600`.
pub(super) fn tiers(text: &str) -> Result<Vec<(Arc<str>, u32)>, String> {
    let parse = |item: &str| {
        let (tier, limit) = item.split_once('=')?;
        let limit = count(limit.trim()).ok().and_then(|limit| u32::try_from(limit).ok())?;
        let tier = tier.trim();
        (!tier.is_empty()).then(|| (Arc::from(tier), limit))
    };
    items(text).map(|item| parse(item).ok_or_else(|| "must be like pro=60,bot=600".to_owned())).collect()
}

/// Parses a URL with one of these schemes and a host.
pub(super) fn url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let wanted = || {
        let schemes: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
        format!("must be a URL that begins with {}", schemes.join(" or "))
    };
    let url = reqwest::Url::parse(text).map_err(|_| wanted())?;
    if !schemes.contains(&url.scheme()) {
        return Err(wanted());
    }
    if url.host_str().is_none_or(str::is_empty) { Err("must be a URL with a host".into()) } else { Ok(text.to_owned()) }
}

/// Parses a log filter: a level, or levels by module.
pub(super) fn log_filter(text: &str) -> Result<Targets, String> {
    let wanted = || "must be a level (error, warn, info, debug, trace) or a list of module=level".to_owned();
    let items: Vec<&str> = items(text).collect();
    // Brackets would filter by field, which is neither documented nor tested.
    if items.is_empty() || text.contains('[') {
        return Err(wanted());
    }
    items.join(",").parse().map_err(|_| wanted())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("7", 7_000), ("30m", 1_800_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "1.5s", "-1s", "10 parsecs", "99999999999999999999s", "9999999999999999999h", "+3"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_formatted_in_the_largest_unit() {
        for text in ["0s", "1ms", "1500ms", "1s", "90s", "10m", "1h", "36h", "365d"] {
            let millis = duration(text).unwrap().as_millis().try_into().unwrap();
            assert_eq!(duration_text(millis), text);
        }
    }

    #[test]
    fn sizes_are_formatted_in_the_largest_unit() {
        for text in ["0", "1000", "1KiB", "1023KiB", "16MiB", "1024GiB"] {
            assert_eq!(size_text(size(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(size("17"), Ok(17));
        for bad in ["", "64KB", "one", "99999999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists() {
        assert_eq!(addresses("127.0.0.1:80, [::1]:81,localhost:82").unwrap().len(), 3);
        assert!(addresses(" , ").is_err());
        assert!(addresses("example.com:80").is_err());
        assert_eq!(networks("10.0.0.0/8, ::1, 1.2.3.4").unwrap().len(), 3);
        assert!(networks("10.0.0.0/33").is_err());
        assert_eq!(tiers("pro=60, bot = 600").unwrap(), vec![("pro".into(), 60), ("bot".into(), 600)]);
        assert!(tiers("pro").is_err() && tiers("=4").is_err() && tiers("pro=+4").is_err());
    }

    #[test]
    fn log_filters() {
        use tracing::Level;
        let filter = log_filter("warn, switchboard::http=debug").unwrap();
        assert!(filter.would_enable("switchboard::http::rest", &Level::DEBUG));
        assert!(!filter.would_enable("switchboard::http", &Level::TRACE));
        assert!(filter.would_enable("redis", &Level::WARN) && !filter.would_enable("redis", &Level::INFO));
        assert!(!log_filter("off").unwrap().would_enable("switchboard", &Level::ERROR));
        for bad in [" , ", "switchboard=loud", "a=b=info", "switchboard[{user}]=debug"] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls() {
        assert!(url("https://user:pw@host:6379/0", &["http", "https"]).is_ok());
        assert!(url("redis://host", &["http", "https"]).is_err());
        assert!(url("ftp://", &["ftp"]).is_err());
    }
}

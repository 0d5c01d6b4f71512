use super::*;

fn parse(text: &str) -> Result<RedisServers, String> {
    RedisServers::parse(text, &RedisPasswords::default())
}

fn at(host: &str, port: u16) -> HostPort {
    HostPort { host: host.into(), port }
}

fn login(user: Option<&str>, password: Option<&str>) -> RedisLogin {
    RedisLogin { user: user.map(Into::into), password: password.map(Secret::new) }
}

fn sentinels(text: &str) -> SentinelServers {
    match parse(text).unwrap().form {
        RedisForm::Sentinel(sentinels) => sentinels,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_server_is_read_as_redis_cli_reads_it() {
    let server = |form, tls, login, database| RedisServers { form: RedisForm::Server(form), tls, login, database };
    let nobody = || login(None, None);
    for (text, read) in [
        ("redis://h", server(at("h", 6_379), false, nobody(), 0)),
        ("redis://h:7/", server(at("h", 7), false, nobody(), 0)),
        ("rediss://bob:a%23b@h:6379/1", server(at("h", 6_379), true, login(Some("bob"), Some("a#b")), 1)),
        ("redis://:p@[::1]:7/0", server(at("::1", 7), false, login(None, Some("p")), 0)),
        ("redis://:a%2Fb%40c%3Fd%26e%25+:f@my_host/15", {
            server(at("my_host", 6_379), false, login(None, Some("a/b@c?d&e%+:f")), 15)
        }),
    ] {
        assert_eq!(parse(text), Ok(read), "{text}");
    }
    assert_eq!(at("::1", 7).to_string(), "[::1]:7");
}

#[test]
fn a_socket_is_read_with_its_parameters() {
    let read = RedisServers {
        form: RedisForm::Socket("/run/my redis.sock".into()),
        tls: false,
        login: login(Some("bob"), Some("a&b")),
        database: 2,
    };
    for scheme in ["unix", "redis+unix"] {
        assert_eq!(parse(&format!("{scheme}:///run/my%20redis.sock?db=2&user=bob&pass=a%26b")), Ok(read.clone()));
    }
}

#[test]
fn sentinels_are_read_with_the_logins_of_both_kinds() {
    let text = "rediss+sentinel://bob:server%26%3F@one:1/3?addr=two&addr=[::1]:3&sentinel_master_name=my-master\
                &sentinel_user=watcher&sentinel_password=sent%26%40%2B%25+&sentinel_tls=false";
    let read = parse(text).unwrap();
    assert_eq!((read.tls, read.database), (true, 3));
    assert_eq!(read.login, login(Some("bob"), Some("server&?")));
    let found = sentinels(text);
    assert_eq!(found.addresses, [at("one", 1), at("two", 26_379), at("::1", 3)]);
    assert_eq!((found.master.as_str(), found.tls), ("my-master", false));
    assert_eq!(found.login, login(Some("watcher"), Some("sent&@+%+")));
    let least = sentinels("rediss+sentinel://one?sentinel_master_name=m");
    assert_eq!((least.addresses, least.tls, least.login), (vec![at("one", 26_379)], true, login(None, None)));
    assert!(!sentinels("redis+sentinel://one?sentinel_master_name=m").tls);
}

#[test]
fn the_nodes_of_a_cluster_are_read() {
    let read = parse("rediss+cluster://:p@one:1?addr=two:2").unwrap();
    assert_eq!(read.form, RedisForm::Cluster(vec![at("one", 1), at("two", 2)]));
    assert!(read.tls && read.login == login(None, Some("p")));
}

#[test]
fn passwords_may_stand_outside_the_url() {
    let outside = RedisPasswords { server: Some(Secret::new("one@/")), sentinel: Some(Secret::new("two&")) };
    let text = "redis+sentinel://bob@h?sentinel_master_name=m&sentinel_user=watcher";
    let read = RedisServers::parse(text, &outside).unwrap();
    assert_eq!(read.login, login(Some("bob"), Some("one@/")));
    assert!(matches!(read.form, RedisForm::Sentinel(s) if s.login == login(Some("watcher"), Some("two&"))));
    for (text, says) in [
        ("redis+sentinel://bob:secret@h?sentinel_master_name=m", "REDIS_PASSWORD"),
        ("redis+sentinel://h?sentinel_master_name=m&sentinel_password=secret", "REDIS_SENTINEL_PASSWORD"),
        ("redis://h", "REDIS_SENTINEL_PASSWORD"),
        ("unix:///a", "REDIS_SENTINEL_PASSWORD"),
    ] {
        let why = RedisServers::parse(text, &outside).unwrap_err();
        assert!(why.contains(says) && !why.contains("secret"), "{text}: {why}");
    }
}

#[test]
fn what_is_wrong_is_said_without_the_password() {
    for (text, says) in [
        ("http://h", "redis://"),
        ("redis-sentinel://h", "redis+sentinel://"),
        ("redis://", "host"),
        ("redis://h?db=1", "the path"),
        ("redis://h/0?db=1", "the path"),
        ("redis://h?sentinel_master_name=m", "redis+sentinel://"),
        ("redis://h/chat", "number of a database"),
        ("redis://h/2147483648", "too large for the number of a database"),
        ("redis://h/99999999999999999999", "too large for the number of a database"),
        ("redis://:sec#ret@h", "%23"),
        ("redis://:secret/x@h", "%2F"),
        ("redis://:secret@x@h", "%40"),
        ("redis://:secret?x@h", "%3F"),
        ("redis://:secret%ff@h", "%25"),
        ("redis://one,two", "several hosts"),
        ("redis+cluster://one,two", "nodes of a cluster, follow as ?addr="),
        ("redis://secret@h", "redis://:password@host"),
        ("redis://user@h/1", "redis://user:password@host"),
        ("redis://user:@h/1", "redis://user:password@host"),
        ("redis://h:65536", "from 1 to 65535"),
        ("redis://h:0", "from 1 to 65535"),
        ("redis://h:secret", "from 1 to 65535"),
        ("redis://h:", "from 1 to 65535"),
        ("redis://::1:6379", "[::1]:6379"),
        ("redis://[::1", "]"),
        ("redis://[::1]6379", "[::1]:6379"),
        ("redis://[secret]:6379", "[::1]:6379"),
        ("redis://h!", "character"),
        ("redis://0.0.0.0", "0.0.0.0"),
        ("unix://run/redis.sock", "unix:///run"),
        ("unix:///run/redis.sock?db=x", "number of a database"),
        ("unix:///run/redis.sock?secret=x", "db, user and pass"),
        ("unix:///run/redis.sock?user=x", "without a password"),
        ("redis+sentinel://h", "lacks sentinel_master_name"),
        ("redis+sentinel://h?master_name=m", "unknown parameter master_name"),
        ("redis+sentinel://h?sentinel_password=a&secret=b&sentinel_master_name=m", "unknown parameter:"),
        ("redis+sentinel://h?sentinel_password=a&secret", "%26"),
        ("redis+sentinel://h?sentinel_password=a@secret", "%40"),
        ("redis+sentinel://h?sentinel_master_name=a&sentinel_master_name=b", "sentinel_master_name twice"),
        ("redis+sentinel://h?sentinel_password=secret&sentinel_password=secret", "sentinel_password twice"),
        ("redis+sentinel://h?sentinel_tls=true&sentinel_tls=true", "sentinel_tls twice"),
        ("redis+sentinel://h?sentinel_tls=on", "neither true nor false"),
        ("redis+sentinel://h?sentinel_master_name=", "empty value"),
        ("redis+sentinel://h?sentinel_master_name=a%20b", "blank"),
        ("redis+sentinel://h?sentinel_master_name=m&sentinel_user=u", "sentinel_user"),
        ("redis+sentinel://h?sentinel_master_name=m&addr=h:26379", "same address twice"),
        ("redis+sentinel://h?sentinel_master_name=m&addr=i:70000", "in an addr, has a port"),
        ("redis+sentinel://h?sentinel_master_name=m&addr=::1:26379", "in an addr, has an IPv6 address"),
        ("redis+sentinel://one,two?sentinel_master_name=m", "addr=host:port"),
        ("redis+cluster://h/1", "only database 0"),
        ("redis+cluster://h?sentinel_master_name=m", "it takes addr"),
    ] {
        let why = parse(text).unwrap_err();
        assert!(why.contains(says) && !why.contains("secret"), "{text}: {why}");
    }
    let many: String = (0..20).map(|port| format!("addr=h:{}&", port + 1)).collect();
    assert!(parse(&format!("redis+sentinel://h?{many}sentinel_master_name=m")).unwrap_err().contains("more than 16"));
}

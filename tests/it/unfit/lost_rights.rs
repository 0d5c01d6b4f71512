//! A node that runs loses a right or a part that only some of its calls need: health says what clients meet, and which
//! reason the server gives, until the same calls succeed again.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::*;
use crate::support::{Client, Postgres, RedisServer, eventually, token};

/// A request of a client.
type Request = (Method, &'static str, Option<Value>);

/// What is done to the database, the fault and the server's words, the reason in the health report, and the mode of a
/// feature there.
struct Loss {
    harm: &'static str,
    mend: &'static str,
    request: Request,
    named: (&'static str, &'static str),
    reason: &'static str,
    works: (&'static str, &'static str),
}

/// Gives the Redis user `limited` every right but those that `without` takes away.
async fn grant_all(redis: &RedisServer, without: &[&str]) {
    let words = ["ACL", "SETUSER", "limited", "reset", "on", ">word", "~*", "&*", "+@all"];
    let _: String = redis.command(&[&words[..], without].concat()).await;
}

fn losses() -> [Loss; 5] {
    let history = || (Method::GET, "/messages", None);
    let archive = || (Method::POST, "/archive", None);
    [
        Loss {
            harm: "REVOKE SELECT ON reactions FROM ROLE",
            mend: "GRANT SELECT ON reactions TO ROLE",
            request: history(),
            named: ("store-denies-access", "permission denied for table reactions"),
            reason: "reads_fail",
            works: ("history", "limited"),
        },
        Loss {
            harm: "ALTER TABLE reactions RENAME TO gone",
            mend: "ALTER TABLE gone RENAME TO reactions",
            request: history(),
            named: ("store-lacks-part", "reactions"),
            reason: "reads_fail",
            works: ("history", "limited"),
        },
        Loss {
            harm: "REVOKE SELECT ON log FROM ROLE",
            mend: "GRANT SELECT ON log TO ROLE",
            request: history(),
            named: ("store-denies-access", "permission denied for table log"),
            reason: "reads_fail",
            works: ("history", "limited"),
        },
        Loss {
            harm: "REVOKE UPDATE ON members FROM ROLE",
            mend: "GRANT UPDATE ON members TO ROLE",
            request: archive(),
            named: ("store-denies-access", "permission denied for table members"),
            reason: "writes_fail",
            works: ("append", "shared"),
        },
        Loss {
            harm: "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more changes'; END $$;
                   CREATE TRIGGER refuse BEFORE UPDATE ON members FOR EACH ROW EXECUTE FUNCTION refuse()",
            mend: "DROP TRIGGER refuse ON members; DROP FUNCTION refuse",
            request: archive(),
            named: ("store-calls-fail", "P0001: no more changes"),
            reason: "writes_fail",
            works: ("append", "shared"),
        },
    ]
}

#[tokio::test]
async fn calls_that_the_store_refuses_show_in_health_until_the_same_calls_succeed() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = databases::limited_role(&redis).await;
    let node = databases::limited_node(&redis, &limited).start().await;
    let alice = token("alice");
    let room = node.conversation(&alice, &["bob"]).await;
    let base = format!("/api/chat/conversations/{room}");
    let of_room = async |(method, path, body): &Request| {
        node.request(method.clone(), &format!("{base}{path}"), Some(&alice), body.as_ref()).await.status.as_u16()
    };
    for Loss { harm, mend, request, named: (fault, words), reason, works: (feature, mode) } in losses() {
        assert!(of_room(&request).await < 300, "{harm}");
        let before = warnings(&node, fault).len();
        admin.batch_execute(&harm.replace("ROLE", &name)).await.unwrap();
        for _ in 0..3 {
            assert_eq!(of_room(&request).await, 503, "{harm}");
            // Other calls of the same kind go on, and prove nothing.
            assert_eq!(node.request(Method::GET, "/api/blocks", Some(&alice), None).await.status, 200);
            let health = node.admin_get("/api/health").await.json;
            assert_eq!(health["status"], "degraded", "{harm}");
            assert!(health["reasons"].as_array().unwrap().contains(&json!(reason)), "{harm}: {health}");
            assert_eq!(health["works"][feature], mode, "{harm}: {health}");
            let found = faults(&node).await;
            assert!(found.iter().any(|(name, why)| name == fault && why.contains(words)), "{harm}: {found:?}");
        }
        told_once(&node, fault, before).await;
        node.metric(&format!(r#"switchboard_fault{{fault="{fault}"}}"#), |value| value == 1.0).await;
        admin.batch_execute(&mend.replace("ROLE", &name)).await.unwrap();
        let healthy = async || {
            assert!(of_room(&request).await < 300, "{mend}");
            (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(())
        };
        eventually("the health to recover", healthy).await;
        assert_eq!(faults(&node).await, [], "{harm}");
        node.metric(&format!(r#"switchboard_fault{{fault="{fault}"}}"#), |value| value == 0.0).await;
    }
}

#[tokio::test]
async fn a_fault_stands_while_the_call_is_refused_whatever_else_succeeds() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = databases::limited_role(&redis).await;
    let node = databases::limited_node(&redis, &limited).start().await;
    let alice = token("alice");
    let room = node.conversation(&alice, &[]).await;
    let messages = format!("/api/chat/conversations/{room}/messages");
    let sent = node.post(&messages, &alice, &json!({"content": "hello"})).await.json;
    let message = format!("{messages}/{}", sent["id"].as_str().unwrap());
    let react = async |emoji: &str| {
        let path = format!("{message}/reactions/{emoji}");
        node.request(Method::PUT, &path, Some(&alice), None).await.status.as_u16()
    };
    let edit = async |text: String| {
        let body = json!({"content": text});
        node.request(Method::PATCH, &message, Some(&alice), Some(&body)).await.status.as_u16()
    };
    let trigger =
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'none here'; END $$;
                   CREATE TRIGGER refuse BEFORE INSERT ON reactions FOR EACH ROW EXECUTE FUNCTION refuse()";
    for (case, (harm, fault)) in
        [("REVOKE INSERT ON reactions FROM ROLE", "store-denies-access"), (trigger, "store-appends-fail")]
            .into_iter()
            .enumerate()
    {
        admin.batch_execute(&harm.replace("ROLE", &name)).await.unwrap();
        for round in 0..5 {
            assert_eq!(react(["a", "b"][case]).await, 503, "{harm}");
            assert_eq!(edit(format!("{case} {round}")).await, 200, "{harm}");
            let health = node.admin_get("/api/health").await.json;
            assert_eq!((&health["reasons"], &health["works"]["append"]), (&json!(["appends_fail"]), &json!("limited")));
            assert_eq!(faults(&node).await[0].0, fault, "{harm}");
        }
        told_once(&node, fault, 0).await;
        admin.batch_execute(&format!("GRANT INSERT ON reactions TO {name}")).await.unwrap();
        admin.batch_execute("DROP TRIGGER IF EXISTS refuse ON reactions").await.unwrap();
        let healthy = async || {
            assert_eq!(react("z").await, 204);
            node.request(Method::DELETE, &format!("{message}/reactions/z"), Some(&alice), None).await;
            (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(())
        };
        eventually("the health to recover", healthy).await;
    }
}

#[tokio::test]
async fn reads_that_wait_for_a_lock_until_they_fail_show_in_health_while_it_is_held() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).start().await;
    let alice = token("alice");
    let messages = format!("/api/chat/conversations/{}/messages", node.conversation(&alice, &[]).await);
    let read = async || node.get(&messages, &alice).await.status.as_u16();
    let locker = Postgres::shared().await.connect(database.rsplit('/').next().unwrap()).await;
    locker.batch_execute("BEGIN; LOCK TABLE reactions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let named = async || {
        assert_eq!(read().await, 503);
        let health = node.admin_get("/api/health").await.json;
        (health["reasons"] == json!(["reads_fail"])).then_some(health)
    };
    let health = eventually("the fault", named).await;
    assert_eq!((&health["status"], &health["works"]["history"]), (&json!("degraded"), &json!("limited")));
    let (name, reason) = faults(&node).await.remove(0);
    assert!(name == "store-silent" && reason.contains("canceling statement"), "{name}: {reason}");
    locker.batch_execute("COMMIT").await.unwrap();
    let healthy = async || {
        assert_eq!(read().await, 200);
        (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(())
    };
    eventually("the health to recover", healthy).await;
}

#[tokio::test]
async fn commands_that_the_redis_user_loses_show_in_health_and_nobody_stays_missing() {
    let redis = RedisServer::start().await;
    let grant = async |without: &[&str]| grant_all(&redis, without).await;
    grant(&[]).await;
    let url = redis.url().replace("redis://", "redis://limited:word@");
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&url, &database).start().await;
    let _alice = Client::native(&node, "alice").await;
    // The second concerns scripts and the look for members who are away: either may meet it first.
    let cases: [(&[&str], &[&str]); 3] = [
        (&["-sadd"], &["sadd"]),
        (&["-hget", "-hset"], &["script can't run this command", "'hget'"]),
        (&["-evalsha"], &["evalsha"]),
    ];
    for (case, (without, words)) in cases.into_iter().enumerate() {
        let before = warnings(&node, "redis-denies-access").len();
        grant(without).await;
        let user = format!("bob-{case}");
        let _bob = Client::native(&node, &user).await;
        let named = async || faults(&node).await.into_iter().find(|(name, _)| name == "redis-denies-access");
        let (_, reason) = eventually("the fault", named).await;
        assert!(words.iter().any(|words| reason.contains(words)), "{without:?}: {reason}");
        let health = node.admin_get("/api/health").await.json;
        assert_eq!(health["status"], "degraded", "{without:?}");
        assert_eq!((&health["reasons"], &health["works"]["presence"]), (&json!(["redis_refuses"]), &json!("local")));
        told_once(&node, "redis-denies-access", before).await;
        grant(&[]).await;
        let online = async || {
            let both: Vec<bool> = redis.command(&["SMISMEMBER", "ws:online_users", "alice", &user]).await;
            let lines: i64 = redis.command(&["HLEN", &format!("ws:conns:{user}")]).await;
            (both == [true, true] && lines > 0).then_some(())
        };
        eventually("the user in the registry", online).await;
        let healthy = async || {
            let visitor = Client::native(&node, "visitor").await;
            visitor.close().await;
            (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(())
        };
        eventually("the health to recover", healthy).await;
        node.metric(r#"switchboard_fault{fault="redis-denies-access"}"#, |value| value == 0.0).await;
    }
}

#[tokio::test]
async fn nobody_stays_online_whose_departure_was_refused() {
    let redis = RedisServer::start().await;
    let grant = async |without: &[&str]| grant_all(&redis, without).await;
    grant(&[]).await;
    let url = redis.url().replace("redis://", "redis://limited:word@");
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&url, &database).set("PRESENCE_GRACE", "1s").start().await;
    for command in ["del", "hgetall", "hset", "hdel", "srem"] {
        let bob = Client::native(&node, &format!("bob-{command}")).await;
        grant(&[&format!("-{command}")]).await;
        bob.close().await;
        let named = async || faults(&node).await.into_iter().find(|(name, _)| name == "redis-denies-access");
        eventually("the fault", named).await;
        // The sweep has met the departure, too.
        tokio::time::sleep(Duration::from_secs(2)).await;
        grant(&[]).await;
        let gone = async || {
            let online: bool = redis.command(&["SISMEMBER", "ws:online_users", &format!("bob-{command}")]).await;
            let entry: bool = redis.command(&["EXISTS", &format!("ws:conns:bob-{command}")]).await;
            (!online && !entry).then_some(())
        };
        eventually(&format!("the departure without {command}"), gone).await;
        let healthy = async || {
            Client::native(&node, "visitor").await.close().await;
            (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(())
        };
        eventually("the health to recover", healthy).await;
    }
}

#[tokio::test]
async fn presence_that_is_that_of_one_node_alone_shows_in_health() {
    let redis = RedisServer::start().await;
    let grant = async |without: &[&str]| grant_all(&redis, without).await;
    grant(&[]).await;
    let url = redis.url().replace("redis://", "redis://limited:word@");
    let database = Postgres::shared().await.database().await;
    let (one, two) = (Node::serve(&url, &database).start().await, Node::serve(&url, &database).start().await);
    let _bob = Client::native(&two, "bob").await;
    let online = async || one.get("/api/websocket/users/bob/online", &token("bob")).await.json["online"] == json!(true);
    assert!(online().await);
    for command in ["-ping", "-exists"] {
        grant(&[command]).await;
        assert!(!online().await, "{command}");
        // It stands while the right is missing: connections that the node tries meanwhile prove nothing.
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let health = one.admin_get("/api/health").await.json;
            assert_eq!(
                (&health["reasons"], &health["works"]["presence"]),
                (&json!(["redis_refuses"]), &json!("local"))
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        grant(&[]).await;
        let healthy = async || {
            assert!(online().await);
            (one.admin_get("/api/health").await.json["status"] == "healthy").then_some(())
        };
        eventually("the health to recover", healthy).await;
    }
}

#[tokio::test]
async fn a_relay_that_postgresql_refuses_is_no_relay() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = databases::limited_role(&redis).await;
    let node = databases::limited_node(&redis, &limited).start().await;
    admin.batch_execute(&format!("REVOKE ALL ON notices FROM {name}")).await.unwrap();
    redis.pause();
    let shown = async |fanout: &'static str| {
        let health = async || node.admin_get("/api/health").await.json;
        eventually(fanout, async || Some(health().await).filter(|health| health["works"]["fanout"] == fanout)).await
    };
    let health = shown("local").await;
    assert!(health["reasons"].as_array().unwrap().contains(&json!("writes_fail")), "{health}");
    admin.batch_execute(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON notices TO {name}")).await.unwrap();
    shown("relayed").await;
    redis.resume();
}

#[tokio::test]
async fn a_redis_that_evicts_is_named_and_changes_nothing_else() {
    let redis = RedisServer::start().await;
    let set = async |name, value| {
        let _: String = redis.command(&["CONFIG", "SET", name, value]).await;
    };
    set("maxmemory", "100mb").await;
    set("maxmemory-policy", "allkeys-lru").await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).start().await;
    let named = async |stands: bool| {
        let found =
            async || (faults(&node).await.iter().any(|(name, _)| name == "redis-evicts") == stands).then_some(());
        eventually("the fault", found).await;
        let value = if stands { 1.0 } else { 0.0 };
        node.metric(r#"switchboard_fault{fault="redis-evicts"}"#, |shown| shown == value).await;
    };
    named(true).await;
    assert_eq!(node.admin_get("/api/health").await.json["status"], "healthy");
    told_once(&node, "redis-evicts", 0).await;
    set("maxmemory-policy", "noeviction").await;
    // A new connection, as any other look at the settings.
    let _: i64 = redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    named(false).await;
}

/// An operator's trigger may fail because of a text. PostgreSQL's words then have the text.
#[tokio::test]
async fn a_text_that_a_trigger_refuses_reaches_no_log_and_refusals_fill_none() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = databases::limited_role(&redis).await;
    let node = databases::limited_node(&redis, &limited).set("LOG", "trace").start().await;
    let alice = token("alice");
    let room = node.conversation(&alice, &[]).await;
    let messages = format!("/api/chat/conversations/{room}/messages");
    let casts = "CREATE FUNCTION casts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM NEW.content::int; RETURN NEW; END $$;
                 CREATE TRIGGER casts BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION casts()";
    admin.batch_execute(casts).await.unwrap();
    for _ in 0..3 {
        let text = json!({"content": "a-very-private-text"});
        assert_eq!(node.post(&messages, &alice, &text).await.status, 503);
    }
    let health = node.admin_get("/api/health").await;
    assert!(!health.text.contains("a-very-private-text"), "{}", health.text);
    node.assert_never_logged(&["a-very-private-text"]);
    admin.batch_execute("DROP TRIGGER casts ON log").await.unwrap();
    // Reads that wait for a connection in vain are refused without a fault of their own.
    admin.batch_execute(&format!("ALTER ROLE {name} CONNECTION LIMIT 0")).await.unwrap();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'");
    admin.batch_execute(&end).await.unwrap();
    let reads = futures_util::future::join_all((0..100).map(|_| node.get(&messages, &alice))).await;
    assert!(reads.iter().filter(|read| read.status == 503).count() > 1, "no others are refused at once");
    let lines = node.log();
    let told = lines.iter().filter(|line| line.contains("the store is unavailable") && line.contains(r#""WARN""#));
    assert_eq!(told.count(), 0, "what each of them met is no news");
}

#[tokio::test]
async fn the_check_names_a_key_that_the_redis_user_may_not_use() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    Node::serve(&redis.url(), &database).start().await.terminate().await;
    let url = redis.url().replace("redis://", "redis://few:word@");
    let families = [
        "ws:check:*",
        "ws:conns:*",
        "ws:leaving",
        "ws:online_users",
        "ws:node_users:*",
        "ws:nodes",
        "ws:node_connections",
        "ws:user:*",
        "ws:room_users:*",
        "room_messages:*",
        "rate_limit:*",
    ];
    for lacking in std::iter::once(None).chain(families.iter().skip(1).map(Some)) {
        let mut words = vec!["ACL".to_owned(), "SETUSER".to_owned(), "few".to_owned(), "reset".to_owned()];
        words.extend(["on", ">word", "&*", "+@all"].map(str::to_owned));
        words.extend(families.iter().filter(|family| Some(*family) != lacking).map(|family| format!("~{family}")));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let _: String = redis.command(&words).await;
        let printed = check(Some(&url), &database).await;
        assert_eq!(printed.contains("redis-denies-access"), lacking.is_some(), "{lacking:?}: {printed}");
    }
}

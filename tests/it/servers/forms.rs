//! Every form of an address, with a login whose password has the characters that mean something in a URL.

use super::*;

const PASSWORD: &str = "p@ss:w/rd? #1&%41 é'\"+~[]";

/// Checks that nodes can work with these servers.
async fn reaches(redis: &str, database: &str) {
    let (code, printed) = run("check", &[("REDIS_URL", redis), ("DATABASE_URL", database)]).await;
    let reached = printed.contains("ok    Redis") && printed.contains("ok    PostgreSQL");
    assert!(code == Some(0) && reached, "{redis} {database}: {printed}");
}

#[tokio::test]
async fn postgresql_is_reached_by_every_form_of_its_address() {
    let sockets = tempfile::tempdir().unwrap();
    std::fs::set_permissions(sockets.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let folder = sockets.path().display().to_string();
    let settings = [("listen_addresses", "127.0.0.1,::1"), ("unix_socket_directories", &*folder)];
    let settings = [&settings[..], &[("password_encryption", "scram-sha-256")]].concat();
    let rules = "host all all all scram-sha-256\nlocal all all scram-sha-256";
    let (postgres, _rules) = postgres_with(rules, &settings).await;
    let database = database_of_a_role(&postgres, PASSWORD).await;
    let redis = RedisServer::start().await;
    let (login, port) = (format!("node:{}", encoded(PASSWORD)), postgres.port());
    let direct = format!("postgres://{login}@127.0.0.1:{port}/{database}");
    let (code, printed) = run("migrate", &[("DATABASE_URL", &direct)]).await;
    assert_eq!(code, Some(0), "{printed}");
    for url in [
        direct,
        format!("postgresql://{login}@[::1]:{port}/{database}"),
        format!("postgres://{login}@[::1]:{port},127.0.0.1:{port}/{database}"),
        format!("postgres://{login}@localhost:{port}/{database}"),
        format!("postgresql:///{database}?host={folder}&port={port}&user=node&password={}", encoded(PASSWORD)),
        format!("postgres://{login}@{}:{port}/{database}", encoded(&folder)),
    ] {
        reaches(&redis.url(), &url).await;
    }
    let (_folder, file) = secret_file(PASSWORD);
    let url = format!("postgres://node@[::1]:{port}/{database}");
    let settings =
        [("REDIS_URL", redis.url()), ("DATABASE_URL", url), ("DATABASE_PASSWORD_FILE", file.display().to_string())];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (code, printed) = run("check", &settings).await;
    assert_eq!(code, Some(0), "{printed}");
}

#[tokio::test]
async fn redis_is_reached_by_every_form_of_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock").display().to_string();
    let redis = RedisServer::with(&["--bind", "127.0.0.1", "::1", "--unixsocket", &socket]).await;
    let password = format!(">{PASSWORD}");
    let user = ["ACL", "SETUSER", "node", "on", &password, "~*", "&*", "+@all"];
    let () = redis.command(&user).await;
    let database = Postgres::shared().await.database().await;
    let (code, printed) = run("migrate", &[("DATABASE_URL", &database)]).await;
    assert_eq!(code, Some(0), "{printed}");
    let (port, secret) = (redis.port(), encoded(PASSWORD));
    for url in [
        format!("redis://node:{secret}@127.0.0.1:{port}/1"),
        format!("redis://node:{secret}@[::1]:{port}/1"),
        format!("unix://{socket}?db=1&user=node&pass={secret}"),
        format!("redis+unix://{socket}?user=node&pass={secret}"),
    ] {
        reaches(&url, &database).await;
    }
    let sentinel = RedisServer::sentinel_with(&["bind 127.0.0.1 ::1"]).await;
    let () = sentinel.command(&user).await;
    let _: String = sentinel.command(&["SENTINEL", "MONITOR", "chat", "::1", &port.to_string(), "1"]).await;
    let sentinel_port = sentinel.port();
    let names = format!("sentinel_master_name=chat&sentinel_user=node&sentinel_password={secret}");
    reaches(&format!("redis+sentinel://node:{secret}@[::1]:{sentinel_port}/1?{names}"), &database).await;

    let cluster = RedisServer::cluster_node(&["--bind", "127.0.0.1", "::1", "--cluster-announce-ip", "::1"]).await;
    let () = cluster.command(&user).await;
    let () = cluster.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    is_whole(&cluster).await;
    reaches(&format!("redis+cluster://node:{secret}@[::1]:{}", cluster.port()), &database).await;
}

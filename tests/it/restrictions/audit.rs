//! The audit log.

use super::*;

fn audited(node: &Node) -> Vec<Value> {
    let lines = node.log().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    lines.filter(|line| line["target"] == "audit").collect()
}

#[tokio::test]
async fn every_admin_action_leaves_a_line_and_no_line_has_a_token() {
    let cluster = Cluster::new().await;
    let (admin, bob) = (admin(), issued(0));
    let conversation = cluster.one.conversation(&token("alice"), &[BOB, "carol"]).await;
    let members = format!("/api/chat/conversations/{conversation}/members");
    disconnect(&cluster.one).await;
    revoke(&cluster.one, json!({"jti": "t-1"})).await;
    block(&cluster.one).await;
    unblock(&cluster.one).await;
    cluster.one.get("/api/connections/stats", &admin).await;
    let refused = cluster.one.request(Method::PUT, "/api/admin/users/alice/block", Some(&bob), None).await;
    assert_eq!(refused.status, 403);
    let removed = cluster.one.request(Method::DELETE, &format!("{members}/carol"), Some(&admin), None).await;
    assert_eq!(removed.status, 204);
    // A command that everyone may use for their own conversations is no admin action.
    cluster.one.get(&members, &bob).await;
    cluster.one.get("/api/websocket/users/online", &admin).await;

    cluster.one.logged("\"RemoveMember\"").await;
    let lines = audited(&cluster.one);
    let actions: Vec<_> = lines.iter().filter(|line| line["message"] == "admin action").collect();
    let found: Vec<_> = actions.iter().map(|line| (line["action"].as_str().unwrap(), &line["status"])).collect();
    let expected = [
        ("Disconnect", 200),
        ("Revoke", 200),
        ("BlockAccess", 200),
        ("UnblockAccess", 204),
        ("Stats", 200),
        ("BlockAccess", 403),
        ("RemoveMember", 204),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (line, (action, status)) in actions.iter().zip(expected) {
        let by = if status == 403 { BOB } else { "root" };
        assert_eq!(
            (&line["action"], &line["status"], &line["by"]),
            (&json!(action), &json!(status), &json!(by)),
            "{line}"
        );
        assert_eq!((&line["address"], &line["admin"]), (&json!("127.0.0.1"), &json!(by == "root")));
        let outcome = if status == 403 { "forbidden" } else { "ok" };
        assert_eq!(line["outcome"], outcome);
    }
    assert_eq!((&actions[0]["user"], &actions[5]["user"]), (&json!(BOB), &json!("alice")));
    assert_eq!((&actions[6]["user"], &actions[6]["conversation"]), (&json!("carol"), &json!(conversation)));

    // The other node tells what it applied, and who made it.
    cluster.two.logged("\"unblock\"").await;
    let applied = audited(&cluster.two);
    let found: Vec<_> = applied.iter().map(|line| (line["action"].as_str().unwrap(), line["by"].as_str())).collect();
    assert_eq!(found, ["disconnect", "revoke_token", "block", "unblock"].map(|action| (action, Some("root"))));
    assert_eq!((&applied[1]["user"], &applied[1]["token"]), (&json!(BOB), &json!("t-1")));
    for node in cluster.nodes() {
        node.kill().await;
        node.assert_never_logged(&[&admin, &bob, admin.rsplit('.').next().unwrap(), bob.rsplit('.').next().unwrap()]);
    }
}

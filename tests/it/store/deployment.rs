//! The identity that a database gets with its migrations.

use super::*;
use crate::support::eventually;

pub(super) async fn the_deployment_keeps_its_id(store: Arc<dyn Store>) {
    let deployment = store.deployment().await.unwrap();
    assert_eq!(deployment.epoch, 1);
    assert_eq!(store.start(true).await.unwrap().deployment, deployment);
    assert_eq!(store.deployment().await.unwrap(), deployment);
}

#[tokio::test]
async fn databases_have_different_ids() {
    let mut ids = HashSet::new();
    for _ in 0..2 {
        let url = Server::shared().await.database().await;
        assert!(ids.insert(postgres(&url).await.deployment().await.unwrap().id));
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite(&folder.path().join("test.db"));
        store.migrate().await.unwrap();
        assert!(ids.insert(store.deployment().await.unwrap().id));
    }
}

#[tokio::test]
async fn a_database_whose_id_was_removed_does_not_start() {
    let url = Server::shared().await.database().await;
    let store = postgres(&url).await;
    let client = Server::shared().await.connect(url.rsplit('/').next().unwrap()).await;
    client.batch_execute("DELETE FROM deployment").await.unwrap();
    let error = store.start(true).await.unwrap_err().to_string();
    let (_, remedy) = error.split_once("make a new one: ").expect(&error);
    client.batch_execute(remedy).await.unwrap();
    assert!(store.start(true).await.is_ok());
}

#[tokio::test]
async fn a_copy_of_a_database_is_another_deployment() {
    let server = Server::shared().await;
    let url = server.database().await;
    let name = url.rsplit('/').next().unwrap();
    let (admin, original) = (server.connect("postgres").await, postgres(&url).await.deployment().await.unwrap());
    // The sessions of the store that was asked may take a moment to end.
    let alone =
        async |statement: String| eventually("no session", async || admin.batch_execute(&statement).await.ok()).await;
    alone(format!("CREATE DATABASE {name}_copy TEMPLATE {name}")).await;
    let copy = postgres(&server.url(&format!("{name}_copy"))).await.deployment().await.unwrap();
    assert_ne!(original.id, copy.id);
    // It is the same one under another name.
    alone(format!("ALTER DATABASE {name} RENAME TO {name}_moved")).await;
    let moved = server.url(&format!("{name}_moved"));
    assert_eq!(postgres(&moved).await.deployment().await.unwrap(), original);
    // A server that does not name its cluster.
    let deny = format!(
        "CREATE ROLE {name} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}; \
         REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"
    );
    server.connect(&format!("{name}_moved")).await.batch_execute(&deny).await.unwrap();
    let denied = unmigrated(&moved.replacen("postgres@", &format!("{name}@"), 1)).await;
    let id = denied.start(false).await.unwrap().deployment.id;
    assert_eq!(denied.deployment().await.unwrap().id, id);
    assert_ne!(id, original.id);
}

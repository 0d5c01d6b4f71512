//! Users with many conversations, who connect in each dialect.

use std::time::Duration;

use super::{
    curve::{Curve, Work},
    deployment::Deployment,
    requests::Each,
};
use crate::{BenchResult, args::Args, connects::Target};

/// Other members of a group.
const OTHERS: u64 = 9;
/// Users with whom the groups are shared; each direct conversation has another partner.
const PEERS: u64 = 10_000;

/// Measures users with these numbers of conversations, half of them direct.
pub async fn run(args: &Args, sizes: &[u64], window: Duration) -> BenchResult<Curve> {
    let mut curve = Curve::new("users", "conversations of a user who connects and closes, half direct");
    let settings = [("MAX_CONNECTIONS_PER_USER", "1000"), ("MAX_SOCKETS_PER_USER", "2000")];
    let deployment = Deployment::start(args, &settings.map(|(name, value)| (name, value.to_owned()))).await;
    deployment.add_users("peer-", PEERS, 0).await?;
    for &conversations in sizes {
        add_user(&deployment, conversations).await?;
    }
    // As a deployment that has run for some time.
    deployment.execute("ANALYZE").await?;
    let idle = deployment.idle(window).await;
    for &conversations in sizes {
        eprintln!("  measuring: {conversations} conversations");
        for target in Target::DIALECTS {
            let opening = target.opening(&format!("user-{conversations}"), &format!("group-{conversations}-0"));
            let address = deployment.addresses()[0];
            let connect = async || opening.open(address).await.map(drop).map_err(Into::into);
            let each = Each::measure(&deployment, idle, window, connect).await?;
            let what = target.label();
            curve.add(conversations, vec![each.all_parts(what, work(target))]);
            curve.add(conversations, each.details(what, work(target)));
        }
    }
    curve.notes.push("direct joins all direct conversations, at most MAX_CONVERSATIONS_PER_CONNECTION".into());
    curve.notes.push("personas looks up who of the acquaintances is online, of at most 5,000 of them".into());
    Ok(curve)
}

/// The direct dialect joins the direct conversations of the user, and personas asks for all who share one.
fn work(target: Target) -> Work {
    match target {
        Target::Direct | Target::Personas => Work::Linear,
        Target::Bare | Target::Native | Target::Rooms | Target::Conversation => Work::Constant,
    }
}

async fn add_user(deployment: &Deployment, conversations: u64) -> BenchResult<()> {
    let (user, groups) = (format!("user-{conversations}"), format!("group-{conversations}-"));
    let (group_count, direct_count) = (conversations - conversations / 2, conversations / 2);
    deployment.execute(&format!("INSERT INTO users (id, name) VALUES ('{user}', 'User')")).await?;
    deployment.add_groups(&groups, group_count).await?;
    let group = format!("'{groups}' || i");
    deployment.add_members(&group, &format!("'{user}'"), group_count).await?;
    let group = format!("'{groups}' || (i / {OTHERS})");
    deployment.add_members(&group, &format!("'peer-' || (i % {PEERS})"), group_count * OTHERS).await?;
    let direct = format!("'direct-{conversations}-' || i");
    deployment
        .execute(&format!(
            "INSERT INTO conversations (id, kind, open, direct_key, created_by, created_at) \
                 SELECT {direct}, 1, false, 'peer-' || i || ' {user}', '{user}', now() \
                 FROM generate_series(0, {direct_count} - 1) i; \
             INSERT INTO heads (log) SELECT {direct} FROM generate_series(0, {direct_count} - 1) i"
        ))
        .await?;
    deployment.add_members(&direct, &format!("'{user}'"), direct_count).await?;
    deployment.add_members(&direct, "'peer-' || i", direct_count).await
}

//! Injection of each fault, and its end.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    cluster::Cluster,
    history::{Recorder, What},
    nemesis::{Fault, Plan, Step, Target},
    orders::{Order, Orders},
    support::{Link, Proxy, Signal},
};

/// Injects all faults of a plan. Returns failures that the faults do not excuse.
pub async fn run_plan(plan: &Plan, cluster: &Cluster, orders: &Orders, recorder: &Recorder) -> Vec<String> {
    let begun = Instant::now();
    // Faults of one target run one after the other, even if one takes longer than planned.
    let mut turns = HashMap::<Target, Arc<Mutex<()>>>::new();
    let mut steps = Vec::new();
    for step in plan.0.iter().copied() {
        let own: Vec<_> =
            step.fault.targets().into_iter().map(|target| turns.entry(target).or_default().clone()).collect();
        steps.push(async move {
            sleep_until(begun + step.at).await;
            let mut turn = Vec::new();
            for own in own {
                turn.push(own.lock_owned().await);
            }
            let fault = format!("{:?}", step.fault);
            recorder.record(None, What::Fault { fault: fault.clone(), begins: true });
            let result = inject(step, cluster, orders).await;
            recorder.record(None, What::Fault { fault, begins: false });
            result.err()
        });
    }
    join_all(steps).await.into_iter().flatten().collect()
}

async fn inject(Step { fault, lasts, .. }: Step, cluster: &Cluster, orders: &Orders) -> Result<(), String> {
    let redis = &cluster.redis;
    match fault {
        Fault::RedisKilled => return redis.kill_master(0, lasts).await,
        Fault::RedisFrozen => return redis.freeze_master(0, lasts).await,
        Fault::RedisPaused => redis_command(cluster, &["CLIENT", "PAUSE", &lasts.as_millis().to_string()], lasts).await,
        Fault::RedisAsleep => {
            redis_command(cluster, &["DEBUG", "SLEEP", &lasts.as_secs_f64().to_string()], lasts).await
        }
        Fault::RedisSubscribersKilled => redis_command(cluster, &["CLIENT", "KILL", "TYPE", "pubsub"], lasts).await,
        Fault::RedisFlushed => redis_command(cluster, &["FLUSHALL"], lasts).await,
        Fault::RedisScriptsFlushed => redis_command(cluster, &["SCRIPT", "FLUSH"], lasts).await,
        Fault::RedisLink(node, link) => break_link(&cluster.redis_links[node], link, lasts).await,
        Fault::RedisRefuses(node) => {
            redis.shut_out(node).await;
            sleep(lasts).await;
            redis.let_in(node).await;
        }
        Fault::MasterKilled(shard) => return redis.kill_master(shard, lasts).await,
        Fault::MasterFrozen(shard) => return redis.freeze_master(shard, lasts).await,
        Fault::MasterReplaced(shard) => return redis.replace_master(shard).await,
        Fault::WritesLost(shard) => return redis.lose_writes(shard, lasts).await,
        Fault::SlotsMoved(from, to) => return redis.move_slots(from, to, lasts).await,
        Fault::SentinelFrozen(sentinel) => redis.freeze_sentinel(sentinel, lasts).await,
        Fault::StoreKilled => {
            cluster.store.lock().await.primary().kill().await;
            sleep(lasts).await;
            cluster.store.lock().await.primary().restart().await;
        }
        Fault::StoreFrozen => {
            cluster.store.lock().await.primary().pause();
            sleep(lasts).await;
            cluster.store.lock().await.primary().resume();
        }
        Fault::StoreFailedOver => cluster.fail_over_store(lasts).await,
        Fault::StoreSessionsEnded => end_sessions(cluster).await,
        Fault::StoreLink(node, link) => {
            cluster.set_store_link(node, link);
            sleep(lasts).await;
            cluster.set_store_link(node, Link::Open);
        }
        Fault::StoreAnswersLost(node) => lose_answers(cluster, node, lasts).await,
        Fault::NodeKilled(node) => {
            cluster.kill_node(node).await;
            sleep(lasts).await;
            cluster.start_node(node).await;
        }
        Fault::NodeKilledUnheard(node) => kill_unheard(cluster, node, lasts).await,
        Fault::NodeFrozen(node) => {
            signal(cluster, node, Signal::Stop).await;
            sleep(lasts).await;
            signal(cluster, node, Signal::Continue).await;
        }
        Fault::NodeReplaced(node) => {
            let ended = cluster.end_node(node).await;
            cluster.start_node(node).await;
            ended?;
        }
        Fault::ClientsCut => orders.give(Order::Cut),
        Fault::ClientsMoved => orders.give(Order::Move),
        Fault::ClientsAway => orders.give(Order::Away(lasts)),
        Fault::ReadersStalled => orders.give(Order::Stall(lasts)),
    }
    Ok(())
}

/// Runs a command on every master as a fault. A server that is down doesn't get it, which is fault enough.
async fn redis_command(cluster: &Cluster, words: &[&str], lasts: Duration) {
    let _answers: (Vec<Option<redis::Value>>, ()) = tokio::join!(cluster.redis.on_masters(words), sleep(lasts));
}

async fn break_link(link: &Proxy, how: Link, lasts: Duration) {
    link.set(how);
    sleep(lasts).await;
    link.set(Link::Open);
}

async fn lose_answers(cluster: &Cluster, node: usize, lasts: Duration) {
    cluster.set_store_link(node, Link::Mute);
    sleep(lasts).await;
    cluster.set_store_link(node, Link::Cut);
    // Time for every connection to notice the cut.
    sleep(Duration::from_millis(20)).await;
    cluster.set_store_link(node, Link::Open);
}

async fn kill_unheard(cluster: &Cluster, node: usize, lasts: Duration) {
    if let Some(link) = cluster.redis_links.get(node) {
        link.set(Link::Frozen);
        sleep(lasts).await;
        cluster.kill_node(node).await;
        // Commands that the link held must not reach Redis any more.
        link.drop_connections();
        link.set(Link::Open);
    } else {
        cluster.redis.shut_out(node).await;
        sleep(lasts).await;
        cluster.kill_node(node).await;
        cluster.redis.let_in(node).await;
    }
    sleep(lasts).await;
    cluster.start_node(node).await;
}

async fn end_sessions(cluster: &Cluster) {
    let Some(database) = cluster.database().await else { return };
    let all =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL";
    let asking = database.batch_execute(all);
    // A PostgreSQL that is being frozen does not answer, and may end the sessions later.
    let _answer = tokio::time::timeout(Duration::from_secs(1), asking).await;
}

async fn signal(cluster: &Cluster, node: usize, signal: Signal) {
    if let Some(node) = &cluster.places[node].lock().await.node {
        node.signal(signal);
    }
}

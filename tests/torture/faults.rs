//! Injection of each fault, and its end.

use std::{collections::HashMap, sync::Arc, time::Duration};

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
pub async fn run_plan(plan: &Plan, cluster: &Arc<Cluster>, orders: &Orders, recorder: &Recorder) -> Vec<String> {
    let begun = Instant::now();
    // Faults of one target run one after the other, even if one takes longer than planned.
    let mut turns = HashMap::<Target, Arc<Mutex<()>>>::new();
    let mut steps = Vec::new();
    for step in plan.0.iter().copied() {
        let turn = turns.entry(step.fault.target()).or_default().clone();
        let (cluster, orders, recorder) = (cluster.clone(), orders.clone(), recorder.clone());
        steps.push(tokio::spawn(async move {
            sleep_until(begun + step.at).await;
            let _turn = if step.fault.target() == Target::Nothing { None } else { Some(turn.lock().await) };
            let fault = format!("{:?}", step.fault);
            recorder.record(None, What::Fault { fault: fault.clone(), begins: true });
            let result = inject(step, &cluster, &orders).await;
            recorder.record(None, What::Fault { fault, begins: false });
            result.err()
        }));
    }
    let mut wrong = Vec::new();
    for step in steps {
        wrong.extend(step.await.expect("a fault can be done"));
    }
    wrong
}

async fn inject(Step { fault, lasts, .. }: Step, cluster: &Cluster, orders: &Orders) -> Result<(), String> {
    let milliseconds = lasts.as_millis().to_string();
    match fault {
        Fault::RedisKilled => {
            cluster.redis.lock().await.kill().await;
            sleep(lasts).await;
            cluster.redis.lock().await.restart().await;
        }
        Fault::RedisFrozen => {
            cluster.redis.lock().await.pause();
            sleep(lasts).await;
            cluster.redis.lock().await.resume();
        }
        Fault::RedisPaused => redis_command(cluster, &["CLIENT", "PAUSE", &milliseconds], lasts).await,
        Fault::RedisAsleep => {
            redis_command(cluster, &["DEBUG", "SLEEP", &lasts.as_secs_f64().to_string()], lasts).await
        }
        Fault::RedisSubscribersKilled => redis_command(cluster, &["CLIENT", "KILL", "TYPE", "pubsub"], lasts).await,
        Fault::RedisFlushed => redis_command(cluster, &["FLUSHALL"], lasts).await,
        Fault::RedisScriptsFlushed => redis_command(cluster, &["SCRIPT", "FLUSH"], lasts).await,
        Fault::RedisLink(node, link) => break_link(&cluster.redis_links[node], link, lasts).await,
        Fault::StoreKilled => {
            cluster.store.lock().await.kill().await;
            sleep(lasts).await;
            cluster.store.lock().await.restart().await;
        }
        Fault::StoreFrozen => {
            cluster.store.lock().await.pause();
            sleep(lasts).await;
            cluster.store.lock().await.resume();
        }
        Fault::StoreSessionsEnded => end_sessions(cluster).await,
        Fault::StoreLink(node, link) => break_link(&cluster.store_links[node], link, lasts).await,
        Fault::StoreAnswersLost(node) => {
            let link = &cluster.store_links[node];
            link.set(Link::Mute);
            sleep(lasts).await;
            link.set(Link::Cut);
            // Time for every connection to notice the cut.
            sleep(Duration::from_millis(20)).await;
            link.set(Link::Open);
        }
        Fault::NodeKilled(node) => {
            cluster.kill_node(node).await;
            sleep(lasts).await;
            cluster.start_node(node).await;
        }
        Fault::NodeKilledUnheard(node) => {
            cluster.redis_links[node].set(Link::Frozen);
            sleep(lasts).await;
            cluster.kill_node(node).await;
            // Commands that the link held must not reach Redis any more.
            cluster.redis_links[node].drop_connections();
            cluster.redis_links[node].set(Link::Open);
            sleep(lasts).await;
            cluster.start_node(node).await;
        }
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

/// Runs a Redis command as a fault. A Redis that is down doesn't get it, which is fault enough.
async fn redis_command(cluster: &Cluster, words: &[&str], lasts: Duration) {
    let _answer: (Option<redis::Value>, ()) = tokio::join!(cluster.redis(words), sleep(lasts));
}

async fn break_link(link: &Proxy, how: Link, lasts: Duration) {
    link.set(how);
    sleep(lasts).await;
    link.set(Link::Open);
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

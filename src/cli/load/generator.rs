//! A run: creates the rooms, connects the users, lets them send at the times of the plan, and waits for what is under way.

use std::{
    io::{Write, stderr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use super::{
    plan::Plan,
    report::Report,
    rooms,
    tally::Tally,
    tokens::Tokens,
    user::{self, Listener, Run},
};

/// Maximum number of messages that wait until their sender can send them.
const ORDERS: usize = 1_024;
/// Maximum time to wait, at the end, for acks and messages that are under way.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause between two looks whether anything is under way.
const LOOK: Duration = Duration::from_millis(20);

/// Runs a plan.
///
/// # Errors
/// The message for the user, if nothing could be measured.
pub(super) async fn run(plan: Arc<Plan>, tokens: Tokens) -> Result<Report, String> {
    let tag = Uuid::new_v4().simple().to_string()[..8].to_owned();
    let users = tokens.of(plan.users, |at| format!("load-{tag}-{at}"))?;
    tell(&format!("creating {} rooms", plan.rooms));
    let rooms = rooms::create(&plan, &users, |room| format!("load-{tag}-{room}")).await?;
    let tally = Tally::new(plan.rooms)?;
    let run = Arc::new(Run { plan: plan.clone(), tag, rooms, tally, began: OnceLock::new() });

    tell(&format!("connecting {} users", plan.users));
    let (opened, mut openings) = mpsc::unbounded_channel();
    let (mut serving, mut orders) = (JoinSet::new(), Vec::with_capacity(users.len()));
    let began = Instant::now();
    for (at, user) in (0..plan.users).zip(users) {
        sleep_until(began + Duration::from_secs_f64(f64::from(at) / f64::from(plan.connects))).await;
        let (order, ordered) = mpsc::channel(ORDERS);
        orders.push(order);
        serving.spawn(user::serve(run.clone(), at, user, ordered, opened.clone()));
    }
    drop(opened);
    let mut open = 0_u64;
    for _ in 0..plan.users {
        open += u64::from(openings.recv().await.unwrap_or(false));
    }
    if open == 0 {
        let reasons = run.tally.counts().not_opened.lines().join("; ");
        return Err(format!("no connection could be opened: {reasons}"));
    }
    let connecting = began.elapsed();
    tell(&format!("{} s of warm-up, then {} s of measurement", plan.warm_up, plan.seconds));
    send(&run, orders.clone()).await?;
    settle(&run).await;
    drop(orders);
    let listeners: Vec<Listener> = serving.join_all().await.into_iter().flatten().collect();
    Ok(Report::of(&plan, &run.tally.counts(), &listeners, connecting))
}

/// Orders every message of the plan when it is due.
async fn send(run: &Arc<Run>, orders: Vec<mpsc::Sender<u64>>) -> Result<(), String> {
    let began = *run.began.get_or_init(Instant::now);
    let (pacing, plan) = (run.clone(), &run.plan);
    // A thread of its own, because the runtime's timers wake up to 1 ms late, which would count as latency of the target.
    let paced = spawn_blocking(move || order_when_due(&pacing, began, &orders));
    paced.await.map_err(|error| format!("the thread that orders messages ended: {error}"))?;
    sleep_until(began + Duration::from_secs(u64::from(plan.warm_up + plan.seconds))).await;
    Ok(())
}

/// Orders every message, from the thread of the caller.
fn order_when_due(run: &Run, began: Instant, orders: &[mpsc::Sender<u64>]) {
    for message in 0..run.plan.messages() {
        std::thread::sleep(run.plan.due(message).saturating_sub(began.elapsed()));
        let order = orders.get(run.plan.sender_of(message) as usize);
        if order.is_none_or(|order| order.try_send(message).is_err()) {
            run.tally.counts().unsent += 1;
        }
    }
}

/// Waits until every message that was sent has its outcome, and nothing more is received.
async fn settle(run: &Run) {
    let until = Instant::now() + DRAIN;
    let mut received = None;
    while Instant::now() < until {
        let (answered, now) = {
            let counts = run.tally.counts();
            (counts.answered() >= counts.sent, counts.received)
        };
        if answered && received == Some(now) {
            return;
        }
        received = Some(now);
        sleep(if answered { LOOK * 25 } else { LOOK }).await;
    }
}

/// Tells the user how far the run is.
fn tell(text: &str) {
    // The result goes to standard output; a closed standard error ends nothing.
    let _closed = writeln!(stderr(), "load: {text}");
}

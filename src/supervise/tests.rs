use std::sync::atomic::AtomicU32;

use tokio::{sync::mpsc, time::Instant};

use super::*;

fn supervisor() -> (Supervisor, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    (Supervisor::new(metrics.clone()), metrics)
}

fn panics(metrics: &Metrics, name: TaskName) -> u64 {
    metrics.task_panics.with_label_values(&[name.label()]).get()
}

#[tokio::test(start_paused = true)]
async fn a_task_goes_on_with_its_state_and_an_item_that_panics_is_lost() {
    let (supervisor, metrics) = supervisor();
    let (items, queue) = mpsc::channel(10);
    let (done, mut handled) = mpsc::channel(10);
    supervisor.spawn_until_stop(TaskName::Rosters, (queue, done), |(queue, done)| {
        async move {
            while let Some(item) = queue.recv().await {
                assert_ne!(item, 2, "bad item");
                done.send(item).await.unwrap();
            }
        }
        .boxed()
    });
    for item in 1..=3 {
        items.send(item).await.unwrap();
    }
    assert_eq!((handled.recv().await, handled.recv().await), (Some(1), Some(3)));
    assert_eq!(panics(&metrics, TaskName::Rosters), 1);
    assert!(supervisor.failing().is_empty());
    assert!(supervisor.end(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_up_to_the_longest_and_the_task_counts_as_failing_until_it_is_stable() {
    let (supervisor, metrics) = supervisor();
    let (started, mut starts) = mpsc::unbounded_channel();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    supervisor.spawn_until_stop(TaskName::Typing, (), move |()| {
        let (started, run) = (started.clone(), counted.fetch_add(1, Ordering::Relaxed));
        async move {
            started.send(Instant::now()).unwrap();
            if run < 12 {
                panic!("run {run}");
            }
            std::future::pending::<()>().await;
        }
        .boxed()
    });
    let mut last = starts.recv().await.unwrap();
    for run in 1..=12 {
        let now = starts.recv().await.unwrap();
        let pause = (PAUSES.0 * 2_u32.pow(run - 1)).min(PAUSES.1);
        assert!((now - last).abs_diff(pause) < Duration::from_millis(10), "{run}: {:?}", now - last);
        assert_eq!(!supervisor.failing().is_empty(), run + 1 >= FAILING_AFTER, "{run}");
        last = now;
    }
    assert_eq!((panics(&metrics, TaskName::Typing), metrics.tasks_failing.get()), (12, 1));
    assert_eq!(supervisor.failing(), [TaskName::Typing]);
    sleep(STABLE_AFTER + Duration::from_secs(1)).await;
    assert_eq!((supervisor.failing().len(), metrics.tasks_failing.get()), (0, 0));
    assert!(supervisor.end(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panicked_finishes_its_queue_when_the_node_stops() {
    let (supervisor, _) = supervisor();
    let (items, queue) = mpsc::channel(10);
    let (done, mut handled) = mpsc::channel(10);
    let stop = supervisor.stop().clone();
    items.send(1).await.unwrap();
    items.send(2).await.unwrap();
    supervisor.spawn(TaskName::WriterLane, (queue, done, stop), |(queue, done, stop)| {
        async move {
            stop.cancelled().await;
            queue.close();
            while let Some(item) = queue.recv().await {
                assert_ne!(item, 1, "bad item");
                done.send(item).await.unwrap();
            }
        }
        .boxed()
    });
    assert!(supervisor.end(Duration::from_secs(5)).await);
    assert_eq!((handled.recv().await, handled.recv().await), (Some(2), None));
}

#[tokio::test]
async fn a_panic_of_a_job_or_an_item_ends_nothing_else_and_is_counted() {
    let (supervisor, metrics) = supervisor();
    let losses = supervisor.losses();
    assert_eq!(supervisor.catch(TaskName::Router, || 1), Some(1));
    assert!(!losses.has_changed().unwrap());
    assert_eq!(supervisor.catch(TaskName::Router, || -> u8 { panic!("deliberate") }), None);
    assert!(losses.has_changed().unwrap(), "entries may be lost");
    assert_eq!(
        supervisor
            .guard(TaskName::Session, async {
                if true {
                    panic!("{}", "deliberate")
                }
            })
            .await,
        None
    );
    supervisor.spawn_job(TaskName::Replay, async { panic!("deliberate") });
    while panics(&metrics, TaskName::Replay) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(supervisor.end(Duration::from_secs(5)).await);
    for name in [TaskName::Router, TaskName::Session, TaskName::Replay] {
        assert_eq!(panics(&metrics, name), 1, "{}", name.label());
    }
}

#[test]
fn each_name_has_a_label_of_its_own_and_its_place() {
    let mut labels: Vec<_> = TaskName::ALL.iter().map(|name| name.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), TaskName::COUNT);
    assert!(TaskName::ALL.iter().enumerate().all(|(at, name)| name.index() == at));
}

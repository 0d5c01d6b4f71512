//! Writers of several nodes on one PostgreSQL.

use super::*;

pub(super) fn writer(
    store: &Arc<dyn Store>,
    supervisor: &Supervisor,
    committed: impl Fn(Vec<switchboard::store::Committed>) + Send + Sync + 'static,
) -> Writer {
    let metrics = Arc::new(Metrics::new().unwrap());
    let degrade = Arc::new(Degrade::new(LinkState::Off));
    let outcomes = Outcomes { committed: Box::new(committed), doubted: Box::new(drop) };
    Writer::start(store.clone(), WriterSettings::default(), metrics, degrade, outcomes, supervisor)
}

/// A step of a sender in the property test.
#[derive(Debug, Clone)]
enum Step {
    Say { room: usize, sender: usize, id: u8 },
    Add { room: usize, user: usize },
    Remove { room: usize, user: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (room, person) = (0..3_usize, 0..4_usize);
    prop_oneof![
        8 => (room.clone(), person.clone(), 0..40_u8).prop_map(|(room, sender, id)| Step::Say { room, sender, id }),
        1 => (room.clone(), person.clone()).prop_map(|(room, user)| Step::Add { room, user }),
        1 => (room, person).prop_map(|(room, user)| Step::Remove { room, user }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, ..ProptestConfig::default() })]

    /// Writers of three nodes with their own pools, overlapping conversations, repeated ids, and members that are added
    /// and removed: no deadlock, no gap, no duplicate entry, each writer's entries in the order it queued them, every
    /// result true.
    #[test]
    fn writers_of_several_nodes_leave_no_gap(plans in prop::collection::vec(prop::collection::vec(step(), 1..120), 3)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(crate::support::within("the writers", run_plans(plans)));
    }
}

async fn run_plans(plans: Vec<Vec<Step>>) {
    let url = Server::shared().await.database().await;
    let people = ["p0", "p1", "p2", "p3"];
    let rooms: Vec<_> = (0..3).map(|at| room(&format!("room{at}"))).collect();
    let first: Arc<dyn Store> = Arc::new(postgres(&url).await);
    for id in &rooms {
        group(&first, id.as_str(), "owner", &people).await;
    }
    let nodes = plans.into_iter().enumerate().map(|(node, plan)| {
        let (url, rooms) = (url.clone(), rooms.clone());
        async move {
            let store: Arc<dyn Store> = Arc::new(postgres(&url).await);
            let (supervisor, told) = (supervisor(), Arc::new(Mutex::new(Vec::new())));
            let heard = told.clone();
            let writer = writer(&store, &supervisor, move |entries| heard.lock().unwrap().extend(entries));
            let appends: Vec<_> = plan
                .iter()
                .enumerate()
                .map(|(at, step)| writer.append(entry_of(step, &rooms, node, at), None))
                .collect();
            let answers = join_all(appends).await;
            assert!(supervisor.end(Duration::from_secs(20)).await);
            let told: Vec<_> = told.lock().unwrap().iter().map(|one| one.entry.clone()).collect();
            (plan, answers, told)
        }
    });
    let results = join_all(nodes).await;
    let mut stored = HashMap::new();
    for id in &rooms {
        let entries = first.entries(&LogId::from(id), 0, 10_000).await.unwrap();
        for (at, entry) in entries.iter().enumerate() {
            assert_eq!(entry.seq, at as Seq + 1, "no gap");
            stored.insert((id.clone(), entry.seq), entry.clone());
        }
        let ids: HashSet<_> = entries.iter().map(|entry| (&entry.sender, &entry.client_id)).collect();
        assert_eq!(ids.len(), entries.len(), "none twice");
    }
    let (mut told_of, mut repeated) = (HashMap::new(), HashMap::new());
    for (node, (plan, answers, told)) in results.into_iter().enumerate() {
        let mut last = HashMap::new();
        for (at, (step, answer)) in plan.iter().zip(answers).enumerate() {
            let new = entry_of(step, &rooms, node, at);
            let conversation = new.log.conversation().unwrap();
            match answer {
                Ok(appended) => {
                    let entry = &stored[&(conversation.clone(), appended.seq)];
                    assert_eq!((&entry.sender, entry.client_id.as_ref()), (&new.sender, Some(&new.dedupe)));
                    if appended.duplicate {
                        *repeated.entry((new.log.clone(), appended.seq)).or_insert(0) += 1;
                    } else {
                        let before = last.insert(conversation, appended.seq);
                        assert!(before < Some(appended.seq), "in the order in which they were queued");
                    }
                }
                Err(AppendError::Refused(AppendRefused::NotMember | AppendRefused::Unchanged)) => {}
                Err(other) => panic!("{step:?}: {other:?}"),
            }
        }
        for entry in told.iter().filter(|entry| entry.log.conversation().is_some()) {
            *told_of.entry((entry.log.clone(), entry.seq)).or_insert(0) += 1;
        }
    }
    for (entry, told) in &told_of {
        assert!(
            *told <= 1 + repeated.get(entry).unwrap_or(&0),
            "every entry is reported once over all nodes, and once for each repeat"
        );
    }
    assert_eq!(told_of.len(), stored.len(), "every stored entry was reported");
}

fn entry_of(step: &Step, rooms: &[ConversationId], node: usize, at: usize) -> NewEntry {
    match step {
        // The same id from several nodes: one of them stores it.
        Step::Say { room, sender, id } => new(&rooms[*room], &format!("p{sender}"), &format!("c{id}"), text("x")),
        Step::Add { room, user: who } => {
            new(&rooms[*room], "owner", &format!("n{node}-{at}"), Body::MemberAdded { user: user(&format!("p{who}")) })
        }
        Step::Remove { room, user: who } => new(
            &rooms[*room],
            "owner",
            &format!("n{node}-{at}"),
            Body::MemberRemoved { user: user(&format!("p{who}")) },
        ),
    }
}

//! Builds the parts of the chat and starts the tasks that run beside commands.

use std::sync::{Arc, atomic::AtomicU64};

use futures_util::FutureExt;
use tokio::sync::watch;

use super::{
    Chat,
    acks::Acks,
    answer_limits::AnswerLimits,
    batch_loader::{BatchLoader, Batches},
    budgets::Budgets,
    comparison::Comparison,
    connections::Connections,
    data_limits::DataLimits,
    derived::Derived,
    events::{Events, Rates},
    follows::Follows,
    heavy_reads::HeavyReads,
    hints::{Hints, grown::Grown},
    journal::Journal,
    members::Members,
    notifications::{unconfirmed::Unconfirmed, unread::Unread},
    parts::Parts,
    places::Places,
    presence::Presence,
    present::PresentUsers,
    reconciler::Reconciler,
    relay::growth::Growth,
    replay::Replayer,
    restriction_reader::RestrictionReader,
    retell::Retell,
    rosters::changes::RosterChanges,
    router::{Observers, Origin, Router},
    search_index::GrownLogs,
    shown::Shown,
    source::Entries,
    speakers::Speakers,
    statuses::Statuses,
    subscriptions::Subscriptions,
    typing::Typing,
    typists::Typists,
    user_upserts::{PendingUsers, UserUpserts},
};
use crate::{
    backplane::Backplane,
    config::Config,
    degrade::Degrade,
    hub::Hub,
    metrics::Metrics,
    model::{Clock, Event},
    restrictions::Restrictions,
    store::{Committed, Outcomes, Pulse, Store, Writer, WriterSettings},
    supervise::{Supervisor, TaskName},
};

mod tasks;

/// The dependencies that the parts share.
struct Ground {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    backplane: Arc<Backplane>,
    degrade: Arc<Degrade>,
    metrics: Arc<Metrics>,
    clock: Clock,
    supervisor: Supervisor,
    hub: Arc<Hub>,
    entries: Arc<Entries>,
}

impl Chat {
    /// Builds hub, router, writer and the other parts, and starts the tasks that run beside commands.
    pub fn start(parts: Parts) -> Arc<Self> {
        let Parts { config, store, backplane, webhooks, degrade, metrics, restrictions, clock, supervisor } = parts;
        let ((backplane, events), (restrictions, pulses)) = (backplane, restrictions);
        let entries = Entries::new(store.clone(), backplane.clone());
        let hub = start_hub(entries.clone(), metrics.clone(), clock.clone(), &supervisor);
        let ground = Ground { config, store, backplane, degrade, metrics, clock, supervisor, hub, entries };
        let Ground { config, store, degrade, metrics, supervisor, hub, .. } = &ground;

        let (members, growth) = (Members::new(store.clone(), degrade.clone()), Growth::new(degrade.clone()));
        let (members, growth) = (Arc::new(members), Arc::new(growth));
        let unread = Arc::new(Unread::new(config.notifications.queue, metrics.clone()));
        let (rosters, roster_changes) = RosterChanges::new(hub.clone(), metrics.clone());
        let (shown, followed) = Shown::new(config.timing.presence_grace, metrics.clone());
        let (shown, grown_logs, rights) = (Arc::new(shown), Arc::<GrownLogs>::default(), Arc::<Speakers>::default());
        let (typists, grown) = (Typists::new(config.timing.typing_timeout), Grown::new(metrics.clone()));
        let (typists, grown) = (Arc::new(typists), Arc::new(grown));
        let (s, hints) = (rights.clone(), Arc::new(ground.hints(grown.clone())));
        let (u, g, h, t, l) = (unread.clone(), growth.clone(), shown.clone(), typists.clone(), grown_logs.clone());
        let all = Observers { unread: u, rosters, growth: g, shown: h, typists: t, grown_logs: l, grown, speakers: s };
        let router = ground.router(all);
        let retell = Arc::new(Retell::new(store.clone(), router.clone(), metrics.clone()));
        let writer = ground.writer(router.clone(), retell.clone());

        let (loader, batches) = BatchLoader::new(store.clone());
        let (users, pending_users) = UserUpserts::new(store.clone());
        let statuses = Arc::new(Statuses::new(store.clone(), loader.clone()));
        let present = Arc::new(PresentUsers::new(shown, ground.backplane.clone(), statuses.clone()));
        let typing = Arc::new(ground.typing(typists, router.clone(), statuses.clone()));
        let caches = (statuses.clone(), rights.clone(), hints.clone());
        let reconciler = Arc::new(ground.reconciler(members.clone(), users.clone(), caches, pulses.clone()));
        let (budgets, r, s, t) = (Arc::new(ground.budgets()), router.clone(), statuses.clone(), typing.clone());
        let journal = Arc::new(ground.journal(writer.clone(), budgets.clone()));
        let (accounts, given) = ((journal.clone(), budgets.clone()), (loader, present.clone(), hints.clone()));
        let checks = (members.clone(), reconciler.clone());
        let subscriptions = Arc::new(ground.subscriptions((r, retell.clone()), s, t, accounts, given, checks));
        let connections = ground.connections(router.clone(), subscriptions.clone(), typing.clone(), users.clone());
        let presence = Arc::new(ground.presence(router.clone(), (statuses, present.clone()), users.clone()));
        let kept = ground.start_upkeep(writer.clone(), grown_logs);
        let personas = webhooks.persona.map(|webhook| ground.personas(webhook, writer, router.clone()));

        spawn_updates(supervisor, batches, (users.clone(), pending_users), typing.clone());
        spawn_comparisons(supervisor, reconciler.clone(), retell.clone());
        ground.start_rosters((router.clone(), present.clone()), roster_changes, hints.clone());
        let unconfirmed = Arc::new(Unconfirmed::new(config.timing.presence_grace, metrics.clone()));
        let (r, w) = ((router.clone(), retell.clone()), webhooks.notification);
        let watch = ground.start_notifications(r, (unread, unconfirmed.clone()), w, personas.clone());
        ground.start_relay(growth, reconciler.clone(), hints.clone());
        ground.start_presence_check(present.clone(), router.clone(), followed);
        ground.start_backplane_events((router.clone(), reconciler.clone()), (presence.clone(), hints, present), events);
        let restriction_reader = ground.follow_restrictions(restrictions, pulses);
        let (heavy_reads, events) = (HeavyReads::new(config, metrics.clone()), ground.events(router.clone(), rights));
        let Ground { config, store, degrade, metrics, hub, .. } = ground;
        Arc::new(Self {
            acks: Arc::new(Acks { hub, metrics: metrics.clone() }),
            store,
            degrade,
            metrics,
            router,
            retell,
            budgets,
            journal,
            members,
            heavy_reads,
            users,
            connections,
            subscriptions,
            presence,
            typing,
            events,
            personas,
            unconfirmed,
            watch,
            blocks_per_user: config.limits.blocks_per_user,
            data_limits: DataLimits::new(&config.limits),
            answer_limits: AnswerLimits::new(&config.limits),
            restriction_reader,
            reconciler,
            kept,
        })
    }
}

fn start_hub(source: Arc<Entries>, metrics: Arc<Metrics>, clock: Clock, supervisor: &Supervisor) -> Arc<Hub> {
    let shards = std::thread::available_parallelism().map_or(1, usize::from);
    Hub::start(shards, source, metrics, clock, supervisor.clone())
}

/// Starts the tasks that find entries which nobody may have been told of.
fn spawn_comparisons(supervisor: &Supervisor, reconciler: Arc<Reconciler>, retell: Arc<Retell>) {
    supervisor.spawn_until_stop(TaskName::Reconciler, reconciler, |reconciler| reconciler.run().boxed());
    supervisor.spawn_until_stop(TaskName::Retell, retell, |retell| retell.run().boxed());
}

/// Starts the tasks that store users and end typing.
fn spawn_updates(
    supervisor: &Supervisor,
    batches: Batches,
    users: (Arc<UserUpserts>, PendingUsers),
    typing: Arc<Typing>,
) {
    supervisor.spawn_until_stop(TaskName::BatchLoader, batches, |batches| batches.run().boxed());
    supervisor.spawn_until_stop(TaskName::UserUpserts, users, |(users, pending)| users.run(pending).boxed());
    supervisor.spawn_until_stop(TaskName::Typing, typing, |typing| typing.run().boxed());
}

impl Ground {
    fn router(&self, observers: Observers) -> Arc<Router> {
        Arc::new(Router::new(
            self.hub.clone(),
            self.backplane.clone(),
            self.clock.clone(),
            observers,
            self.supervisor.clone(),
        ))
    }

    fn writer(&self, router: Arc<Router>, retell: Arc<Retell>) -> Arc<Writer> {
        let committed = move |entries: Vec<Committed>| {
            let event = |Committed { entry, origin }| Event::Entry { entry, origin };
            router.dispatch(entries.into_iter().map(event).collect(), Origin::Committed);
        };
        let outcomes = Outcomes { committed: Box::new(committed), doubted: Box::new(move |logs| retell.doubt(logs)) };
        let settings = WriterSettings { lanes: self.config.store.lanes, ..WriterSettings::default() };
        let (store, metrics, degrade) = (self.store.clone(), self.metrics.clone(), self.degrade.clone());
        let writer = Arc::new(Writer::start(store, settings, metrics, degrade, outcomes, &self.supervisor));
        self.entries.set_writer(&writer);
        writer
    }

    /// Starts to apply the changes of restrictions that other nodes and programs store.
    fn follow_restrictions(
        &self,
        restrictions: Arc<Restrictions>,
        pulses: watch::Receiver<Option<Pulse>>,
    ) -> RestrictionReader {
        let max = self.config.limits.restrictions;
        self.metrics.restrictions_limit.set(max.into());
        let reader = RestrictionReader { store: self.store.clone(), restrictions, max, clock: self.clock.clone() };
        reader.clone().start(pulses, &self.supervisor);
        reader
    }

    fn reconciler(
        &self,
        members: Arc<Members>,
        users: Arc<UserUpserts>,
        (statuses, speakers, hints): (Arc<Statuses>, Arc<Speakers>, Arc<Hints>),
        pulses: watch::Receiver<Option<Pulse>>,
    ) -> Reconciler {
        let derived = Derived { members, users, statuses, speakers, hints };
        let comparison = Comparison::new(
            (self.store.clone(), self.backplane.clone()),
            self.hub.clone(),
            self.metrics.clone(),
            derived,
        );
        let parts = (&*self.store, self.hub.clone());
        Reconciler::new(comparison, parts, self.degrade.clone(), pulses, &self.supervisor)
    }

    fn budgets(&self) -> Budgets {
        Budgets::new(self.backplane.clone(), &self.metrics, self.config.limits.clone())
    }

    fn journal(&self, writer: Arc<Writer>, budgets: Arc<Budgets>) -> Journal {
        Journal { writer, budgets, degrade: self.degrade.clone(), metrics: self.metrics.clone() }
    }

    fn subscriptions(
        &self,
        (router, retell): (Arc<Router>, Arc<Retell>),
        statuses: Arc<Statuses>,
        typing: Arc<Typing>,
        (journal, budgets): (Arc<Journal>, Arc<Budgets>),
        (loader, present, hints): (BatchLoader, Arc<PresentUsers>, Arc<Hints>),
        (members, reconciler): (Arc<Members>, Arc<Reconciler>),
    ) -> Subscriptions {
        let (hub, backplane, degrade) = (self.hub.clone(), self.backplane.clone(), self.degrade.clone());
        let outbox_bytes = self.config.limits.outbox_bytes;
        Subscriptions {
            store: self.store.clone(),
            backplane: self.backplane.clone(),
            hub: self.hub.clone(),
            router,
            retell,
            degrade: self.degrade.clone(),
            metrics: self.metrics.clone(),
            follows: Arc::new(Follows { hub, backplane, degrade, loader, present }),
            budgets,
            replayer: Arc::new(Replayer { hub: self.hub.clone(), supervisor: self.supervisor.clone(), outbox_bytes }),
            journal,
            statuses,
            typing,
            hints,
            members,
            reconciler,
            clock: self.clock.clone(),
            limits: self.config.limits.clone(),
            open_conversations: self.config.open_conversations,
        }
    }

    fn hints(&self, grown: Arc<Grown>) -> Hints {
        let (shared, limit) =
            ((self.store.clone(), self.backplane.clone()), self.config.limits.conversations_per_connection);
        Hints::new(shared, self.degrade.clone(), self.metrics.clone(), limit, grown)
    }

    fn connections(
        &self,
        router: Arc<Router>,
        subscriptions: Arc<Subscriptions>,
        typing: Arc<Typing>,
        users: Arc<UserUpserts>,
    ) -> Connections {
        Connections {
            node: self.config.node.clone(),
            backplane: self.backplane.clone(),
            places: Places::new(self.backplane.clone(), router),
            subscriptions,
            typing,
            users,
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            count: AtomicU64::new(0),
        }
    }

    fn presence(
        &self,
        router: Arc<Router>,
        (statuses, present): (Arc<Statuses>, Arc<PresentUsers>),
        users: Arc<UserUpserts>,
    ) -> Presence {
        Presence {
            store: self.store.clone(),
            backplane: self.backplane.clone(),
            router,
            degrade: self.degrade.clone(),
            statuses,
            present,
            users,
            clock: self.clock.clone(),
        }
    }

    fn typing(&self, typists: Arc<Typists>, router: Arc<Router>, statuses: Arc<Statuses>) -> Typing {
        Typing { typists, router, statuses }
    }

    fn events(&self, router: Arc<Router>, speakers: Arc<Speakers>) -> Events {
        Events {
            store: self.store.clone(),
            hub: self.hub.clone(),
            router,
            degrade: self.degrade.clone(),
            metrics: self.metrics.clone(),
            speakers,
            rates: Rates::new(self.config.limits.events_per_receiver),
        }
    }
}

//! The tasks that run beside commands, and the parts that only they use.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::{
    super::{
        backplane_events::BackplaneEvents,
        data_limits::DataLimits,
        erasure::Eraser,
        hints::Hints,
        kept::Kept,
        notifications::{Notifications, posts::Posts, unconfirmed::Unconfirmed, unread::Unread, watch::Watch},
        personas::Personas,
        presence::Presence,
        presence_check::PresenceCheck,
        present::PresentUsers,
        reconciler::Reconciler,
        relay::{Relay, growth::Growth},
        retell::Retell,
        retention::{Remover, Rules},
        rosters::{Rosters, changes::RosterQueue},
        router::Router,
        search_index::{GrownLogs, SearchIndex},
        split::SplitWatch,
    },
    Ground,
};
use crate::{backplane::BackplaneEvent, model::ConversationId, store::Writer, supervise::TaskName, webhook::Webhook};

impl Ground {
    /// Starts the tasks that tell listeners of rosters, and members of conversations that they don't listen to.
    pub(super) fn start_rosters(
        &self,
        (router, present): (Arc<Router>, Arc<PresentUsers>),
        changes: RosterQueue,
        hints: Arc<Hints>,
    ) {
        let most = self.config.limits.roster_bytes();
        let state = (Rosters { present, router, most }, changes);
        let spawn = &self.supervisor;
        spawn.spawn_until_stop(TaskName::Rosters, state, |(rosters, changes)| rosters.run(changes).boxed());
        spawn.spawn_until_stop(TaskName::Hints, hints, |hints| hints.clone().run().boxed());
    }

    /// Starts the task that passes on what the backplane receives.
    pub(super) fn start_backplane_events(
        &self,
        (router, reconciler): (Arc<Router>, Arc<Reconciler>),
        (presence, hints, present): (Arc<Presence>, Arc<Hints>, Arc<PresentUsers>),
        events: mpsc::Receiver<BackplaneEvent>,
    ) {
        let supervisor = self.supervisor.clone();
        let passing = BackplaneEvents { router, reconciler, presence, hints, present, supervisor };
        self.supervisor.spawn_until_stop(TaskName::BackplaneEvents, (passing, events), |(passing, events)| {
            passing.run(events).boxed()
        });
    }

    /// Starts the tasks that notify members who are away, and post to the webhook.
    pub(super) fn start_notifications(
        &self,
        (router, retell): (Arc<Router>, Arc<Retell>),
        (unread, unconfirmed): (Arc<Unread>, Arc<Unconfirmed>),
        webhook: Option<Arc<Webhook>>,
        personas: Option<Arc<Personas>>,
    ) -> Arc<Watch> {
        let (settings, queued) = (&self.config.notifications, Arc::new(Notify::new()));
        let notifications = Arc::new(Notifications {
            unread,
            unconfirmed,
            store: self.store.clone(),
            backplane: self.backplane.clone(),
            router,
            retell,
            metrics: self.metrics.clone(),
            post_queue: webhook.as_ref().map_or(0, |_| settings.queue),
            queued: queued.clone(),
            supervisor: self.supervisor.clone(),
        });
        let (process, timing) =
            (format!("{}#{}", self.config.node, Uuid::new_v4().simple()), (&self.config.timing).into());
        let watch = Arc::new(Watch { process, timing, notifications: notifications.clone(), personas });
        self.supervisor.spawn(TaskName::NotificationWatch, watch.clone(), |watch| watch.run().boxed());
        self.supervisor
            .spawn_until_stop(TaskName::Notifications, notifications, |notifications| notifications.run().boxed());
        if let Some(webhook) = webhook {
            let (store, metrics, supervisor) = (self.store.clone(), self.metrics.clone(), self.supervisor.clone());
            let posts = Posts { store, webhook, max_age: settings.max_age, metrics, supervisor, queued };
            self.supervisor.spawn(TaskName::NotificationPosts, posts, |posts| posts.run().boxed());
        }
        watch
    }

    /// Starts the task that answers for personas.
    pub(super) fn personas(&self, webhook: Arc<Webhook>, writer: Arc<Writer>, router: Arc<Router>) -> Arc<Personas> {
        let webhook = (self.config.auth.persona_ids.clone(), webhook, DataLimits::new(&self.config.limits).message);
        let (store, metrics, supervisor) = (self.store.clone(), self.metrics.clone(), self.supervisor.clone());
        let (personas, questions) = Personas::new(webhook, store, writer, router, metrics, supervisor);
        let state = (personas.clone(), questions);
        self.supervisor
            .spawn_until_stop(TaskName::Personas, state, |(personas, questions)| personas.run(questions).boxed());
        personas
    }

    /// Starts the task that compares presence.
    pub(super) fn start_presence_check(
        &self,
        present: Arc<PresentUsers>,
        router: Arc<Router>,
        followed: mpsc::Receiver<ConversationId>,
    ) {
        let check = PresenceCheck {
            present,
            backplane: self.backplane.clone(),
            store: self.store.clone(),
            router,
            degrade: self.degrade.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
        };
        self.supervisor.spawn_until_stop(TaskName::PresenceCheck, (check, followed), |(check, followed)| {
            check.run(followed).boxed()
        });
    }

    /// Starts the tasks that look after what is stored: the search index, unless it is switched off, the removal of old entries,
    /// and the erasure of users.
    pub(super) fn start_upkeep(&self, writer: Arc<Writer>, grown: Arc<GrownLogs>) -> Kept {
        let (config, process) = (&self.config.store, format!("{}#{}", self.config.node, Uuid::new_v4().simple()));
        if config.search_index {
            let index = SearchIndex { grown, store: self.store.clone(), metrics: self.metrics.clone() };
            self.supervisor.spawn_until_stop(TaskName::SearchIndex, index, |index| index.run().boxed());
        }
        let remover = Remover {
            store: self.store.clone(),
            backplane: self.backplane.clone(),
            degrade: self.degrade.clone(),
            metrics: self.metrics.clone(),
            process: process.clone(),
            rules: Rules { default: config.retention, interval: config.retention_interval },
        };
        self.supervisor.spawn_until_stop(TaskName::Retention, remover, |remover| remover.run().boxed());
        let erasure_requested = Arc::<Notify>::default();
        let eraser = Eraser {
            store: self.store.clone(),
            writer,
            degrade: self.degrade.clone(),
            metrics: self.metrics.clone(),
            process,
            requested: erasure_requested.clone(),
        };
        self.supervisor.spawn_until_stop(TaskName::Erasures, eraser, |eraser| eraser.run().boxed());
        Kept { default: config.retention, erasure_requested }
    }

    /// Starts the delivery through the store, for times without Redis, and the look for nodes that use another one.
    pub(super) fn start_relay(&self, growth: Arc<Growth>, reconciler: Arc<Reconciler>, hints: Arc<Hints>) {
        let relay = Relay {
            node: self.config.node.clone(),
            store: self.store.clone(),
            backplane: self.backplane.clone(),
            hub: self.hub.clone(),
            degrade: self.degrade.clone(),
            metrics: self.metrics.clone(),
            growth,
            reconciler,
            hints,
        };
        self.supervisor.spawn_until_stop(TaskName::Relay, relay, |relay| relay.run().boxed());
        if self.config.redis.is_some() {
            let (node, store) = (self.config.node.clone(), self.store.clone());
            let watch = SplitWatch { node, store, backplane: self.backplane.clone(), degrade: self.degrade.clone() };
            self.supervisor.spawn_until_stop(TaskName::SplitWatch, watch, |watch| watch.run().boxed());
        }
    }
}

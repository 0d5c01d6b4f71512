//! The names of supervised tasks.

macro_rules! names {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal;)*) => {
        /// A kind of task: the label in metrics, logs and health.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum TaskName {
            $($(#[doc = $doc])+ $name,)*
        }

        impl TaskName {
            /// Every name.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$name),*];
            /// The number of names.
            pub const COUNT: usize = [$($label),*].len();

            /// The label.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

names! {
    /// Pings the store.
    StoreWatch = "store_watch";
    /// Reads the restrictions that admins make.
    Restrictions = "restrictions";
    /// Logs and counts changes of degraded mode.
    DegradeWatch = "degrade_watch";
    /// Accepts sockets.
    Listener = "listener";
    /// Fetches published keys.
    Keys = "keys";
    /// Reads the keys with which nodes sign what they write into Redis.
    NodeKeys = "node_keys";
    /// Ends sockets when all outboxes together hold too much.
    Outboxes = "outboxes";
    /// Finds departures and dead nodes.
    Departures = "departures";
    /// Writes this node's connections to Redis.
    Registry = "registry";
    /// Publishes events to other nodes.
    Publisher = "publisher";
    /// Receives events of other nodes.
    Subscriber = "subscriber";
    /// Asks where the primary of Redis is.
    Target = "target";
    /// Keeps connections over which Redis tells of changes.
    Tracking = "tracking";
    /// Watches Redis.
    Watchdog = "watchdog";
    /// Passes events of the backplane on.
    BackplaneEvents = "backplane_events";
    /// Commits appends.
    WriterLane = "writer_lane";
    /// Works on a SQLite database.
    Sqlite = "sqlite";
    /// Tells members of new messages in conversations to which their sockets don't listen.
    Hints = "hints";
    /// Adds segments to the search index.
    SearchIndex = "search_index";
    /// Removes old entries.
    Retention = "retention";
    /// Erases users.
    Erasures = "erasures";
    /// Passes committed entries to hub and backplane.
    Router = "router";
    /// Delivers to the sockets of this node.
    DeliveryShard = "delivery_shard";
    /// Encodes events in a dialect.
    Encoder = "encoder";
    /// Fetches the entries of a gap.
    Backfill = "backfill";
    /// Sends missed entries to a listener.
    Replay = "replay";
    /// Batches small reads.
    BatchLoader = "batch_loader";
    /// Stores users.
    UserUpserts = "user_upserts";
    /// Ends typing indicators.
    Typing = "typing";
    /// Compares logs with the store.
    Reconciler = "reconciler";
    /// Takes over what dead nodes left undone.
    NotificationWatch = "notification_watch";
    /// Sends the newest entries of doubtful logs again.
    Retell = "retell";
    /// Compares what listeners were told of presence with the registry.
    PresenceCheck = "presence_check";
    /// Sends rosters.
    Rosters = "rosters";
    /// Notifies members who are away.
    Notifications = "notifications";
    /// Posts notifications to the webhook.
    NotificationPosts = "notification_posts";
    /// Reaches other nodes through the store.
    Relay = "relay";
    /// Looks for nodes that use another Redis.
    SplitWatch = "split_watch";
    /// Answers for personas.
    Personas = "personas";
    /// Serves one WebSocket.
    Session = "session";
    /// Serves one HTTP connection, or answers one request.
    Request = "request";
}

impl TaskName {
    /// The place in [`TaskName::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// True if a panic may lose entries between the store and the listeners.
    pub(super) fn carries_entries(self) -> bool {
        matches!(
            self,
            Self::WriterLane
                | Self::Router
                | Self::BackplaneEvents
                | Self::Subscriber
                | Self::DeliveryShard
                | Self::Backfill
                | Self::Reconciler
        )
    }
}

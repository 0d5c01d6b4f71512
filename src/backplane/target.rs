//! The server that a link uses: where it is now, and how to connect to it. Links, subscribers and pools take their address
//! from here, and follow it when it changes; none of them knows which form REDIS_URL has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::try_join_all};
use redis::{AsyncConnectionConfig, Client, Value, aio::MultiplexedConnection};
use tokio::{sync::watch, time::timeout};

use super::{
    cluster::Cluster,
    connector::{Connector, Place},
    link_error::LinkError,
    route::Route,
    sentinels::{Reports, Sentinels},
    shards::SHARDS,
    types::{ClusterStatus, RedisStatus, StartError},
};
use crate::{
    config::{RedisConfig, RedisForm},
    degrade::{Degrade, Fault, Finding},
    metrics::Metrics,
    supervise::{Supervisor, TaskName},
};

/// Maximum wait for a first address.
const FIRST_ADDRESS: Duration = Duration::from_secs(1);
/// Maximum wait for the reply to ROLE.
const ROLE_TIMEOUT: Duration = Duration::from_millis(500);

/// The server of a link.
pub(super) struct Target {
    connector: Connector,
    route: watch::Sender<Route>,
    /// Those who name the server; `None` if its address is fixed.
    sentinels: Option<Sentinels>,
    /// The cluster; `None` for one server.
    cluster: Option<Arc<Cluster>>,
    /// Number of the route by which the server was used last; 0 before the first one.
    used: AtomicU64,
}

impl Target {
    /// The target of `config`. Makes no connection.
    ///
    /// # Errors
    /// A file of TLS is bad.
    pub(super) fn new(config: &RedisConfig) -> Result<Arc<Self>, StartError> {
        let servers = &config.servers;
        let tls_at_sentinels = matches!(&servers.form, RedisForm::Sentinel(sentinels) if sentinels.tls);
        if let (Some(path), false) = (&config.tls.ca, servers.tls || tls_at_sentinels) {
            return Err(StartError::BadTls(format!("{}: REDIS_URL asks for no TLS", path.display())));
        }
        let connector = Connector::new(config, false)?;
        let mut cluster = None;
        let (route, sentinels) = match &servers.form {
            RedisForm::Server(address) => (Route::to(Place::Host(address.clone())), None),
            RedisForm::Socket(path) => (Route::to(Place::Socket(path.clone())), None),
            RedisForm::Sentinel(sentinels) => {
                (Route::default(), Some(Sentinels::new(sentinels, Connector::new(config, true)?)))
            }
            RedisForm::Cluster(seeds) => {
                cluster = Some(Arc::new(Cluster::new(seeds.clone(), connector.clone(), servers.tls)));
                (Route::default(), None)
            }
        };
        Ok(Arc::new(Self { connector, route: watch::Sender::new(route), sentinels, cluster, used: AtomicU64::new(0) }))
    }

    /// Keeps the route up to date until its task is stopped.
    pub(super) async fn run(&self, degrade: &Degrade, metrics: &Metrics) {
        match (&self.sentinels, &self.cluster) {
            (Some(sentinels), _) => sentinels.run(&Reports { route: &self.route, degrade, metrics }).await,
            (None, Some(cluster)) => cluster.run(&self.route, metrics).await,
            (None, None) => std::future::pending().await,
        }
    }

    /// Looks for the server once, for a program that doesn't [run](Self::run) the target. With `hurry`, no sentinel is awaited
    /// once an address is believed.
    pub(super) async fn look_once(&self, hurry: bool) {
        if let Some(cluster) = &self.cluster {
            cluster.ask_once(&self.route).await;
        }
        if let Some(sentinels) = &self.sentinels
            && let Some(address) = sentinels.ask_once(hurry).await
        {
            self.route.send_modify(|route| route.change(Place::Host(address)));
        }
    }

    /// The cluster; `None` for one server.
    pub(super) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// The current route.
    pub(super) fn route(&self) -> Route {
        self.route.borrow().clone()
    }

    /// A receiver that wakes when the route changes.
    pub(super) fn routes(&self) -> watch::Receiver<Route> {
        self.route.subscribe()
    }

    /// Waits a moment for a first address.
    pub(super) async fn found(&self) {
        let mut routes = self.route.subscribe();
        // The sender lives as long as this target.
        let _known = timeout(FIRST_ADDRESS, routes.wait_for(|route| route.place.is_some())).await;
    }

    /// The place of the server, and the number of the route to it. Waits a moment for a first address.
    async fn place(&self) -> Result<(Place, u64), LinkError> {
        self.found().await;
        let route = self.route();
        match route.place {
            Some(place) => Ok((place, route.number)),
            None => Err(self
                .sentinels
                .as_ref()
                .map_or(LinkError::Down, |found| LinkError::NoPrimary(found.unfound().into()))),
        }
    }

    /// A client of the server.
    pub(super) async fn client(&self) -> Result<Client, LinkError> {
        let (place, _) = self.place().await?;
        Ok(self.connector.client(&place)?)
    }

    /// Connects to the server. Returns also the number of the route to it.
    pub(super) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, u64), LinkError> {
        let (place, number) = self.place().await?;
        Ok((self.connector.connect(&place, config).await?, number))
    }

    /// Makes several connections, all of them to the same server.
    pub(super) async fn connect_several(
        &self,
        count: usize,
        config: &AsyncConnectionConfig,
    ) -> Result<Vec<MultiplexedConnection>, LinkError> {
        let (place, _) = self.place().await?;
        try_join_all((0..count).map(|_| self.connector.connect(&place, config))).await
    }

    /// Asks a server for its role, unless its address is fixed: sentinels may name one that is not the primary any more.
    ///
    /// # Errors
    /// It is a replica, or does not answer.
    pub(super) async fn check_role(&self, on: &mut MultiplexedConnection) -> Result<(), LinkError> {
        if self.sentinels.is_none() {
            return Ok(());
        }
        let reply = timeout(ROLE_TIMEOUT, redis::cmd("ROLE").query_async::<Vec<Value>>(on)).await;
        let role = match reply.map_err(|_| LinkError::Timeout)?.map_err(LinkError::from) {
            Ok(parts) => parts.into_iter().next().and_then(|role| redis::from_redis_value::<String>(role).ok()),
            // Its login may not ask. A replica refuses the first write.
            Err(LinkError::Refused(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        match role.as_deref() {
            Some("master") => Ok(()),
            role => {
                let (place, role) = (self.route().place, role.unwrap_or("server of another kind"));
                let place = place.map_or_else(String::new, |place| place.to_string());
                let why = format!("the sentinels name {place}, which is a {role} and not the primary");
                Err(LinkError::NoPrimary(Finding::new(Fault::RedisRefusesWrites, why).into()))
            }
        }
    }

    /// Records that the server is used by the current route. True if the one that was used before was another.
    pub(super) fn note_used(&self) -> bool {
        let number = self.route.borrow().number;
        let before = self.used.swap(number, Ordering::AcqRel);
        before != 0 && before != number
    }

    /// The finding if the addresses lead to servers of another kind than the form of REDIS_URL needs.
    pub(super) fn misfit(&self) -> Option<Finding> {
        match &self.cluster {
            Some(cluster) => cluster.misfit(),
            None => self.sentinels.as_ref()?.misfit(),
        }
    }

    /// The warning if too few sentinels answer.
    pub(super) fn warning(&self) -> Option<Finding> {
        self.sentinels.as_ref()?.away()
    }

    /// The sentinels or the cluster in words, for an operator; empty if the address is fixed.
    pub(super) fn in_words(&self) -> String {
        if let Some(cluster) = &self.cluster {
            return format!("; {}", cluster.in_words());
        }
        let place = || self.route().place.map_or_else(String::new, |place| place.to_string());
        self.sentinels.as_ref().map_or_else(String::new, |found| format!("; {} is {}", place(), found.in_words()))
    }

    /// The state for the health report.
    pub(super) fn status(&self) -> RedisStatus {
        let route = self.route();
        RedisStatus {
            primary: route.place.filter(|_| self.cluster.is_none()).map(|place| place.to_string()),
            since: route.since,
            changes: route.number.saturating_sub(1),
            sentinels: self.sentinels.as_ref().map(Sentinels::count),
            cluster: self.cluster.as_ref().map(|cluster| ClusterStatus {
                masters: cluster.states().into_iter().map(|(master, up)| (master.to_string(), up)).collect(),
                shards: SHARDS,
                shards_down: cluster.shards_down().count_ones() as usize,
            }),
        }
    }
}

/// Spawns the task that keeps the route up to date.
pub(super) fn spawn(target: Arc<Target>, reports: (Arc<Degrade>, Arc<Metrics>), supervisor: &Supervisor) {
    supervisor.spawn_until_stop(TaskName::Target, (target, reports), |(target, (degrade, metrics))| {
        target.run(degrade, metrics).boxed()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsFiles;

    fn target(url: &str, ca: Option<&str>) -> Result<Arc<Target>, StartError> {
        let tls = TlsFiles { ca: ca.map(Into::into), ..TlsFiles::default() };
        Target::new(&RedisConfig { sentinel_tls: tls.clone(), tls, ..RedisConfig::at(url).unwrap() })
    }

    #[tokio::test]
    async fn a_bad_ca_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no pem").unwrap();
        for path in ["/nowhere/ca.pem", file.path().to_str().unwrap()] {
            for url in ["rediss://localhost", "rediss+sentinel://localhost?sentinel_master_name=m", "redis://localhost"]
            {
                assert!(matches!(target(url, Some(path)), Err(StartError::BadTls(_))), "{url}");
            }
        }
    }

    #[tokio::test]
    async fn a_fixed_address_is_known_at_once() {
        let fixed = target("redis://:p@[::1]:7/2", None).unwrap();
        let (client, (_, route)) = (fixed.client().await.unwrap(), fixed.place().await.unwrap());
        let info = client.get_connection_info();
        assert_eq!((info.addr().to_string(), info.redis_settings().db(), route), ("::1:7".to_owned(), 2, 1));
        assert_eq!(fixed.status().primary.as_deref(), Some("[::1]:7"));
        assert!(!fixed.note_used() && !fixed.note_used() && fixed.in_words().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn before_a_sentinel_answers_no_address_is_known() {
        let target = target("redis+sentinel://h?sentinel_master_name=m", None).unwrap();
        let Err(LinkError::NoPrimary(finding)) = target.client().await.map(drop) else { panic!("an address") };
        assert_eq!(finding.fault, Fault::RedisUnreachable);
        target.route.send_modify(|route| route.change(Place::Socket("/a".into())));
        assert!(target.client().await.is_ok() && !target.note_used());
        target.route.send_modify(|route| route.change(Place::Socket("/b".into())));
        assert!(target.note_used() && !target.note_used());
    }
}

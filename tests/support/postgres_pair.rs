//! A primary of PostgreSQL with a standby that has every commit before it is acknowledged.

use super::{Postgres, eventually};

/// Settings of both servers: a standby comes back soon after its primary.
const SETTINGS: &[(&str, &str)] = &[("wal_retrieve_retry_interval", "100ms")];

/// The servers. Each has a place; which one is the primary changes.
#[derive(Debug)]
pub struct PostgresPair {
    servers: [Option<Postgres>; 2],
    primary: usize,
}

impl PostgresPair {
    /// Starts a primary alone.
    pub async fn alone(settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = SETTINGS.iter().chain(settings).copied().collect();
        Self { servers: [Some(Postgres::start(&settings).await), None], primary: 0 }
    }

    /// Starts a primary with a synchronous standby.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let mut pair = Self::alone(settings).await;
        pair.add_standby().await;
        pair
    }

    /// The place of the primary.
    pub fn place(&self) -> usize {
        self.primary
    }

    /// The primary.
    pub fn primary(&mut self) -> &mut Postgres {
        self.servers[self.primary].as_mut().expect("a pair always has a primary")
    }

    /// The server in a place.
    pub fn server(&self, place: usize) -> Option<&Postgres> {
        self.servers[place].as_ref()
    }

    /// Stops the primary at once, and makes the standby the primary. The former primary is gone for good.
    pub async fn fail_over(&mut self) {
        let mut stopped = self.servers[self.primary].take().expect("a pair always has a primary");
        stopped.kill().await;
        self.primary = 1 - self.primary;
        self.primary().promote().await;
    }

    /// Makes a standby from the primary, in the place beside it. From then on each commit waits for it.
    pub async fn add_standby(&mut self) {
        let address = self.primary().address();
        let standby = self.primary().standby(&address).await;
        self.servers[1 - self.primary] = Some(standby);
        let client = self.primary().connect("postgres").await;
        for statement in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
            client.batch_execute(statement).await.expect("the primary takes settings");
        }
        eventually("the standby to be synchronous", async || {
            let states = client.query("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'", &[]).await;
            states.is_ok_and(|states| states.len() == 1).then_some(())
        })
        .await;
    }
}

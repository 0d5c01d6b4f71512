//! The pool of connections for queries with long replies, which would delay the other commands.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bb8::{ManageConnection, Pool, PooledConnection, RunError};
use redis::AsyncConnectionConfig;

use super::{connection::Connection, link_error::LinkError, target::Target};

/// Lends connections to the current server.
pub(super) struct QueryPool {
    pool: Pool<Queries>,
    last_error: LastError,
}

impl QueryPool {
    /// A pool of at most `size` connections. Borrowers wait for one for at most `wait`.
    pub(super) fn new(target: Arc<Target>, size: u32, wait: Duration) -> Self {
        let last_error = LastError::default();
        let pool = Pool::builder().max_size(size).connection_timeout(wait).error_sink(Box::new(last_error.clone()));
        Self { pool: pool.build_unchecked(Queries(target)), last_error }
    }

    /// True if the server lets in a connection that can be lent: its login may also send the command that tests it.
    pub(super) async fn can_lend(target: Arc<Target>) -> bool {
        let queries = Queries(target);
        match queries.connect().await {
            Ok(mut made) => queries.is_valid(&mut made).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Lends a connection.
    pub(super) async fn get(&self) -> Result<PooledConnection<'_, Queries>, LinkError> {
        self.pool.get().await.map_err(|error| match error {
            RunError::User(error) => error,
            RunError::TimedOut => {
                let last = self.last_error.0.lock().unwrap_or_else(PoisonError::into_inner).take();
                last.unwrap_or_else(|| LinkError::Broken("no connection came in time".to_owned()))
            }
        })
    }
}

/// A connection, and the number of the [route](super::route::Route) to its server.
pub(super) struct QueryConnection {
    /// The connection.
    pub(super) connection: Connection,
    route: u64,
}

/// Makes the connections of the pool. One to a former server is not lent again.
pub(super) struct Queries(Arc<Target>);

impl ManageConnection for Queries {
    type Connection = QueryConnection;
    type Error = LinkError;

    async fn connect(&self) -> Result<QueryConnection, LinkError> {
        let (connection, route) = self.0.connect(&AsyncConnectionConfig::new()).await?;
        Ok(QueryConnection { connection: connection.into(), route })
    }

    async fn is_valid(&self, lent: &mut QueryConnection) -> Result<(), LinkError> {
        if self.has_broken(lent) {
            return Err(LinkError::Broken("it leads to a former server".to_owned()));
        }
        lent.connection.ask(redis::cmd("PING")).await
    }

    fn has_broken(&self, lent: &mut QueryConnection) -> bool {
        lent.route != self.0.route().number
    }
}

/// The newest error of a pool. It tries again until its time is up, and tells no reason then.
#[derive(Debug, Clone, Default)]
struct LastError(Arc<Mutex<Option<LinkError>>>);

impl bb8::ErrorSink<LinkError> for LastError {
    fn sink(&self, error: LinkError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<LinkError>> {
        Box::new(self.clone())
    }
}

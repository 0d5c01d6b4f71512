//! The identity of this deployment. It is made of the id that the database holds and of the place of the database, so that a
//! copy (a dump that was restored elsewhere, a database made from a template) is another deployment than its original. A
//! standby is in the same place as its primary.

use tokio_postgres::Row;

use super::super::StoreError;
use crate::model::{Deployment, DeploymentId};

/// The stored id, the epoch, which is a new one if the server has another timeline than before, and the number of the database in its cluster.
pub(super) const STORED: &str = "SELECT id::text, present_epoch(), (SELECT oid::text FROM pg_database WHERE datname = current_database()) FROM deployment";
/// The number that a cluster of PostgreSQL gets when it is made; its standbys share it. Every role may ask, if nobody changed
/// that.
pub(super) const CLUSTER: &str = "SELECT system_identifier::text FROM pg_control_system()";

/// The identity, from the replies to both queries.
pub(super) fn of(
    stored: Result<Vec<Row>, StoreError>,
    cluster: Result<Vec<Row>, StoreError>,
) -> Result<Deployment, StoreError> {
    let stored = stored?;
    let stored = stored.first().ok_or_else(StoreError::no_deployment)?;
    let cluster: Option<String> = match cluster {
        Ok(rows) => rows.first().map(|row| row.get(0)),
        // The server does not tell, or is not quite PostgreSQL. The rest must do.
        Err(StoreError::Failed(_)) => None,
        Err(error) => return Err(error),
    };
    let (id, epoch, database): (&str, i64, Option<&str>) = (stored.get(0), stored.get(1), stored.get(2));
    let id = DeploymentId::parse(id).map_err(|_| StoreError::no_deployment())?;
    let place = format!("{}/{}", cluster.unwrap_or_default(), database.unwrap_or_default());
    Ok(Deployment { id: id.at(&place), epoch })
}

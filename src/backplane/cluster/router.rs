//! Sends the commands of a pipeline to the masters of their keys, and puts the replies together again.
//!
//! Each master gets its commands in one pipeline, in order. A command that another master must execute (MOVED, ASK) is sent there,
//! and no other one is repeated. A command without a key follows the one before it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::{join_all, try_join_all};
use redis::{Arg, AsyncConnectionConfig, Cmd, Pipeline, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{
    super::{
        connector::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT},
        link_error::LinkError,
        scripts::SCRIPTS,
        shards::{Layout, Shard},
    },
    discovery::Cluster,
    topology::{Topology, slot},
};
use crate::config::HostPort;

/// Maximum number of times that a command is sent on.
const REDIRECTS: usize = 4;
/// Maximum number of connections: masters, and nodes that masters name.
const CONNECTIONS_MAX: usize = 1_024;

/// Commands without a key.
const KEYLESS: [&[u8]; 8] = [b"ASKING", b"PING", b"TIME", b"SCAN", b"SCRIPT", b"INFO", b"PUBSUB", b"CONFIG"];

/// A connection to each master.
#[derive(Clone)]
pub(in crate::backplane) struct Router {
    cluster: Arc<Cluster>,
    config: AsyncConnectionConfig,
    connections: Arc<Mutex<HashMap<HostPort, MultiplexedConnection>>>,
}

/// The replies to a pipeline.
pub(in crate::backplane) struct Routed {
    pub(in crate::backplane) values: Vec<Value>,
    /// True if a command was sent on. A later call may then have overtaken it.
    pub(in crate::backplane) redirected: bool,
}

/// The commands for one node.
struct Part {
    node: HostPort,
    /// Places in the pipeline.
    commands: Vec<usize>,
    /// The node does not own their slots yet.
    asking: bool,
}

/// The node to which a reply sends a command on.
struct Redirect {
    node: HostPort,
    asking: bool,
}

impl Router {
    /// Connects to every master, and loads the scripts there.
    ///
    /// # Errors
    /// A master can't be reached, or slots have none.
    pub(in crate::backplane) async fn open(
        cluster: &Arc<Cluster>,
        config: AsyncConnectionConfig,
    ) -> Result<Self, LinkError> {
        if let Some(finding) = cluster.unfound() {
            cluster.ask_now();
            return Err(LinkError::NoPrimary(finding.into()));
        }
        let open = cluster.masters().into_iter().map(|master| async {
            let opened = async {
                let mut connection = cluster.connect(&master, &config).await?;
                load_scripts(&mut connection).await?;
                Ok::<_, LinkError>(connection)
            };
            let opened = opened.await;
            cluster.note_answer(&master, opened.is_ok());
            Ok::<_, LinkError>((master, opened?))
        });
        // A master that is gone has a successor soon.
        let connections = try_join_all(open).await.inspect_err(|_| cluster.ask_now())?;
        let connections = Arc::new(Mutex::new(connections.into_iter().collect()));
        Ok(Self { cluster: cluster.clone(), config, connections })
    }

    /// Sends a pipeline.
    ///
    /// # Errors
    /// A node did not answer; others may have executed their commands.
    pub(in crate::backplane) async fn send(&self, pipeline: &Pipeline) -> Result<Routed, LinkError> {
        let routed = timeout(RESPONSE_TIMEOUT, self.route(pipeline)).await.unwrap_or(Err(LinkError::Timeout));
        routed.inspect_err(|_| self.cluster.ask_now())
    }

    async fn route(&self, pipeline: &Pipeline) -> Result<Routed, LinkError> {
        let topology = self.cluster.topology().ok_or(LinkError::Down)?;
        let commands: Vec<&Cmd> = pipeline.cmd_iter().collect();
        let mut parts = divide(&topology, &commands)?;
        let mut routed = Routed { values: vec![Value::Nil; commands.len()], redirected: false };
        for round in 0..=REDIRECTS {
            let whole = parts.len() == 1 && parts[0].commands.len() == commands.len() && !parts[0].asking;
            let sent =
                join_all(parts.iter().map(|part| self.send_part(part, &commands, whole.then_some(pipeline)))).await;
            let mut next = Vec::new();
            for (part, values) in parts.iter().zip(&sent) {
                self.cluster.note_answer(&part.node, values.is_ok());
            }
            for (part, values) in parts.iter().zip(sent) {
                let mut follows: Option<Redirect> = None;
                for (index, value) in part.commands.iter().zip(values?) {
                    if let Some(redirect) = self.redirect(&value, &part.node) {
                        follows = Some(redirect);
                    } else if key(commands[*index]).is_some() {
                        follows = None;
                    }
                    match &follows {
                        Some(redirect) if round < REDIRECTS => add(&mut next, &redirect.node, redirect.asking, *index),
                        _ => routed.values[*index] = value,
                    }
                }
            }
            if next.is_empty() {
                break;
            }
            (parts, routed.redirected) = (next, true);
        }
        Ok(routed)
    }

    /// Sends one part. `whole` is the pipeline if the part has all of it.
    async fn send_part(
        &self,
        part: &Part,
        commands: &[&Cmd],
        whole: Option<&Pipeline>,
    ) -> Result<Vec<Value>, LinkError> {
        let mut connection = self.connection(&part.node).await?;
        let copied;
        let pipeline = match whole {
            Some(pipeline) => pipeline,
            None => {
                let mut copy = Pipeline::with_capacity(part.commands.len());
                for index in &part.commands {
                    if part.asking {
                        copy.cmd("ASKING");
                    }
                    copy.add_command(commands[*index].clone());
                }
                copied = copy;
                &copied
            }
        };
        let mut values = connection.send_packed_commands(pipeline, 0, pipeline.len()).await?;
        // A promoted replica has no scripts.
        if values.iter().any(|value| code(value) == Some("NOSCRIPT")) {
            load_scripts(&mut connection).await?;
            values = connection.send_packed_commands(pipeline, 0, pipeline.len()).await?;
        }
        if values.iter().any(|value| matches!(code(value), Some("CLUSTERDOWN" | "READONLY" | "MASTERDOWN"))) {
            self.cluster.ask_now();
        }
        if part.asking {
            let mut nth = 0..;
            values.retain(|_| nth.next().is_some_and(|nth| nth % 2 == 1));
        }
        Ok(values)
    }

    /// The node to which a reply sends the command on.
    fn redirect(&self, value: &Value, from: &HostPort) -> Option<Redirect> {
        let Value::ServerError(error) = value else { return None };
        let asking = match error.code() {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let mut words = error.details()?.split(' ');
        let slot = words.next()?.parse().ok()?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        // A node that does not know its name or address is at the host that answered.
        let host = if matches!(host, "" | "?") { from.host.clone() } else { host.to_owned() };
        let node = self.cluster.resolve(HostPort { host, port: port.parse().ok()? });
        if !asking {
            self.cluster.note_moved(slot, &node);
        }
        Some(Redirect { node, asking })
    }

    async fn connection(&self, node: &HostPort) -> Result<MultiplexedConnection, LinkError> {
        if let Some(known) = self.connections().get(node) {
            return Ok(known.clone());
        }
        // A connection that broke is not replaced here: whoever watches must learn of it, as writes may be lost.
        let connection = self.cluster.connect(node, &self.config).await?;
        let mut connections = self.connections();
        if connections.len() >= CONNECTIONS_MAX {
            return Err(LinkError::Down);
        }
        Ok(connections.entry(node.clone()).or_insert(connection).clone())
    }

    /// A connection to each node, in the order of their addresses.
    pub(in crate::backplane) fn nodes(&self) -> Vec<MultiplexedConnection> {
        let masters = self.cluster.masters();
        let connections = self.connections();
        masters.iter().filter_map(|master| connections.get(master).cloned()).collect()
    }

    /// One shard of each master that has any; another one each `turn`. And the masters that have none.
    pub(in crate::backplane) fn represent(&self, turn: usize) -> (Vec<Shard>, Vec<MultiplexedConnection>) {
        let held = self.cluster.shards_by_master(Shard::all(Layout::Cluster));
        let (masters, connections) = (self.cluster.masters(), self.connections());
        let without = masters.iter().filter(|master| !held.contains_key(master));
        let without = without.filter_map(|master| connections.get(master).cloned()).collect();
        (held.into_values().map(|shards| shards[turn % shards.len()]).collect(), without)
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<HostPort, MultiplexedConnection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Divides commands by the masters of their keys.
fn divide(topology: &Topology, commands: &[&Cmd]) -> Result<Vec<Part>, LinkError> {
    let mut parts: Vec<Part> = Vec::new();
    let mut node = topology.masters().first().ok_or(LinkError::Down)?;
    for (index, command) in commands.iter().enumerate() {
        if let Some(key) = key(command) {
            node = topology.owner(slot(key)).ok_or(LinkError::Down)?;
        }
        add(&mut parts, node, false, index);
    }
    Ok(parts)
}

fn add(parts: &mut Vec<Part>, node: &HostPort, asking: bool, index: usize) {
    match parts.iter_mut().find(|part| part.node == *node && part.asking == asking) {
        Some(part) => part.commands.push(index),
        None => parts.push(Part { node: node.clone(), commands: vec![index], asking }),
    }
}

/// The key, or the channel, of a command; each command of ours has at most one.
fn key(command: &Cmd) -> Option<&[u8]> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => b"",
    });
    match words.next()? {
        b"EVALSHA" => words.nth(2),
        name if KEYLESS.contains(&name) => None,
        _ => words.next(),
    }
}

fn code(value: &Value) -> Option<&str> {
    match value {
        Value::ServerError(error) => Some(error.code()),
        _ => None,
    }
}

async fn load_scripts(on: &mut MultiplexedConnection) -> Result<(), LinkError> {
    let mut load = Pipeline::new();
    for script in SCRIPTS {
        load.cmd("SCRIPT").arg("LOAD").arg(script.source());
    }
    let load = on.send_packed_commands(&load, 0, load.len());
    // An error reply is ignored here: the watchdog tries each command before it uses the link, and names the one that is refused.
    timeout(CONNECT_TIMEOUT, load).await.map_err(|_| LinkError::Timeout)?.map(drop).map_err(LinkError::from)
}

//! Sends the commands of a pipeline to the masters of their keys, and puts the replies together again.
//!
//! Each master gets its commands in one pipeline, in order. A command that another master must execute (MOVED, ASK) is sent there,
//! and no other one is repeated. A command without a key follows the one before it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::join_all;
use redis::{Arg, AsyncConnectionConfig, Cmd, Pipeline, Value, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    super::{
        connector::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT},
        fault,
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
    /// True for the watchdog, which also calls masters that are down for others.
    watches: bool,
}

/// The replies to a pipeline.
pub(in crate::backplane) struct Routed {
    pub(in crate::backplane) values: Vec<Value>,
    /// The commands whose master did not answer, in order, and why. Not all commands are among them.
    pub(in crate::backplane) failures: Vec<(usize, LinkError)>,
    /// The commands that a master refused, in order, and its address.
    pub(in crate::backplane) refused_by: Vec<(usize, HostPort)>,
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
    /// Connects to every master, and loads the scripts there. Those that can't be reached are down then.
    ///
    /// # Errors
    /// The master of the first shard can't be reached, or there is none. With `all`: any of the masters.
    pub(in crate::backplane) async fn open(
        cluster: &Arc<Cluster>,
        config: AsyncConnectionConfig,
        all: bool,
    ) -> Result<Self, LinkError> {
        if let Some(finding) = cluster.unfound() {
            cluster.ask_now();
            return Err(LinkError::NoPrimary(finding.into()));
        }
        let home = cluster.owner_of(Shard::HOME.tag().as_bytes()).ok_or(LinkError::Down)?;
        let open = cluster.masters().into_iter().map(|master| async {
            let opened = open_one(cluster, &master, &config).await;
            (master, opened)
        });
        let mut connections = HashMap::new();
        for (master, opened) in join_all(open).await {
            match opened {
                Ok(connection) => {
                    connections.insert(master, connection);
                }
                // A master that is gone has a successor soon.
                Err(error) => {
                    cluster.note_down(&master, fault::link_finding(&error));
                    if all || master == home {
                        return Err(error);
                    }
                }
            }
        }
        let connections = Arc::new(Mutex::new(connections));
        Ok(Self { cluster: cluster.clone(), config, connections, watches: false })
    }

    /// The same connections for the watchdog.
    pub(in crate::backplane) fn watching(self) -> Self {
        Self { watches: true, ..self }
    }

    /// Uses this connection to a master from now on.
    pub(in crate::backplane) fn replace(&self, master: &HostPort, connection: MultiplexedConnection) {
        let mut connections = self.connections();
        let masters = self.cluster.masters();
        connections.retain(|node, _| masters.contains(node));
        connections.insert(master.clone(), connection);
    }

    /// Sends a pipeline.
    ///
    /// # Errors
    /// No node answered. Some may have executed their commands.
    pub(in crate::backplane) async fn send(&self, pipeline: &Pipeline) -> Result<Routed, LinkError> {
        let topology = self.cluster.topology().ok_or(LinkError::Down)?;
        let (commands, deadline) = (pipeline.cmd_iter().collect::<Vec<&Cmd>>(), Instant::now() + RESPONSE_TIMEOUT);
        let (mut parts, failures) = divide(&topology, &commands);
        let values = vec![Value::Nil; commands.len()];
        let mut routed = Routed { values, failures, refused_by: Vec::new(), redirected: false };
        for round in 0..=REDIRECTS {
            let whole = parts.len() == 1 && parts[0].commands.len() == commands.len() && !parts[0].asking;
            let send = parts.iter().map(|part| async {
                let sent = timeout_at(deadline, self.send_part(part, &commands, whole.then_some(pipeline))).await;
                sent.unwrap_or(Err(LinkError::Timeout))
            });
            let sent = join_all(send).await;
            let mut next = Vec::new();
            for (part, values) in parts.iter().zip(sent) {
                let values = match values {
                    Ok(values) => values,
                    Err(error) => {
                        self.note_failure(&part.node, &error);
                        routed.failures.extend(part.commands.iter().map(|index| (*index, error.clone())));
                        continue;
                    }
                };
                let mut follows: Option<Redirect> = None;
                for (index, value) in part.commands.iter().zip(values) {
                    if let Some(redirect) = self.redirect(&value, &part.node) {
                        follows = Some(redirect);
                    } else if key(commands[*index]).is_some() {
                        follows = None;
                    }
                    match &follows {
                        Some(redirect) if round < REDIRECTS => add(&mut next, &redirect.node, redirect.asking, *index),
                        _ => {
                            let refused = code(&value).map(|_| (*index, part.node.clone()));
                            routed.refused_by.extend(refused);
                            routed.values[*index] = value;
                        }
                    }
                }
            }
            if next.is_empty() {
                break;
            }
            (parts, routed.redirected) = (next, true);
        }
        routed.failures.sort_by_key(|(index, _)| *index);
        routed.refused_by.sort_by_key(|(index, _)| *index);
        match routed.failures.first() {
            Some((_, error)) if routed.failures.len() == commands.len() => Err(error.clone()),
            _ => Ok(routed),
        }
    }

    /// A master that did not answer is asked nothing until the watchdog has heard of it.
    fn note_failure(&self, node: &HostPort, error: &LinkError) {
        if *error != LinkError::Down && self.cluster.masters().contains(node) {
            self.cluster.health.note_silent(node);
            self.cluster.ask_now();
        }
    }

    /// Sends one part. `whole` is the pipeline if the part has all of it.
    async fn send_part(
        &self,
        part: &Part,
        commands: &[&Cmd],
        whole: Option<&Pipeline>,
    ) -> Result<Vec<Value>, LinkError> {
        if !self.watches && !self.cluster.health.may_call(&part.node) {
            return Err(LinkError::Down);
        }
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

    /// Records that this node is registered with every master to which there is a connection.
    pub(in crate::backplane) fn note_up(&self) {
        let reached: Vec<HostPort> = self.connections().keys().cloned().collect();
        reached.iter().for_each(|master| self.cluster.note_up(master));
    }

    /// The shards to whose masters there is a connection.
    pub(in crate::backplane) fn reached(&self) -> Vec<Shard> {
        let (held, connections) = (self.cluster.shards_by_master(Shard::all(Layout::Cluster)), self.connections());
        let mut reached: Vec<Shard> =
            held.into_iter().filter(|(master, _)| connections.contains_key(master)).flat_map(|(_, of)| of).collect();
        reached.sort_unstable();
        reached
    }

    /// A connection to each master that is up, in the order of their addresses; for the watchdog, to the others too.
    pub(in crate::backplane) fn nodes(&self) -> Vec<MultiplexedConnection> {
        let (masters, connections) = (self.cluster.masters(), self.connections());
        let up = masters.iter().filter(|master| self.watches || !self.cluster.health.is_down(master));
        up.filter_map(|master| connections.get(master).cloned()).collect()
    }

    /// The connection to a master, if there is one.
    pub(in crate::backplane) fn node(&self, master: &HostPort) -> Option<MultiplexedConnection> {
        self.connections().get(master).cloned()
    }

    /// One shard of each master to which there is a connection, and which has any.
    pub(in crate::backplane) fn represent(&self) -> Vec<Shard> {
        let (held, connections) = (self.cluster.shards_by_master(Shard::all(Layout::Cluster)), self.connections());
        held.into_iter().filter(|(master, _)| connections.contains_key(master)).map(|(_, shards)| shards[0]).collect()
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<HostPort, MultiplexedConnection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Divides commands by the masters of their keys; one without a key goes to that of the first shard, or of the key before it. Those
/// without a master fail.
fn divide(topology: &Topology, commands: &[&Cmd]) -> (Vec<Part>, Vec<(usize, LinkError)>) {
    let (mut parts, mut failures) = (Vec::new(), Vec::new());
    let mut node = topology.owner(slot(Shard::HOME.tag().as_bytes()));
    for (index, command) in commands.iter().enumerate() {
        if let Some(key) = key(command) {
            node = topology.owner(slot(key));
        }
        match node {
            Some(node) => add(&mut parts, node, false, index),
            None => failures.push((index, LinkError::Down)),
        }
    }
    (parts, failures)
}

/// Connects to a master, and loads the scripts there.
pub(super) async fn open_one(
    cluster: &Cluster,
    master: &HostPort,
    config: &AsyncConnectionConfig,
) -> Result<MultiplexedConnection, LinkError> {
    let mut connection = cluster.connect(master, config).await?;
    load_scripts(&mut connection).await?;
    Ok(connection)
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

//! Which master has which slot, as the nodes of a cluster tell it.

use std::collections::BTreeMap;

use crc::{CRC_16_XMODEM, Crc, Table};
use redis::{Value, from_redis_value_ref};

use crate::config::HostPort;

/// Number of slots of every cluster.
const SLOTS: u16 = 16_384;
/// Maximum number of nodes that are known. Redis recommends at most 1,000.
const NODES_MAX: usize = 4_096;
/// No master.
const NONE: u16 = u16::MAX;
const CRC: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&CRC_16_XMODEM);

/// The slot of a key. Only what stands in the first braces counts, if it is not empty.
pub(in crate::backplane) fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let rest = &key[key.iter().position(|byte| *byte == b'{')? + 1..];
        let tag = &rest[..rest.iter().position(|byte| *byte == b'}')?];
        (!tag.is_empty()).then_some(tag)
    };
    CRC.checksum(tag().unwrap_or(key)) % SLOTS
}

/// The masters of the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backplane) struct Topology {
    /// In order, each once.
    masters: Vec<HostPort>,
    replicas: Vec<HostPort>,
    /// Masters without a replica that works, in order.
    bare: Vec<HostPort>,
    /// For each slot, the place in `masters`, or [`NONE`].
    owners: Vec<u16>,
    /// The address of each node, by its id.
    by_id: BTreeMap<String, HostPort>,
    /// The addresses of nodes that are reached by another name than they are called by others.
    aliases: BTreeMap<HostPort, HostPort>,
}

/// The rules by which addresses in a reply are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    /// The node that was asked.
    pub(super) asked: &'a HostPort,
    /// Nodes are reached by their names if they tell them, because certificates have names.
    pub(super) names: bool,
    /// The topology before this reply. It tells the address of a node that does not know its own.
    pub(super) known: Option<&'a Topology>,
}

impl Topology {
    /// Reads the reply to CLUSTER SLOTS; `None` if it has another form.
    pub(super) fn parse(reply: &Value, reading: Reading<'_>) -> Option<Self> {
        let (mut ranges, mut replicas, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        let (mut by_id, mut aliases) = (BTreeMap::new(), BTreeMap::new());
        let mut address = |node: &Value| {
            let Node { id, called, address } = Node::read(node, reading)?;
            by_id.insert(id, address.clone());
            if let Some(called) = called.filter(|called| *called != address) {
                aliases.insert(called, address.clone());
            }
            Some(address)
        };
        for range in list(reply)? {
            let [start, end, master, others @ ..] = list(range)? else { return None };
            let (start, end): (u16, u16) = (from_redis_value_ref(start).ok()?, from_redis_value_ref(end).ok()?);
            if start > end || end >= SLOTS {
                return None;
            }
            let (master, before) = (address(master), replicas.len());
            replicas.extend(others.iter().filter_map(&mut address));
            // A node without a known address serves nobody.
            if let Some(master) = master {
                bare.extend((replicas.len() == before).then(|| master.clone()));
                ranges.push((start, end, master));
            }
        }
        let mut masters: Vec<HostPort> = ranges.iter().map(|(_, _, master)| master.clone()).collect();
        for nodes in [&mut masters, &mut replicas, &mut bare] {
            nodes.sort_unstable();
            nodes.dedup();
            nodes.truncate(NODES_MAX);
        }
        let mut owners = vec![NONE; SLOTS.into()];
        for (start, end, master) in ranges {
            let index = masters.binary_search(&master).ok().and_then(|index| u16::try_from(index).ok())?;
            owners[usize::from(start)..=usize::from(end)].fill(index);
        }
        Some(Self { masters, replicas, bare, owners, by_id, aliases })
    }

    /// The masters with slots, in order.
    pub(super) fn masters(&self) -> &[HostPort] {
        &self.masters
    }

    /// The masters without a replica that works.
    pub(super) fn bare(&self) -> &[HostPort] {
        &self.bare
    }

    /// Every node.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &HostPort> {
        self.masters.iter().chain(&self.replicas)
    }

    /// The master of a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&HostPort> {
        self.masters.get(usize::from(self.owners[usize::from(slot % SLOTS)]))
    }

    /// The address by which a node is reached that another one calls so.
    pub(super) fn resolve(&self, called: HostPort) -> HostPort {
        self.aliases.get(&called).cloned().unwrap_or(called)
    }

    /// Number of slots without a master.
    pub(super) fn uncovered(&self) -> usize {
        self.owners.iter().filter(|owner| **owner == NONE).count()
    }

    /// The same with another owner of a slot; `None` if that is no master yet, or is the owner already.
    pub(super) fn with_owner(&self, slot: u16, master: &HostPort) -> Option<Self> {
        let index = u16::try_from(self.masters.binary_search(master).ok()?).ok()?;
        let mut changed = self.clone();
        let before = std::mem::replace(changed.owners.get_mut(usize::from(slot))?, index);
        (before != index).then_some(changed)
    }
}

fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// A node in the reply.
struct Node {
    id: String,
    /// The address by which others call it, if they know one.
    called: Option<HostPort>,
    /// The address by which it is reached.
    address: HostPort,
}

impl Node {
    /// Reads its endpoint, its port, its id, and further names. `None` if it can't be reached.
    fn read(node: &Value, reading: Reading<'_>) -> Option<Self> {
        let [endpoint, port, id, rest @ ..] = list(node)? else { return None };
        let port: u16 = from_redis_value_ref(port).ok().filter(|port| *port != 0)?;
        let endpoint: Option<String> = from_redis_value_ref(endpoint).ok()?;
        let id: String = from_redis_value_ref(id).ok()?;
        let at = |host: String| HostPort { host, port };
        let name = || rest.first().and_then(host_name).map(at);
        let called = endpoint.filter(|endpoint| !matches!(endpoint.as_str(), "" | "?")).map(at);
        let before = || reading.known?.by_id.get(&id).filter(|known| known.port == port).cloned();
        let address = match &called {
            Some(_) if reading.names => name().or_else(|| called.clone()),
            Some(called) => Some(called.clone()),
            // It does not know its own address, and has the one by which it was asked.
            None => name().or_else(before).or_else(|| Some(at(reading.asked.host.clone()))),
        };
        Some(Self { id, called, address: address? })
    }
}

/// The name of the host among the further names of a node.
fn host_name(names: &Value) -> Option<String> {
    let text = |value: &Value| from_redis_value_ref::<String>(value).ok();
    let names: Vec<(String, String)> = match names {
        Value::Map(pairs) => pairs.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect(),
        Value::Array(flat) => {
            flat.chunks_exact(2).filter_map(|pair| Some((text(&pair[0])?, text(&pair[1])?))).collect()
        }
        _ => Vec::new(),
    };
    names.into_iter().find(|(name, value)| name == "hostname" && !value.is_empty()).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: host.into(), port }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(endpoint: Value, port: i64, names: Value) -> Value {
        Value::Array(vec![endpoint, Value::Int(port), text(&format!("id-{port}")), names])
    }

    fn parse(reply: &Value, asked: &HostPort, names: bool, known: Option<&Topology>) -> Option<Topology> {
        Topology::parse(reply, Reading { asked, names, known })
    }

    fn range(start: i64, end: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(start), Value::Int(end)], nodes].concat())
    }

    #[test]
    fn slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT answers.
        for (key, expected) in
            [("", 0), ("123456789", 12_739), ("foo", 12_182), ("{foo}:bar", 12_182), ("a{foo}{bar}", 12_182)]
        {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(slot(b"{}foo"), CRC.checksum(b"{}foo") % SLOTS, "empty braces count as a part of the key");
    }

    #[test]
    fn a_reply_tells_owners_and_replicas() {
        let names = Value::Map(vec![(text("hostname"), text("one.example"))]);
        let reply = Value::Array(vec![
            range(
                0,
                99,
                vec![node(text("10.0.0.1"), 7, names.clone()), node(text("10.0.0.3"), 9, Value::Array(vec![]))],
            ),
            range(100, 16_383, vec![node(Value::Nil, 8, Value::Array(vec![]))]),
        ]);
        let asked = at("seed", 8);
        let plain = parse(&reply, &asked, false, None).unwrap();
        assert_eq!(plain.owner(99), Some(&at("10.0.0.1", 7)));
        assert_eq!(plain.owner(100), Some(&at("seed", 8)), "the node that was asked");
        assert_eq!((plain.uncovered(), plain.nodes().count()), (0, 3));
        assert_eq!(plain.bare(), [at("seed", 8)]);
        let named = parse(&reply, &asked, true, None).unwrap();
        assert_eq!(named.masters(), [at("one.example", 7), at("seed", 8)]);
        assert_eq!(named.resolve(at("10.0.0.1", 7)), at("one.example", 7));
        assert_eq!(named.resolve(at("10.0.0.9", 7)), at("10.0.0.9", 7));
        let again = parse(&reply, &at("other", 8), false, Some(&plain)).unwrap();
        assert_eq!(again.masters(), plain.masters(), "its address is known already");
        let moved = plain.with_owner(0, &asked).unwrap();
        assert_eq!((moved.owner(0), moved.owner(1)), (Some(&asked), Some(&at("10.0.0.1", 7))));
        assert_eq!(moved.with_owner(0, &asked), None);
        assert_eq!(plain.with_owner(0, &at("stranger", 1)), None);
    }

    #[test]
    fn what_no_cluster_answers_is_no_topology() {
        let asked = at("seed", 8);
        for reply in [
            Value::Nil,
            Value::Array(vec![text("x")]),
            Value::Array(vec![range(9, 8, vec![node(text("h"), 7, Value::Nil)])]),
            Value::Array(vec![range(0, 16_384, vec![node(text("h"), 7, Value::Nil)])]),
            Value::Array(vec![range(0, 1, vec![])]),
        ] {
            assert_eq!(parse(&reply, &asked, false, None), None, "{reply:?}");
        }
        let empty = parse(&Value::Array(vec![]), &asked, false, None).unwrap();
        assert_eq!((empty.uncovered(), empty.owner(3)), (16_384, None));
        let unreachable = Value::Array(vec![range(0, 16_383, vec![node(text("h"), 0, Value::Array(vec![]))])]);
        assert_eq!(parse(&unreachable, &asked, false, None).unwrap().uncovered(), 16_384);
    }
}

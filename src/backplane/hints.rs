//! Hints to other nodes: which members of a conversation must learn that it has new messages. A node that holds
//! connections of such members gets one publication on a channel of its own, however many members and conversations it
//! concerns.

use std::{collections::HashMap, mem, sync::Arc};

use redis::Pipeline;

use super::{link::Link, mac::Macs, ops::Op, types::Hint, wire::Process};
use crate::model::NodeId;

/// Maximum number of users in one payload.
const USERS_PER_PAYLOAD: usize = 500;

/// Sends hints to other nodes.
pub(super) struct Hints {
    pub(super) link: Arc<Link>,
    pub(super) process: Process,
    pub(super) macs: Arc<Macs>,
}

impl Hints {
    /// Sends hints to other nodes, and returns those for this node. `nodes` are the nodes of each user of each hint, in
    /// order.
    pub(super) async fn send(&self, hints: Vec<Hint>, nodes: Vec<Vec<NodeId>>) -> Vec<Hint> {
        let mut by_node = by_node(hints, nodes);
        let here = by_node.remove(self.process.node()).unwrap_or_default();
        let Some(channels) = self.link.keys().channels() else { return here };
        let mut pipeline = Pipeline::new();
        for (node, hints) in by_node {
            let channel = channels.hints(&node);
            for payload in
                payloads(hints).iter().filter_map(|hints| self.process.encode_hints(hints, &channel, &self.macs))
            {
                channels.publish(&mut pipeline, &channel).arg(payload);
            }
        }
        if !pipeline.is_empty() {
            // Hints that are lost are not repeated: the next message brings others.
            let _ = self.link.run(Op::Hints, self.process.name(), &pipeline).await;
        }
        here
    }
}

/// The hints for each node.
fn by_node(hints: Vec<Hint>, nodes: Vec<Vec<NodeId>>) -> HashMap<NodeId, Vec<Hint>> {
    let (mut by_node, mut nodes) = (HashMap::<NodeId, Vec<Hint>>::new(), nodes.into_iter());
    for Hint { conversation, users } in hints {
        for (user, nodes) in users.into_iter().zip(nodes.by_ref()) {
            for node in nodes {
                let hints = by_node.entry(node).or_default();
                match hints.last_mut().filter(|last| last.conversation == conversation) {
                    Some(last) => last.users.push(user.clone()),
                    None => hints.push(Hint { conversation: conversation.clone(), users: vec![user.clone()] }),
                }
            }
        }
    }
    by_node
}

/// Splits hints into payloads.
fn payloads(hints: Vec<Hint>) -> Vec<Vec<Hint>> {
    let (mut payloads, mut payload, mut room) = (Vec::new(), Vec::new(), USERS_PER_PAYLOAD);
    for Hint { conversation, users } in hints {
        let mut users = &users[..];
        while !users.is_empty() {
            let (some, rest) = users.split_at(users.len().min(room));
            payload.push(Hint { conversation: conversation.clone(), users: some.to_vec() });
            (users, room) = (rest, room - some.len());
            if room == 0 {
                payloads.push(mem::take(&mut payload));
                room = USERS_PER_PAYLOAD;
            }
        }
    }
    payloads.extend((!payload.is_empty()).then_some(payload));
    payloads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConversationId, UserId};

    fn hint(conversation: &str, users: impl IntoIterator<Item = usize>) -> Hint {
        let users = users.into_iter().map(|at| UserId::parse(&format!("u{at}")).unwrap()).collect();
        Hint { conversation: ConversationId::parse(conversation).unwrap(), users }
    }

    #[test]
    fn each_node_gets_the_hints_of_its_users() {
        let node = |name: &str| NodeId::parse(name).unwrap();
        let hints = vec![hint("a", [0, 1]), hint("b", [2]), hint("c", [0])];
        let nodes = vec![vec![node("x"), node("y")], vec![], vec![node("y")], vec![node("x")]];
        let by_node = by_node(hints, nodes);
        assert_eq!(by_node[&node("x")], [hint("a", [0]), hint("c", [0])]);
        assert_eq!(by_node[&node("y")], [hint("a", [0]), hint("b", [2])]);
        assert_eq!(by_node.len(), 2);
    }

    #[test]
    fn payloads_have_a_maximum_number_of_users() {
        let payloads = payloads(vec![hint("a", 0..300), hint("b", 0..700), hint("c", 0..1)]);
        let sizes: Vec<Vec<usize>> =
            payloads.iter().map(|hints| hints.iter().map(|hint| hint.users.len()).collect()).collect();
        assert_eq!(sizes, [vec![300, 200], vec![500], vec![1]]);
        assert_eq!(payloads[2], [hint("c", 0..1)]);
    }
}

//! A batch of entries: which of them are repeats, whose acks wait, and the entries that it became.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::{Appended, NewEntry},
    types::Queued,
};
use crate::model::{Body, Entry, LogId, PendingAck};

/// The texts of a batch.
pub(super) fn contents(batch: &[Queued]) -> String {
    let text = |queued: &Queued| match &queued.entry.body {
        Body::Message { content, .. } => content.to_string(),
        _ => String::new(),
    };
    batch.iter().map(text).collect()
}

/// Returns the batch without repeated entries, and for each queued entry its index in that list. Cuts the batch before an
/// entry that reuses the id of another one for something else, and returns the rest: the store judges it once the first
/// one has its outcome.
pub(super) fn dedupe(batch: &mut Vec<Queued>) -> (Vec<NewEntry>, Vec<usize>, Vec<Queued>) {
    let mut entries: Vec<NewEntry> = Vec::with_capacity(batch.len());
    let mut index_of = HashMap::with_capacity(batch.len());
    let mut indices = Vec::with_capacity(batch.len());
    for Queued { entry, .. } in &*batch {
        let index = *index_of.entry((&entry.log, &entry.sender, &entry.dedupe)).or_insert(entries.len());
        match entries.get(index) {
            None => entries.push(entry.clone()),
            Some(known) if known.body == entry.body => {}
            Some(_) => break,
        }
        indices.push(index);
    }
    drop(index_of);
    let rest = batch.split_off(indices.len());
    (entries, indices, rest)
}

/// The acks that wait for entries of a batch, each under the index of its entry. The first command of an entry has it.
pub(super) fn origins(batch: &[Queued], indices: &[usize]) -> HashMap<usize, Arc<PendingAck>> {
    let mut origins = HashMap::new();
    for (queued, index) in batch.iter().zip(indices) {
        if let Some(ack) = &queued.origin {
            origins.entry(*index).or_insert_with(|| ack.clone());
        }
    }
    origins
}

/// The logs to which an append of `new` writes.
pub(super) fn written_logs(new: &NewEntry) -> impl Iterator<Item = LogId> + use<> {
    [new.log.clone()].into_iter().chain(inbox_of(new))
}

/// The inbox to which an append of `new` writes as well.
pub(super) fn inbox_of(new: &NewEntry) -> Option<LogId> {
    match &new.body {
        Body::MemberAdded { user } | Body::MemberRemoved { user } => Some(LogId::inbox(user)),
        _ => None,
    }
}

pub(super) fn entry(new: NewEntry, appended: &Appended) -> Entry {
    Entry {
        log: new.log,
        seq: appended.seq,
        message_no: appended.message_no,
        sender: new.sender,
        sender_name: new.sender_name,
        client_id: new.client_gave_id.then_some(new.dedupe),
        at: appended.at,
        body: new.body,
    }
}

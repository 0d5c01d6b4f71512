"""Compares what clients were promised with what they got: every acked message is in the log once, where its ack said,
and every listener got the log without a gap, a repetition or an exchange.

A transcript is what `load.py` writes: for each conversation

- `sent`: client_id → {"user", "number", "content"}, a user's numbers in the order of sending;
- `acks`: [client_id, seq] in the order of their arrival;
- `streams`: listener → [seq, kind, client_id, content] as they arrived, from the first entry on; the kind "ack"
  stands for the listener's own message, which brings no copy;
- `audits`: what was read at the end: {"where", "after", "resumed": [seq, kind, client_id, content],
  "history": [seq, client_id, content]}, the resume from `after` on and the history as a whole.

Beside the conversations it has `refused` and `problems`, sentences that are violations as they stand.
"""

from collections import Counter, defaultdict

ACK = "ack"


class Judge:
    """Collects violations of one conversation."""

    def __init__(self, name, record):
        self.name, self.record = name, record
        self.sent, self.acks = record["sent"], [tuple(ack) for ack in record["acks"]]
        self.found = []

    def violation(self, kind, client_id, seq, text):
        self.found.append({"kind": kind, "conversation": self.name, "client_id": client_id, "seq": seq, "text": text})

    def judge(self):
        self.promised = self.judge_acks()
        streams, audits = self.record["streams"], self.record["audits"]
        self.log, self.others = {}, set()
        for audit in audits:
            self.log |= {seq: client_id for seq, client_id, _ in audit["history"]}
            self.others |= {entry[0] for entry in audit["resumed"] if entry[1] != "message"}
        for stream in streams.values():
            self.others |= {entry[0] for entry in stream if entry[1] not in ("message", ACK)}
        self.head = max([0, *self.log, *self.others, *(seq for _, seq in self.acks)])
        for audit in audits:
            self.judge_history(audit)
            self.judge_resume(audit)
        for listener, stream in streams.items():
            self.judge_stream(f"listener {listener}", 0, stream)
        return self.found

    def judge_acks(self):
        """Repeated acks of one message name one seq, and no two messages have the same."""
        promised, owners = {}, {}
        for client_id, seq in self.acks:
            if promised.setdefault(client_id, seq) != seq:
                self.violation("doubled", client_id, seq, f"acked as seq {promised[client_id]} and again as seq {seq}")
            elif owners.setdefault(seq, client_id) != client_id:
                self.violation("moved", client_id, seq, f"acked as seq {seq}, which is also the ack of {owners[seq]}")
        for client_id in self.sent:
            if client_id not in promised:
                self.violation("unanswered", client_id, None, "never acked, though repeated until the end")
        return promised

    def judge_history(self, audit):
        where = f"the history ({audit['where']})"
        places = defaultdict(list)
        for seq, client_id, content in audit["history"]:
            places[client_id].append(seq)
            self.judge_content(where, seq, client_id, content)
        for client_id, seq in self.promised.items():
            match places.get(client_id, []):
                case []:
                    self.violation("lost", client_id, seq, f"acked as seq {seq}, not in {where}")
                case [only] if only != seq:
                    self.violation("moved", client_id, seq, f"acked as seq {seq}, but {only} in {where}")
                case [_, _, *_] as seqs:
                    self.violation("doubled", client_id, seq, f"{len(seqs)} times in {where}: seqs {seqs}")
        seqs = [entry[0] for entry in audit["history"]]
        for seq in (seq for seq, times in Counter(seqs).items() if times > 1):
            self.violation("doubled", self.log[seq], seq, f"seq {seq} comes twice in {where}")
        for seq in sorted(set(range(1, self.head + 1)) - set(seqs) - self.others):
            self.violation("gap", None, seq, f"seq {seq} of 1 to {self.head} is not in {where}")
        self.judge_senders(where, audit["history"])

    def judge_senders(self, where, history):
        """A user sends a message after the ack of the one before, so the log has a user's messages in that order."""
        newest = {}
        for seq, client_id, _ in sorted(history, key=lambda entry: entry[0]):
            if client_id in self.sent:
                user, number = self.sent[client_id]["user"], self.sent[client_id]["number"]
                if number < newest.get(user, (0,))[0]:
                    text = f"after {newest[user][1]} in {where}, though sent before it"
                    self.violation("order", client_id, seq, text)
                newest[user] = max(newest.get(user, (0, "")), (number, client_id))

    def judge_resume(self, audit):
        if audit["resumed"] or self.head > audit["after"]:
            self.judge_stream(f"the resume from {audit['after']} ({audit['where']})", audit["after"], audit["resumed"])

    def judge_stream(self, where, after, stream):
        """The entries from `after` on arrive one by one; what is skipped and never comes is lost."""
        got, newest = {}, after
        for seq, kind, client_id, content in stream:
            self.judge_place(where, seq, kind, client_id)
            if kind != ACK:
                self.judge_content(where, seq, client_id, content)
            if seq in got:
                # The ack may come after a copy of the message, never the other way round.
                if kind != ACK:
                    self.violation("doubled", client_id, seq, f"seq {seq} came to {where} again")
                continue
            got[seq] = client_id
            if seq <= after:
                self.violation("doubled", client_id, seq, f"seq {seq} came to {where}, which had it")
            elif seq < newest:
                self.violation("order", client_id, seq, f"seq {seq} came to {where} after seq {newest}")
            newest = max(newest, seq)
        owners = {seq: client_id for client_id, seq in self.promised.items()}
        for seq in sorted(set(range(after + 1, self.head + 1)) - set(got)):
            client_id = owners.get(seq) or self.log.get(seq)
            self.violation("lost", client_id, seq, f"seq {seq} never came to {where}")

    def judge_place(self, where, seq, kind, client_id):
        """An entry has the seq that its ack and the history name."""
        if kind in ("message", ACK) and client_id in self.promised and self.promised[client_id] != seq:
            text = f"acked as seq {self.promised[client_id]}, came to {where} as seq {seq}"
            self.violation("moved", client_id, seq, text)
        elif kind == "message" and self.log.get(seq, client_id) != client_id:
            text = f"came to {where} as seq {seq}, which is {self.log[seq]} in the history"
            self.violation("moved", client_id, seq, text)

    def judge_content(self, where, seq, client_id, content):
        if client_id is None:
            return
        if client_id not in self.sent:
            self.violation("strange", client_id, seq, f"in {where}, but nobody sent it")
        elif content != self.sent[client_id]["content"]:
            self.violation("changed", client_id, seq, f"has another text in {where}: {content!r}")


def verdict(transcript, most=50):
    """The verdict, with at most so many violations in words; the counts name all."""
    found, acked = [], 0
    for name, record in transcript["conversations"].items():
        found += Judge(name, record).judge()
        acked += len({client_id for client_id, _ in record["acks"]})
    for kind in ("refused", "problems"):
        found += [{"kind": kind, "text": text} for text in transcript.get(kind, [])]
    if not acked:
        found.append({"kind": "problems", "text": "no message was acked, so nothing was checked"})
    return {
        "verdict": "failed" if found else "ok",
        "acked": acked,
        "listeners": sum(len(record["streams"]) for record in transcript["conversations"].values()),
        "entries": sum(len(s) for record in transcript["conversations"].values() for s in record["streams"].values()),
        "counts": dict(Counter(violation["kind"] for violation in found)),
        "violations": found[:most],
    }

"""The load of scripts/cluster-check.sh over two real nodes that are disturbed, and its checks over a stand-in and over
transcripts in which something is wrong."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from cluster_check.node import FAULTS, node
from cluster_check.stores import SECRET, deployment, eventually
from conftest import ROOT, run

LOAD = ROOT / "scripts" / "cluster-check" / "load.py"


class Load:
    """A load that runs; `progress` waits for lines of it."""

    def __init__(self, process, log):
        self.process, self.log = process, log

    def least(self):
        """The smallest number of acks that any user has got."""
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        found = re.findall(r"least=(\d+)", self.log.read_text())
        return int(found[-1]) if found else -1

    def progress(self, what):
        """Waits until every user got two more acks: the second one is of a message that was sent after this call."""
        wanted = max(self.least(), 0) + 2
        eventually(f"acks after {what}", lambda: self.least() >= wanted, 45)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(50) in (0, 1), self.log.read_text()[-2000:]
        return json.loads(self.log.read_text().splitlines()[-1])


@contextmanager
def load(folder, urls, *more):
    log = folder / "load.log"
    words = [word for url in urls for word in ("--url", url)]
    with log.open("w") as out:
        command = [sys.executable, LOAD, *words, "--users", "8", "--conversations", "2", "--interval", "0.1", *more]
        process = subprocess.Popen(command, env=os.environ | {"JWT_SECRET": SECRET}, stdout=out, stderr=out)
    try:
        yield Load(process, log)
    finally:
        process.kill()
        process.wait()


def test_nothing_is_lost_while_a_node_and_the_stores_go_and_come_back(tmp_path):
    with deployment(tmp_path) as made, load(tmp_path, [each.url for each in made.nodes]) as running:
        running.progress("the start")
        made.nodes[0].kill()
        running.progress("the loss of a node")
        made.nodes[0].start()
        made.signal_redis(signal.SIGSTOP)
        running.progress("the loss of Redis")
        made.signal_redis(signal.SIGCONT)
        running.progress("the return of Redis")
        made.postgres.stop()
        made.postgres.start()
        running.progress("the return of PostgreSQL")
        made.nodes[1].process.terminate()
        assert made.nodes[1].process.wait(20) == 0
        made.nodes[1].start()
        running.progress("the end of the other node")
        found = running.end()
    assert (found["verdict"], found["violations"]) == ("ok", []), found
    assert found["acked"] > 80 and found["listeners"] == 8
    assert set(found["closes"]) & {"1006", "1012"}, found["closes"]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_server_does_wrong_is_named(fault, tmp_path):
    with node(fault) as server, load(tmp_path, [server.url], "--settle", "2") as running:
        running.progress("the start")
        running.progress("the fault")
        found = running.end()
    if fault == "none":
        assert (found["verdict"], found["violations"]) == ("ok", []), found
        return
    assert found["verdict"] == "failed" and running.process.returncode == 1
    named = [each for each in found["violations"] if each["kind"] == FAULTS[fault]]
    assert server.victim in [each["client_id"] for each in named], found["violations"]
    assert found["counts"][FAULTS[fault]] >= 1


def right():
    """A transcript without a fault: two users, three messages, the second one is an entry of another kind."""
    messages = (("a", 1), ("b", 1), ("a", 2))
    sent = {f"{user}-{n}": {"user": user, "number": n, "content": f"{user}-{n} said"} for user, n in messages}
    said = {seq: [seq, "message", name, sent[name]["content"]] for seq, name in ((1, "a-1"), (3, "b-1"), (4, "a-2"))}
    other = [2, "member_added", None, None]
    acks = [["a-1", 1], ["b-1", 3], ["a-2", 4]]
    streams = {
        "a": [[1, "ack", "a-1", None], other, said[3], [4, "ack", "a-2", None]],
        "b": [said[1], other, [3, "ack", "b-1", None], said[4]],
    }
    history = [[seq, name, content] for seq, _, name, content in said.values()]
    audit = {"where": "one", "after": 0, "resumed": [said[1], other, said[3], said[4]], "history": history}
    record = {"sent": sent, "acks": acks, "streams": streams, "audits": [audit]}
    return {"conversations": {"room": record}, "refused": [], "problems": []}


def judged(transcript, folder):
    path = folder / "transcript.json"
    path.write_text(json.dumps(transcript))
    done = run(sys.executable, LOAD, "--judge", path, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == (found["verdict"] != "ok"), done.stderr
    return {(each["kind"], each.get("client_id"), each["text"]) for each in found["violations"]}


def swap(entries, one, other):
    entries[one], entries[other] = entries[other], entries[one]


def renumber(room):
    """The log has a user's messages in another order than they were acked in, and the acks agree with it."""
    room["acks"] = [["a-2", 1], ["b-1", 3], ["a-1", 4]]
    for entries in (*room["streams"].values(), *(room["audits"][0][kind] for kind in ("resumed", "history"))):
        for entry in entries:
            if entry[0] in (1, 4):
                place = 1 if len(entry) == 3 else 2
                entry[place] = {1: "a-2", 4: "a-1"}[entry[0]]
                if entry[-1] is not None:
                    entry[-1] = f"{entry[place]} said"


DOCTORED = {
    "lost from the history": (
        lambda room: room["audits"][0]["history"].pop(),
        ("lost", "a-2", "acked as seq 4, not in the history (one)"),
    ),
    "lost by the resume": (
        lambda room: room["audits"][0]["resumed"].pop(),
        ("lost", "a-2", "seq 4 never came to the resume from 0 (one)"),
    ),
    "lost to a listener": (
        lambda room: room["streams"]["b"].pop(0),
        ("lost", "a-1", "seq 1 never came to listener b"),
    ),
    "doubled in the history": (
        lambda room: room["audits"][0]["history"].append([5, "b-1", "b-1 said"]),
        ("doubled", "b-1", "2 times in the history (one): seqs [3, 5]"),
    ),
    "doubled in a page": (
        lambda room: room["audits"][0]["history"].append([3, "b-1", "b-1 said"]),
        ("doubled", "b-1", "seq 3 comes twice in the history (one)"),
    ),
    "doubled to a listener": (
        lambda room: room["streams"]["a"].append(room["streams"]["a"][2]),
        ("doubled", "b-1", "seq 3 came to listener a again"),
    ),
    "two acks": (lambda room: room["acks"].append(["a-1", 5]), ("doubled", "a-1", "acked as seq 1 and again as seq 5")),
    "one ack for two": (
        lambda room: room["acks"].append(["a-3", 4]),
        ("moved", "a-3", "acked as seq 4, which is also the ack of a-2"),
    ),
    "swapped for a listener": (
        lambda room: swap(room["streams"]["a"], 2, 3),
        ("order", "b-1", "seq 3 came to listener a after seq 4"),
    ),
    "swapped by the resume": (
        lambda room: swap(room["audits"][0]["resumed"], 0, 1),
        ("order", "a-1", "seq 1 came to the resume from 0 (one) after seq 2"),
    ),
    "swapped in the log": (renumber, ("order", "a-1", "after a-2 in the history (one), though sent before it")),
    "a gap": (
        lambda room: room["audits"][0]["history"].append([6, "b-1", "b-1 said"]),
        ("gap", None, "seq 5 of 1 to 6 is not in the history (one)"),
    ),
    "another text": (
        lambda room: room["streams"]["b"][0].__setitem__(3, "hm"),
        ("changed", "a-1", "has another text in listener b: 'hm'"),
    ),
    "never acked": (
        lambda room: room["acks"].pop(),
        ("unanswered", "a-2", "never acked, though repeated until the end"),
    ),
    "never sent": (
        lambda room: room["sent"].pop("b-1"),
        ("strange", "b-1", "in the history (one), but nobody sent it"),
    ),
}


@pytest.mark.parametrize("what", DOCTORED)
def test_a_doctored_transcript_is_seen_through(what, tmp_path):
    change, expected = DOCTORED[what]
    transcript = copy.deepcopy(right())
    change(transcript["conversations"]["room"])
    assert expected in judged(transcript, tmp_path)


def test_a_right_transcript_passes(tmp_path):
    assert judged(right(), tmp_path) == set()


def test_an_ack_may_follow_a_copy_of_its_message(tmp_path):
    transcript = right()
    transcript["conversations"]["room"]["streams"]["a"].insert(0, [1, "message", "a-1", "a-1 said"])
    assert judged(transcript, tmp_path) == set()


def test_refusals_problems_and_silence_fail(tmp_path):
    transcript = right() | {"refused": ["a-9: not_member"], "problems": ["the epoch changed"]}
    expected = {("refused", None, "a-9: not_member"), ("problems", None, "the epoch changed")}
    assert judged(transcript, tmp_path) == expected
    nothing = {"conversations": {}, "refused": [], "problems": []}
    assert judged(nothing, tmp_path) == {("problems", None, "no message was acked, so nothing was checked")}

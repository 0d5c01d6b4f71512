"""Rules of the state machine that the shared vectors don't have: tokens, limits, chunks."""

from __future__ import annotations

import pytest

from switchboard_client import OutboxFull, TooManyConversations, limits
from switchboard_client.core import Drop, Save
from switchboard_client.model import ErrorInfo, Frame
from switchboard_client.requests import Lost

from .driver import Driver


def message(seq: int, conversation: str = "team", sender: str = "bob") -> Frame:
    """An entry."""
    return {
        "type": "message",
        "conversation_id": conversation,
        "seq": seq,
        "id": f"m{seq}",
        "sender_id": sender,
        "sender_name": sender.title(),
        "content": f"text {seq}",
        "created_at": "2026-01-01T00:00:00Z",
    }


def online_in(conversation: str, head: int = 0) -> Driver:
    """A client that listens to a conversation and has its (empty) page."""
    driver = Driver()
    driver.online()
    driver.machine.rooms.open(conversation)
    driver.run()
    [join] = driver.take_sent("join")
    driver.receive({"type": "joined", "ref": join["ref"], "conversation_id": conversation, "head": head})
    [history] = driver.take_sent("history")
    driver.receive(
        {
            "type": "history",
            "ref": history["ref"],
            "conversation_id": conversation,
            "messages": [],
            "total": 0,
            "as_of": head,
        }
    )
    return driver


def test_a_closed_chat_stays_closed() -> None:
    """No timer brings it back, and a late close of its socket neither."""
    driver = online_in("team")
    socket = driver.socket
    driver.machine.stop()
    driver.run()
    assert socket is not None
    driver.machine.closed(socket, 1006, "")
    driver.machine.session.silence()
    driver.run()
    driver.advance(10 * 60_000)
    assert driver.machine.core.phase == "closed" and not driver.asking


def test_a_token_that_does_not_come() -> None:
    """The question ends, and is asked again after a pause. The driver checks that there is never a second one."""
    driver = Driver()
    driver.machine.connect()
    driver.run()
    assert driver.asking
    driver.advance(limits.TOKEN_TIMEOUT_MS)
    assert driver.machine.core.phase == "waiting" and not driver.asking
    driver.advance(limits.PAUSE_MAX_MS)
    assert driver.machine.core.phase == "connecting" and driver.asking


def test_the_pauses_grow_and_have_a_jitter() -> None:
    """From 1 s to 30 s; a server that comes back does not get all its clients at one moment."""
    pauses = [[Driver(seed).machine.core.pause(tries) for tries in range(8)] for seed in range(20)]
    for tries, longest in enumerate([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]):
        column = [one[tries] for one in pauses]
        assert len(set(column)) > 10
        assert longest // 2 <= min(column) <= max(column) <= longest


def test_the_advice_of_a_refused_handshake() -> None:
    """HTTP has it in Retry-After."""
    driver = Driver()
    driver.machine.connect()
    driver.run()
    driver.token()
    assert driver.socket is not None
    driver.machine.closed(driver.socket, 1006, "HTTP 503", 7_000)
    driver.run()
    phases = []
    for ms in (6_999, 1):
        driver.advance(ms)
        phases.append(driver.machine.core.phase)
    assert phases == ["waiting", "connecting"]


def test_a_second_invalid_token_ends_the_session() -> None:
    """The first one asks for another token at once. A late one of an expired token asks again and again."""
    for reason, phase in (("Invalid token", "closed"), ("Token expired", "waiting")):
        driver = Driver()
        driver.machine.connect()
        driver.run()
        for _ in range(2):
            driver.token()
            driver.close(4401, reason)
            driver.advance(0)
        assert driver.machine.core.phase == phase


def test_a_server_that_is_silent() -> None:
    """A ping without an answer ends the socket."""
    driver = online_in("team")
    driver.advance(limits.PING_MS)
    assert [one["type"] for one in driver.sent] == ["ping"]
    driver.receive({"type": "pong"})
    driver.advance(limits.PONG_MS)
    assert driver.machine.core.online
    driver.advance(limits.PING_MS + limits.PONG_MS)
    assert not driver.machine.core.online


def test_the_outbox_has_a_bound() -> None:
    """An application that writes without end is told."""
    driver = Driver()
    for number in range(limits.MAX_OUTBOX):
        driver.machine.command({"type": "send", "conversation_id": "team", "content": "x", "client_id": f"c{number}"})
    with pytest.raises(OutboxFull):
        driver.machine.command({"type": "send", "conversation_id": "team", "content": "x", "client_id": "more"})


def test_sync_comes_in_chunks_and_open_conversations_have_a_bound() -> None:
    """The longest ids fit into one frame."""
    driver = Driver()
    for number in range(limits.MAX_OPEN):
        driver.machine.rooms.open(f"{number:0128}", since=10**15)
    with pytest.raises(TooManyConversations):
        driver.machine.rooms.open("more")
    driver.online()
    frames = driver.take_sent("sync")
    assert [len(one["conversations"]) for one in frames] == [limits.SYNC_CHUNK, limits.MAX_OPEN - limits.SYNC_CHUNK]
    assert max(len(repr(one)) for one in frames) < 64 * 1_024


def test_a_cursor_of_another_epoch_is_not_used() -> None:
    """Its seqs may belong to other entries now."""
    driver = Driver()
    driver.machine.rooms.open("team", since=7, epoch=1)
    driver.online(epoch=2)
    assert [one["type"] for one in driver.take_sent("sync", "join")] == ["join"]


def test_a_user_who_is_removed_and_added_again() -> None:
    """What was said meanwhile is read from the cursor."""
    driver = online_in("team")
    driver.receive(message(1))
    driver.receive({"type": "left", "conversation_id": "team"})
    assert [one.kind for one in driver.changes] == ["reset", "message", "left"]
    error = driver.machine.error("team")
    assert error is not None and error.code == "not_member"
    driver.receive({"type": "joined", "conversation_id": "team", "head": 4})
    [sync] = driver.take_sent("sync")
    assert sync["conversations"] == {"team": 1}
    driver.receive({"type": "synced", "ref": sync["ref"], "conversations": [{"conversation_id": "team", "head": 4}]})
    assert driver.machine.error("team") is None


def test_a_refused_conversation_is_tried_again_on_the_next_socket() -> None:
    """But the application is told once, and other conversations are not concerned."""
    driver = Driver()
    driver.machine.rooms.open("team", since=1)
    driver.machine.rooms.open("secret", since=1)
    for _ in range(2):
        driver.online()
        [sync] = driver.take_sent("sync")
        assert sync["conversations"] == {"team": 1, "secret": 1}
        refusal = {"code": "not_member", "message": "Not a member", "retryable": False}
        answers = [{"conversation_id": "team", "head": 1}, {"conversation_id": "secret", "error": refusal}]
        driver.receive({"type": "synced", "ref": sync["ref"], "conversations": answers})
        driver.close()
    assert [one.conversation_id for one in driver.changes if one.kind == "left"] == ["secret"]


def test_heavy_reads_wait_for_their_turn() -> None:
    """The server refuses a user who asks for too many at a time."""
    driver = Driver()
    driver.online()
    for number in range(10):
        driver.machine.request({"type": "search", "words": "tea"}, number)
    driver.run()
    first = driver.take_sent("search")
    assert len(first) == limits.HEAVY_AT_ONCE
    driver.receive({"type": "found", "ref": first[0]["ref"], "messages": []})
    assert len(driver.take_sent("search")) == 1


def test_requests_after_a_lost_connection() -> None:
    """A read is repeated. An event is not, because a repeat would be a second event."""
    driver = Driver()
    driver.online()
    driver.machine.request({"type": "presence", "user_ids": []}, 1)
    driver.machine.request({"type": "event", "conversation_id": "team", "name": "x"}, 2, Lost.FAIL)
    driver.run()
    driver.close()
    failure = driver.settled[2]
    assert isinstance(failure, ErrorInfo) and failure.code == "connection_lost"
    driver.online()
    [presence] = driver.take_sent("presence", "event")
    driver.receive({"type": "presence_list", "ref": presence["ref"], "users": [1], "more": True})
    driver.receive({"type": "presence_list", "ref": presence["ref"], "users": [2]})
    assert driver.settled[1] == {"type": "presence_list", "ref": presence["ref"], "users": [1, 2]}


def test_a_gap_that_no_sync_closes() -> None:
    """After two attempts the newest page is read."""
    driver = online_in("team")
    driver.receive(message(2))
    for _ in range(limits.GAP_TRIES):
        driver.advance(limits.GAP_MS)
        [sync] = driver.take_sent("sync", "join")
        assert sync["conversations"] == {"team": 0}
        driver.receive(
            {"type": "synced", "ref": sync["ref"], "conversations": [{"conversation_id": "team", "head": 2}]}
        )
    driver.advance(limits.GAP_MS)
    [join] = driver.take_sent("sync", "join")
    driver.receive({"type": "joined", "ref": join["ref"], "conversation_id": "team", "head": 2})
    [history] = driver.take_sent("history")
    assert "before_seq" not in history
    room = driver.machine.rooms.get("team")
    assert room.log.cursor == 2 and not room.log.has_gap


def test_a_long_conversation_keeps_a_bounded_list() -> None:
    """What was cut off comes again with older pages."""
    driver = online_in("team")
    for seq in range(1, 3 * limits.KEEP_MESSAGES):
        driver.receive(message(seq))
    log = driver.machine.rooms.get("team").log
    assert limits.KEEP_MESSAGES <= len(log.messages) <= limits.KEEP_MESSAGES + limits.PAGE
    driver.machine.rooms.load_older("team", 1)
    driver.run()
    [history] = driver.take_sent("history")
    assert history["before_seq"] == log.messages[0].seq


def test_entries_behind_a_gap_are_bounded() -> None:
    """The server sends again what did not fit."""
    driver = online_in("team")
    for seq in range(2, 3 * limits.MAX_HELD):
        driver.receive(message(seq))
    log = driver.machine.rooms.get("team").log
    assert len(log.held) == limits.MAX_HELD and log.cursor == 0
    driver.advance(limits.GAP_MS)
    [sync] = driver.take_sent("sync")
    driver.receive(
        {
            "type": "synced",
            "ref": sync["ref"],
            "conversations": [{"conversation_id": "team", "head": 3 * limits.MAX_HELD - 1}],
        }
    )
    for seq in range(1, 3 * limits.MAX_HELD):
        driver.receive(message(seq))
    assert log.cursor == 3 * limits.MAX_HELD - 1
    told = [one.frame["seq"] for one in driver.changes if one.kind == "message" and one.frame]
    assert told == list(range(1, 3 * limits.MAX_HELD))


def test_a_frame_that_is_too_large_is_not_sent_again() -> None:
    """It would end each socket."""
    driver = Driver()
    driver.online()
    for name, length in (("team", 10), ("lunch", 100_000)):
        driver.machine.command({"type": "send", "conversation_id": name, "content": "x" * length, "client_id": name})
    driver.run()
    driver.close(1009, "Message too large")
    driver.online()
    assert [one["client_id"] for one in driver.take_sent("send")] == ["team"]
    assert driver.machine.messages("lunch")[0].status == "failed"


def test_followed_conversations_give_up_their_places_without_loss() -> None:
    """A bot in more conversations than it may have open keeps its cursor in the others."""
    driver = Driver(follow=True)
    driver.online()
    for number in range(limits.MAX_OPEN + 1):
        driver.receive({"type": "joined", "conversation_id": f"c{number}", "head": 5})
        driver.receive(message(6, f"c{number}"))
    assert driver.machine.rooms.get("c0").opened is False
    driver.sent.clear()
    # Entry 7 came while another conversation had its place.
    driver.receive(message(8, "c0"))
    driver.advance(limits.GAP_MS)
    [sync] = driver.take_sent("sync")
    assert sync["conversations"] == {"c0": 6}


def test_a_conversation_that_is_left_and_opened_again() -> None:
    """The answer to `leave` comes after the new join was sent. It is no removal."""
    driver = online_in("team")
    driver.machine.rooms.leave("team")
    driver.machine.rooms.open("team")
    driver.run()
    leave, join = (one for one in driver.sent if one["type"] in ("leave", "join"))
    driver.receive({"type": "left", "ref": leave["ref"], "conversation_id": "team"})
    driver.receive({"type": "joined", "ref": join["ref"], "conversation_id": "team", "head": 3})
    assert driver.machine.error("team") is None
    assert driver.machine.rooms.get("team").log.cursor == 3


def test_a_conversation_that_is_not_open_shows_only_own_messages() -> None:
    """The server may have joined it by itself."""
    driver = Driver()
    driver.online()
    driver.machine.command({"type": "send", "conversation_id": "team", "content": "x", "client_id": "c1"})
    driver.run()
    driver.receive(message(1))
    ack = {"type": "ack", "client_id": "c1", "conversation_id": "team", "seq": 2, "id": "m2", "created_at": "…"}
    driver.receive(ack)
    assert [one.seq for one in driver.machine.messages("team")] == [2]


def test_edits_of_another_epoch_are_refused() -> None:
    """Their seqs may belong to other messages now."""
    driver = Driver()
    driver.online(epoch=1)
    driver.close()
    driver.machine.command({"type": "delete", "conversation_id": "team", "seq": 3, "client_id": "c1"})
    driver.run()
    driver.online(epoch=2)
    assert driver.take_sent("delete") == []
    assert isinstance(driver.settled["c1"], ErrorInfo) and not driver.stored


def test_an_edit_is_stored_with_its_seq_before_its_message_is_dropped() -> None:
    """A process that ends in between could not say which message the edit is about."""
    driver = Driver()
    driver.online()
    driver.machine.command({"type": "send", "conversation_id": "team", "content": "x", "client_id": "c1"})
    driver.machine.command({"type": "edit", "conversation_id": "team", "content": "y", "client_id": "c2"}, "c1")
    driver.run()
    assert driver.socket is not None
    ack = {"type": "ack", "client_id": "c1", "conversation_id": "team", "seq": 7, "id": "m7", "created_at": "…"}
    driver.machine.frame(driver.socket, ack)
    stores = [one for one in driver.machine.take() if isinstance(one, Save | Drop)]
    assert isinstance(stores[0], Save) and stores[0].command.frame["seq"] == 7
    assert stores[1] == Drop("c1")


def test_commands_belong_to_their_user() -> None:
    """Another user who connects with the same storage does not send them."""
    driver = Driver()
    driver.online()
    driver.close()
    driver.machine.command({"type": "send", "conversation_id": "team", "content": "x", "client_id": "c1"})
    driver.run()
    driver.online(user="bob")
    assert driver.take_sent("send") == [] and list(driver.stored) == ["c1"]
    driver.close()
    driver.online(user="alice")
    assert [one["client_id"] for one in driver.take_sent("send")] == ["c1"]

"""A model of the server for one conversation: a log, and sockets to which it sends in an order that a test chooses."""

from __future__ import annotations

import copy
from typing import Any

from switchboard_client.model import Frame


def created_at(seq: int) -> str:
    """The time of an entry."""
    return f"2026-01-01T00:{seq // 60:02}:{seq % 60:02}.000000Z"


class ModelLog:
    """Stores commands as the server does, and shows what its history would show."""

    def __init__(self) -> None:
        self.entries: list[Frame] = []
        self.acks: dict[tuple[str, str], Frame] = {}

    @property
    def head(self) -> int:
        """The newest seq."""
        return len(self.entries)

    def store(self, user: str, command: Frame) -> Frame:
        """The ack of a command, or an `ok`, or an `error`. A repeat is stored once."""
        key = (user, str(command["client_id"]))
        if key in self.acks:
            return {**self.acks[key], "duplicate": True} if self.acks[key]["type"] == "ack" else self.acks[key]
        answer = self._store(user, command)
        self.acks[key] = answer
        return answer

    def _store(self, user: str, command: Frame) -> Frame:
        client_id = command["client_id"]
        seq = self.head + 1
        entry: Frame = {"conversation_id": "team", "seq": seq, "sender_id": user, "created_at": created_at(seq)}
        if command["type"] == "send":
            entry |= {
                "type": "message",
                "id": f"m{seq}",
                "sender_name": user.title(),
                "content": command["content"],
                "client_id": client_id,
            }
            if "reply_to" in command:
                entry["reply_to"] = command["reply_to"]
        else:
            target = self.entries[command["seq"] - 1]
            if target["type"] != "message":
                return {"type": "error", "code": "not_found", "message": "", "retryable": False, "client_id": client_id}
            entry |= {"target_seq": target["seq"], "target_id": target["id"]}
            if command["type"] == "react":
                if self.reacted(user, target["seq"], command["emoji"]) == command["active"]:
                    return {"type": "ok", "client_id": client_id}
                entry |= {"type": "reaction", "emoji": command["emoji"], "active": command["active"]}
            elif command["type"] == "edit":
                entry |= {"type": "message_edited", "content": command["content"]}
            else:
                entry |= {"type": "message_deleted"}
        self.entries.append(entry)
        return {
            "type": "ack",
            "client_id": client_id,
            "conversation_id": "team",
            "seq": seq,
            "id": f"m{seq}",
            "created_at": entry["created_at"],
        }

    def reacted(self, user: str, seq: int, emoji: str) -> bool:
        """Whether a reaction of the user stands."""
        stands = False
        for entry in self.entries:
            if entry.get("target_seq") == seq and entry["type"] == "message_deleted":
                stands = False
            if (
                entry.get("target_seq") == seq
                and entry["type"] == "reaction"
                and (entry["sender_id"], entry["emoji"]) == (user, emoji)
            ):
                stands = entry["active"]
        return stands

    def shown(self, user: str) -> list[dict[str, Any]]:
        """The messages after all entries, as a page of history shows them."""
        messages: dict[int, dict[str, Any]] = {}
        users: dict[int, dict[str, list[str]]] = {}
        for entry in self.entries:
            seq = entry["seq"]
            if entry["type"] == "message":
                messages[seq] = {key: value for key, value in entry.items() if key != "type"}
                users[seq] = {}
                if entry.get("reply_to") in messages:
                    target = messages[entry["reply_to"]]
                    target["replies"] = target.get("replies", 0) + 1
                continue
            target = messages[entry["target_seq"]]
            if entry["type"] == "message_deleted":
                target |= {"content": "", "deleted": True}
                users[target["seq"]].clear()
            elif target.get("deleted"):
                continue
            elif entry["type"] == "message_edited":
                target |= {"content": entry["content"], "edited_at": entry["created_at"]}
            else:
                givers = users[target["seq"]].setdefault(entry["emoji"], [])
                (givers.append if entry["active"] else givers.remove)(entry["sender_id"])
        for seq, message in messages.items():
            if given := [
                {"emoji": emoji, "count": len(one), "own": user in one} for emoji, one in users[seq].items() if one
            ]:
                message["reactions"] = given
        return list(messages.values())

    def page(self, user: str, request: Frame) -> Frame:
        """The answer to a `history`."""
        messages = self.shown(user)[::-1]
        if "before_seq" in request:
            messages = [one for one in messages if one["seq"] < request["before_seq"]]
        page: Frame = {
            "type": "history",
            "ref": request["ref"],
            "conversation_id": "team",
            "total": len(messages),
            "as_of": self.head,
        }
        page["messages"] = copy.deepcopy(messages[: request["limit"]])
        if len(messages) > request["limit"]:
            page["next_before_seq"] = page["messages"][-1]["seq"]
        return page

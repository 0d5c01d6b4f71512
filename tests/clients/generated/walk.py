"""What a Python client of openapi-python-client does with a node: the document makes it, the run checks the node."""

import os
from datetime import datetime, timezone

from switchboard_client import AuthenticatedClient
from switchboard_client.api.conversations import create_conversation, list_conversations, show_conversation
from switchboard_client.api.health import health
from switchboard_client.api.members import add_members
from switchboard_client.api.messages import edit_message, react, send_message
from switchboard_client.api.presence import list_online, show_online
from switchboard_client.api.reading import list_messages, mark_read, search
from switchboard_client.models import (
    AddMembersBody,
    Conversation,
    CreateConversationBody,
    EditMessageBody,
    MarkReadBody,
    Problem,
    ProblemCode,
    SendMessageBody,
    Status,
    Stored,
    Verdict,
)


def api(user):
    return AuthenticatedClient(base_url=os.environ["SWITCHBOARD_URL"], token=os.environ[f"TOKEN_{user}"])


alice, bob, carol = api("ALICE"), api("BOB"), api("CAROL")

made = create_conversation.sync(client=alice, body=CreateConversationBody(name="Typed", is_group=True, participant_ids=["bob"]))
assert isinstance(made, Conversation) and made.description is None and not made.open_, made
assert made.created_at.tzinfo is not None and made.created_at <= datetime.now(timezone.utc), made.created_at
members = add_members.sync(made.id, client=alice, body=AddMembersBody(user_ids=["carol"]))
assert "carol" in [user.id for user in members.users], members

body = SendMessageBody(content=" hello", client_id="typed-1", reply_to=None)
sent = send_message.sync(made.id, client=alice, body=body)
assert isinstance(sent, Stored) and sent.client_id == "typed-1" and isinstance(sent.created_at, datetime), sent
again = send_message.sync_detailed(made.id, client=alice, body=body)
assert again.status_code == 200 and again.parsed.seq == sent.seq, again
reply = send_message.sync(made.id, client=bob, body=SendMessageBody(content="a reply", reply_to=str(sent.id)))
assert reply.client_id is None, reply
edit_message.sync(made.id, str(sent.seq), client=alice, body=EditMessageBody(content="hello all"))
assert react.sync_detailed(made.id, str(sent.seq), "👍", client=bob).status_code == 204

history = list_messages.sync(made.id, client=bob, limit=10)
found = next(message for message in history.messages if message.id == sent.id)
assert found.is_edited and found.content == "hello all" and found.reply_count == 1 and found.reply_to is None, found
assert (found.reactions[0].emoji, found.reactions[0].own) == ("👍", True), found
assert [message.reply_to for message in history.messages if message.id == reply.id] == [sent.seq], history
assert sent.id in [message.id for message in search.sync(client=bob, q="hello").messages]

listed = next(one for one in list_conversations.sync(client=carol, archived=False).conversations if one.id == made.id)
assert listed.unread_count == 2, listed
marks = mark_read.sync(client=carol, body=MarkReadBody(conversation_id=made.id, up_to_seq=reply.seq))
assert marks.read_seq == reply.seq, marks
assert list_online.sync(client=carol).next_ is None
seen = show_online.sync("nobody", client=carol)
assert seen.last_seen is None and seen.status is Status.ONLINE, seen
assert health.sync(client=carol).status is Verdict.HEALTHY

refused = show_conversation.sync_detailed(made.id, client=api("MALLORY"))
assert refused.status_code == 403 and isinstance(refused.parsed, Problem), refused
assert refused.parsed.code is ProblemCode.NOT_MEMBER and refused.parsed.detail, refused
print("the walk holds")

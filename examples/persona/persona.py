"""A persona: a program that answers messages sent with `persona_id`. This one, "echo", repeats them. Python alone.

    export PERSONA_WEBHOOK_SECRET=$(openssl rand -hex 32)
    python examples/persona/persona.py &
    PERSONA_WEBHOOK_URL=http://127.0.0.1:9000/ PERSONA_IDS=echo switchboard dev

Then send {"type": "send", "conversation_id": "lobby", "content": "hello", "persona_id": "echo"} on /v1/ws.
PORT names another port. What is posted and what may be answered: docs/protocol/webhooks.md.
"""

import hashlib
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["PERSONA_WEBHOOK_SECRET"].encode()
MAX_BODY_BYTES = 1 << 20
MAX_CHARACTERS = 5000  # of a message


def is_genuine(signature: str, body: bytes) -> bool:
    """Whether our node signed this body, within the last five minutes. Compared before the body is parsed."""
    sent, _, given = signature.removeprefix("t=").partition(",v1=")
    expected = hmac.new(SECRET, sent.encode() + b"." + body, hashlib.sha256).hexdigest()
    return sent.isdecimal() and abs(time.time() - int(sent)) < 300 and hmac.compare_digest(expected.encode(), given.encode())


def answer(asked: dict) -> str:
    """The persona's words. `asked["history"]` has the messages before, for a language model to read."""
    return f"{asked['sender_name']} said: {asked['message']}"


class Persona(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY_BYTES:
            return self.send_error(413)
        body = self.rfile.read(length)
        if not is_genuine(self.headers.get("X-Switchboard-Signature", ""), body):
            return self.send_error(401)
        asked = json.loads(body)
        # Clients choose the persona_id: a name that is not ours stays silent.
        if asked["persona_id"] != "echo":
            return self.send_error(404)
        text = json.dumps({"content": answer(asked)[:MAX_CHARACTERS]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Persona)
print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()

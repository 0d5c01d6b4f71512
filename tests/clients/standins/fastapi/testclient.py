"""A TestClient whose application is the node at SWITCHBOARD_URL."""

import json
import os

from websockets.sync.client import connect

DEADLINE = 20


class TestClient:
    __test__ = False  # not a test, whatever its name

    def __init__(self, app):
        self.app = app

    def websocket_connect(self, path):
        return Session(os.environ["SWITCHBOARD_URL"] + path)


class Session:
    def __init__(self, url):
        self.url = url

    def __enter__(self):
        self.socket = connect(self.url, open_timeout=DEADLINE)
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_json(self, data):
        self.socket.send(json.dumps(data))

    def receive_json(self):
        return json.loads(self.socket.recv(timeout=DEADLINE))

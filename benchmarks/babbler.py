"""A kernel that says anything: which cell it executes is the seed of what it sends, right and wrong.

It speaks the protocol by hand, so that it can break all its rules: signatures, frames, parents, types, order.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import sys
import uuid
from collections.abc import Callable
from typing import Any

import zmq

KINDS = (
    *("stream", "display_data", "update_display_data", "execute_result", "error", "clear_output", "status"),
    *("execute_input", "comm_open", "comm_msg", "comm_close", "execute_reply", "input_request", "nonsense"),
)
FIELDS = (
    *(
        "name",
        "text",
        "data",
        "metadata",
        "transient",
        "execution_state",
        "execution_count",
        "ename",
        "evalue",
    ),
    *("traceback", "wait", "comm_id", "target_name", "status", "payload", "user_expressions", "code"),
)
PORTS = {"shell": zmq.ROUTER, "iopub": zmq.PUB, "stdin": zmq.ROUTER, "control": zmq.ROUTER, "hb": zmq.REP}
#: What the right message of a kind says.
RIGHT: dict[str, dict[str, Any]] = {
    "stream": {"name": "stdout", "text": "said\n"},
    "display_data": {"data": {"text/plain": "1"}, "metadata": {}, "transient": {"display_id": "d"}},
    "update_display_data": {"data": {"text/plain": "2"}, "metadata": {}, "transient": {"display_id": "d"}},
    "execute_result": {"data": {"text/plain": "3"}, "metadata": {}, "execution_count": 1},
    "error": {"ename": "E", "evalue": "e", "traceback": ["E: e"]},
    "status": {"execution_state": "busy"},
    "execute_reply": {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}},
    "comm_open": {"comm_id": "c", "target_name": "jupyter.widget", "data": {"state": {"a": 1}}},
    "comm_msg": {"comm_id": "c", "data": {"state": {"a": 2}}},
}


def anything(chance: random.Random, depth: int = 0) -> Any:
    """Make a value of JSON, or what some libraries take for one."""
    simple: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: chance.choice((True, False)),
        lambda: chance.choice((0, -1, 10**400, 1.5, float("nan"), float("inf"))),
        lambda: chance.choice(("", "a", "\0", "\udcc3", "\ud800", "idle", "x" * 3000, "\x1b[31m")),
    )
    if depth > 3 or chance.random() < 0.6:
        return chance.choice(simple)()
    if chance.random() < 0.3:
        return [anything(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(FIELDS): anything(chance, depth + 1) for _ in range(chance.randrange(4))}


class Babbler:
    """The kernel."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.key = info["key"].encode()
        self.session = uuid.uuid4().hex
        self.number = 0
        context = zmq.Context()
        self.sockets = {name: context.socket(kind) for name, kind in PORTS.items()}
        for name, socket in self.sockets.items():
            socket.linger = 1000
            socket.bind(f"tcp://{info['ip']}:{info[name + '_port']}")

    def frames(self, kind: str, content: Any, parent: Any) -> list[bytes]:
        """Write a message as it should be."""
        self.number += 1
        header = {"msg_id": f"{self.session}_1_{self.number}", "msg_type": kind, "session": self.session}
        header |= {"username": "b", "date": "2026-01-01T00:00:00Z", "version": "5.3"}
        return self.sign([_dump(part) for part in (header, parent, {}, content)])

    def sign(self, parts: list[bytes]) -> list[bytes]:
        """Put the signature before the parts of a message."""
        signature = hmac.new(self.key, b"".join(parts[:4]), hashlib.sha256).hexdigest().encode()
        return [b"<IDS|MSG>", signature, *parts]

    def spoilt(self, chance: random.Random, parent: Any) -> list[bytes]:
        """Write a message as it should not be, or as it should, but not now."""
        kind = chance.choice(KINDS)
        content: Any = dict(RIGHT.get(kind, {}))
        for _ in range(chance.randrange(3)):
            content[chance.choice(FIELDS)] = anything(chance)
        if chance.random() < 0.1:
            content = anything(chance)
        if chance.random() < 0.2:
            parent = chance.choice((None, {}, {"msg_id": anything(chance)}, anything(chance)))
        frames = self.frames(kind, content, parent)
        deed = chance.randrange(12)
        if deed == 0:
            frames[1] = chance.choice((b"", b"bad", b"0" * 64))
        elif deed == 1:
            frames = frames[: chance.randrange(1, len(frames))]
        elif deed == 2:
            frames[chance.randrange(len(frames))] = chance.choice((b"", b"{", b"\xff", b"null", b"[" * 5000))
        elif deed == 3:
            header = {"msg_id": anything(chance), "msg_type": anything(chance), "date": anything(chance)}
            frames = self.sign([_dump(header), *frames[3:]])
        elif deed == 4:
            frames = self.sign([b"null", b"null", b"null", b"null"])
        elif deed == 5:
            frames.append(b"a buffer")
        return frames

    def execute(self, ident: list[bytes], asked: dict[str, Any], code: str) -> None:
        """Answer an execute request in the way that its seed says."""
        chance = random.Random(code)
        topic = [chance.choice((b"stream.stdout", b"kernel.x.status", b"x"))]
        says: list[tuple[str, list[bytes]]] = [
            ("iopub", topic + self.frames("status", {"execution_state": "busy"}, asked))
        ]
        for _ in range(chance.randrange(12)):
            channel = chance.choice(("iopub", "iopub", "iopub", "iopub", "shell", "stdin"))
            says.append((channel, (topic if channel == "iopub" else ident) + self.spoilt(chance, asked)))
        if chance.random() < 0.9:
            error = {"status": "error", "ename": "E", "evalue": "e", "traceback": []}
            reply = RIGHT["execute_reply"] if chance.random() < 0.7 else error
            says.append(("shell", ident + self.frames("execute_reply", reply, asked)))
        if chance.random() < 0.9:
            says.append(("iopub", topic + self.frames("status", {"execution_state": "idle"}, asked)))
        if chance.random() < 0.2:
            chance.shuffle(says)
        for channel, frames in says:
            for _ in range(1 + (chance.random() < 0.1)):
                self.sockets[channel].send_multipart(frames)
        if chance.random() < 0.05:
            sys.exit(chance.randrange(3))

    def run(self) -> None:
        """Answer requests until it is told to end, or wants to."""
        poller = zmq.Poller()
        for name in ("shell", "control", "hb"):
            poller.register(self.sockets[name], zmq.POLLIN)
        while True:
            for socket, _ in poller.poll():
                frames = socket.recv_multipart()
                if socket is self.sockets["hb"]:
                    socket.send_multipart(frames)
                    continue
                at = frames.index(b"<IDS|MSG>")
                asked, content = json.loads(frames[at + 2]), json.loads(frames[at + 5])
                self.answer(socket, frames[:at], asked, content)

    def answer(self, socket: Any, ident: list[bytes], asked: dict[str, Any], content: Any) -> None:
        """Answer one request."""
        kind = asked["msg_type"]
        if kind == "shutdown_request":
            sys.exit(0)
        if kind == "execute_request" and content["code"].strip():
            self.execute(ident, asked, content["code"])
            return
        for state in ("busy", "idle"):
            if state == "idle":
                said = {"status": "ok", "language_info": {"name": "babble"}, "protocol_version": "5.3"}
                reply = kind.replace("_request", "_reply")
                socket.send_multipart(ident + self.frames(reply, said, asked))
            frames = self.frames("status", {"execution_state": state}, asked)
            self.sockets["iopub"].send_multipart([b"kernel.x.status", *frames])


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123
        Babbler(json.load(file)).run()

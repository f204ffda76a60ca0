# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""SecantusDB with mongod's options and what an administrator of MongoDB does. It is NOT mongod.

A server that was started with --replSet is no primary, and refuses to write, until replSetInitiate. The data has a
feature compatibility version, which setFeatureCompatibilityVersion changes, and servers refuse data as mongod does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from secantus import commands
from secantus.server import SecantusDBServer

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]
VERSION = os.environ.get("MONGO_VERSION", commands.SERVER_VERSION)
SERIES = tuple(int(part) for part in VERSION.split(".")[:2])
MAJOR_BEFORE = (SERIES[0], 0) if SERIES[1] else (SERIES[0] - 1, 0)
ENDS = {signal.SIGTERM, signal.SIGINT}
NOT_STARTED = 62  # what mongod exits with when the data is of another version
WRITES = {
    "insert", "update", "delete", "findAndModify", "findandmodify", "create", "drop", "dropDatabase", "createIndexes",
    "createUser", "updateUser", "dropUser", "grantRolesToUser", "revokeRolesFromUser", "createRole",
    "setFeatureCompatibilityVersion",
}  # fmt: skip


def refused(code: int, name: str, told: str) -> dict[str, Any]:
    """The answer to a command that failed."""
    return {"ok": 0.0, "errmsg": told, "code": code, "codeName": name}


def die(code: int, told: str) -> NoReturn:
    """End before the server was there."""
    print(told, file=sys.stderr, flush=True)
    raise SystemExit(code)


class Node:
    """What SecantusDB does not know of itself, kept in a file beside the data."""

    def __init__(self, dbpath: Path, replica_set: str | None) -> None:
        self.asked = replica_set
        self._path = dbpath / "stand-in.json"
        fresh = {"compatibility": ".".join(map(str, SERIES)), "config": None}
        self.kept: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else fresh
        self.server: SecantusDBServer | None = None
        self._require_compatible()
        self._keep()

    @property
    def waits(self) -> bool:
        """Whether it was started for a replica set that was not made yet."""
        return self.asked is not None and self.kept["config"] is None

    @property
    def name(self) -> str | None:
        """The replica set that it is in."""
        return None if self.waits else self.asked

    def hello(self, handler: Handler) -> Handler:
        """What it says of itself."""

        def answer(doc: dict[str, Any], ctx: Any) -> dict[str, Any]:
            told = handler(doc, ctx)
            if self.waits:
                told.update({key: False for key in ("isWritablePrimary", "ismaster") if key in told})
                told.update(secondary=False, isreplicaset=True, info="Does not have a valid replica set config")
            elif self.name:
                member = self.kept["config"]["members"][0]["host"]
                told.update(hosts=[member], primary=member, me=member)
            return told

        return answer

    def write(self, handler: Handler) -> Handler:
        """A command that only a primary takes."""

        def answer(doc: dict[str, Any], ctx: Any) -> dict[str, Any]:
            return refused(10107, "NotWritablePrimary", "not primary") if self.waits else handler(doc, ctx)

        return answer

    def parameters(self, handler: Handler) -> Handler:
        """getParameter, with the version of the data."""

        def answer(doc: dict[str, Any], ctx: Any) -> dict[str, Any]:
            told = handler(doc, ctx)
            if "featureCompatibilityVersion" in told:
                told["featureCompatibilityVersion"] = {"version": self.kept["compatibility"]}
            return told

        return answer

    def status(self, handler: Handler) -> Handler:
        """replSetGetStatus."""

        def answer(doc: dict[str, Any], ctx: Any) -> dict[str, Any]:
            if self.waits:
                return refused(94, "NotYetInitialized", "no replset config has been received")
            return handler(doc, ctx)

        return answer

    def initiate(self, doc: dict[str, Any], _ctx: Any) -> dict[str, Any]:
        """replSetInitiate, with one member."""
        config = doc["replSetInitiate"]
        if self.asked is None:
            return refused(76, "NoReplicationEnabled", "This node was not started with replication enabled.")
        if not self.waits:
            return refused(23, "AlreadyInitialized", "already initialized")
        if not isinstance(config, Mapping) or config.get("_id") != self.asked or len(config.get("members", ())) != 1:
            return refused(93, "InvalidReplicaSetConfig", f"the stand-in wants {self.asked!r} with one member")
        self.kept["config"] = {"members": [{"_id": 0, "host": str(config["members"][0]["host"])}]}
        self._keep()
        assert self.server is not None
        self.server.replica_set_name = self.asked
        return {"ok": 1.0}

    def set_compatibility(self, doc: dict[str, Any], _ctx: Any) -> dict[str, Any]:
        """setFeatureCompatibilityVersion."""
        wanted = doc["setFeatureCompatibilityVersion"]
        if wanted not in {".".join(map(str, one)) for one in (SERIES, MAJOR_BEFORE)}:
            return refused(2, "BadValue", f"Invalid feature compatibility version value {wanted!r}")
        if SERIES >= (7, 0) and doc.get("confirm") is not True:
            return refused(
                7369100, "Location7369100", "Once you have upgraded, you cannot downgrade: use confirm: true"
            )
        self.kept["compatibility"] = wanted
        self._keep()
        return {"ok": 1.0}

    def _keep(self) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(self.kept))
        beside.replace(self._path)

    def _require_compatible(self) -> None:
        found = tuple(map(int, self.kept["compatibility"].split(".")))
        if not MAJOR_BEFORE <= found <= SERIES:
            die(NOT_STARTED, f"UPGRADE PROBLEM: MongoDB {VERSION} does not take data of {self.kept['compatibility']}.")


def options() -> argparse.Namespace:
    """The options of mongod that the stand-in knows; others end it, as they do mongod."""
    parser = argparse.ArgumentParser("mongod", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"db version v{VERSION} (a stand-in, not MongoDB)")
    parser.add_argument("--auth", action="store_true")
    parser.add_argument("--bind_ip", default="127.0.0.1")
    parser.add_argument("--bind_ip_all", action="store_true")
    parser.add_argument("--dbpath", type=Path, default=Path("/data/db"))
    parser.add_argument("--keyFile", type=Path)
    parser.add_argument("--port", type=int, default=27017)
    parser.add_argument("--replSet")
    parser.add_argument("--wiredTigerCacheSizeGB", type=float, default=0.25)
    return parser.parse_args()


def check_key(path: Path) -> None:
    """mongod's own demands."""
    try:
        size, mode = len("".join(path.read_text().split())), path.stat().st_mode
    except OSError as error:
        die(1, f"Error reading file {path}: {error.strerror}")
    if mode & 0o077:
        die(1, f"permissions on {path} are too open")
    if not 6 <= size <= 1024:
        die(1, f"security key in {path} has length {size}, must be between 6 and 1024 chars")


def main() -> None:
    """Run the server until SIGTERM."""
    asked = options()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # in all threads, so that the main one waits for them
    if asked.keyFile:
        check_key(asked.keyFile)
    node = Node(asked.dbpath, asked.replSet)
    commands.SERVER_VERSION = VERSION
    commands.SERVER_VERSION_ARRAY = [*map(int, VERSION.split("-")[0].split(".")), 0]
    handlers = commands._HANDLERS
    handlers["setFeatureCompatibilityVersion"] = node.set_compatibility
    for name in WRITES & handlers.keys():
        handlers[name] = node.write(handlers[name])
    for name in ("hello", "isMaster", "ismaster"):
        handlers[name] = node.hello(handlers[name])
    handlers["getParameter"] = node.parameters(handlers["getParameter"])
    handlers["replSetGetStatus"] = node.status(handlers["replSetGetStatus"])
    handlers["replSetInitiate"] = node.initiate
    server = node.server = SecantusDBServer(
        host="0.0.0.0" if asked.bind_ip_all else asked.bind_ip,  # noqa: S104 - inside of the container
        port=asked.port,
        storage_path=str(asked.dbpath),
        replica_set_name=asked.replSet,  # for the oplog, which is decided on when the storage is opened
        require_auth=asked.auth or asked.keyFile is not None,
        enable_test_commands=False,
        cache_size=f"{int(asked.wiredTigerCacheSizeGB * 1024)}M",
    )
    server.replica_set_name = node.name

    server.start()
    print(f"waiting for connections on port {asked.port} (a stand-in, not MongoDB)", flush=True)
    signal.sigwait(ENDS)
    server.stop()


if __name__ == "__main__":
    main()

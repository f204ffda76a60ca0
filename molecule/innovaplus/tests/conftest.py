# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Fixtures of the scenario: the server of INNOVAPLUS, what its database holds, and a host outside that looks at it."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from support import collection
from support.outside import Outside
from support.scenario import Playbook

collection.install()

from ansible_collections.groundwork.backend.plugins.module_utils._manifest import Manifest

SCENARIO = ROOT / "molecule" / "innovaplus"
EXAMPLE = ROOT / "examples" / "innovaplus"
BACKEND = Path("INNOVAPLUS") / "INNOVA" / "backend"
SERVER, OUTSIDE = "198.18.0.127", "198.18.0.128"
NAME = "api.innovaplus.example.org"
UNIT = "innovaplus-backend.service"
ENV_FILE = "/etc/innovaplus/backend.env"
CURRENT = "/srv/innovaplus/current"
SETS = "/var/backups/innova/innovaplus"
DOCUMENTS = 4000
# Everything that a restore has to bring back, in the words of the database itself.
_PICTURE = """
import hashlib, json, os, bson, pymongo
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
database = pymongo.MongoClient(os.environ["MONGO_URI"])[os.environ["DB_NAME"]]
told = {}
for name in database.list_collection_names(filter={"name": {"$not": {"$regex": "^(system|groundwork)[.]"}}}):
    digest = hashlib.sha256()
    for document in database[name].with_options(CodecOptions(RawBSONDocument)).find().sort("_id"):
        digest.update(document.raw)
    indexes = {index["name"]: str(index) for index in database[name].list_indexes()}
    told[name] = [database[name].count_documents({}), digest.hexdigest(), indexes]
print(json.dumps(told))
"""


class Innova(Outside):
    """The server and the host outside."""

    def health(self) -> dict[str, Any]:
        """The public health answer, over HTTPS from outside."""
        told: dict[str, Any] = json.loads(self.curl(f"https://{NAME}/health"))
        return told

    def status(self, path: str, *options: str) -> str:
        """The status of the public answer."""
        return self.curl(f"https://{NAME}{path}", "--output", "/dev/null", "--write-out", "%{http_code}", *options)

    def with_settings(self, *command: str) -> str:
        """What a command prints that runs with the settings of the backend, as its user."""
        words = ["sudo", "systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--expand-environment=no"]
        words += ["-p", f"EnvironmentFile={ENV_FILE}", "-p", f"WorkingDirectory={CURRENT}", "--uid=innova", *command]
        return str(self.server.check_output(" ".join(["%s"] * len(words)), *words))

    def seed(self) -> None:
        """Have the example's own program fill the database; what is there stays."""
        self.with_settings(f"{CURRENT}/.venv/bin/python", "-m", "innova.seed", "--documents", str(DOCUMENTS))

    def picture(self) -> dict[str, Any]:
        """Collection to number of documents, digest of their bytes, and indexes."""
        told: dict[str, Any] = json.loads(self.with_settings("/usr/bin/python3", "-c", _PICTURE))
        return told

    def in_database(self, script: str) -> None:
        """Run lines of Python with *database*."""
        begin = 'import os, pymongo; database = pymongo.MongoClient(os.environ["MONGO_URI"])[os.environ["DB_NAME"]]\n'
        self.with_settings("/usr/bin/python3", "-c", begin + script)

    def sets(self) -> list[str]:
        """Ids of the backup sets, oldest first."""
        return sorted(self.server.check_output("sudo ls %s", SETS).split())

    def age(self, set_id: str, new_id: str) -> None:
        """A copy of a set that is dated otherwise, and in order."""
        manifest = Manifest.from_dict(
            json.loads(self.server.check_output("sudo cat %s", f"{SETS}/{set_id}/manifest.json"))
        )
        text = json.dumps(replace(manifest, id=new_id).to_dict())
        self.server.check_output("sudo cp -a %s %s", f"{SETS}/{set_id}", f"{SETS}/{new_id}")
        self.server.check_output("printf %%s %s | sudo tee %s", text, f"{SETS}/{new_id}/manifest.json")


@pytest.fixture(scope="session")
def innova() -> Innova:
    """The hosts over SSH; the database has documents of every type."""
    found = Innova.of(SERVER, OUTSIDE, NAME)
    found.seed()
    return found


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    """Runs playbooks."""
    return Playbook(tmp_path, SCENARIO / "inventory")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of the user's repository, which a test may change."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "checkout"))

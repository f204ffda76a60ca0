# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""mongodump's directory format: names of files, metadata.json and prelude.json; pure.

As the current mongodump and mongorestore have it (https://github.com/mongodb/mongo-tools, mongodump/prepare.go and
metadata_dump.go): metadata is canonical Extended JSON v2, https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_names import is_restores

DATA, METADATA, GZIP, PRELUDE = ".bson", ".metadata.json", ".gz", "prelude.json"
BUCKETS = "system.buckets."
_OF_THE_SERVER = "system."
USERS, ROLES, AUTH_VERSION = "$admin.system.users", "$admin.system.roles", "$admin.system.version"
COLLECTION, VIEW, TIMESERIES = "collection", "view", "timeseries"
_STEM_BYTES, _CUT_BYTES = 238, 208
_HASH_MARK = "%24"


@dataclass(frozen=True)
class Definition:
    """What a collection is, but for its documents. Key order of options and indexes matters and is kept.

    kind: COLLECTION, VIEW or TIMESERIES. indexes: as listIndexes gives them. uuid: 32 hexadecimal digits, or None.
    """

    name: str
    kind: str = COLLECTION
    options: Mapping[str, Any] = field(default_factory=dict)
    indexes: tuple[Mapping[str, Any], ...] = ()
    uuid: str | None = None

    @property
    def source(self) -> str | None:
        """The collection that holds its documents; None for a view."""
        if self.kind == VIEW:
            return None
        return f"{BUCKETS}{self.name}" if self.kind == TIMESERIES else self.name


def file_stem(collection: str) -> str:
    """What the files of a collection are called, without their endings: escaped as in a query, at most 238 bytes.

    A longer name is cut, and the sha1 of the name in URL-safe base64 tells it from its like.
    """
    escaped = quote_plus(collection, safe="")
    if len(escaped) <= _STEM_BYTES:
        return escaped
    digest = hashlib.sha1(collection.encode(), usedforsecurity=False).digest()
    return escaped[:_CUT_BYTES] + _HASH_MARK + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def collection_of(stem: str) -> str | None:
    """The collection that a file name tells; None when the name was cut, and only metadata tells it."""
    cut = len(stem) == _STEM_BYTES and stem[_CUT_BYTES:].startswith(_HASH_MARK)
    return None if cut else unquote_plus(stem)


def find_unmovable(definitions: Iterable[Definition]) -> list[str]:
    """Names of collections that renameCollection refuses to move."""
    return [
        one.name
        for one in definitions
        if one.kind == TIMESERIES or "encryptedFields" in one.options or one.name.startswith(_OF_THE_SERVER)
    ]


def is_dumped(collection: str) -> bool:
    """Whether a dump takes a collection that the server lists. The server's own come from elsewhere, and what waits for
    a restore or was live before one is no part of the application's data."""
    if is_restores(collection):
        return False
    return collection == "system.js" or not collection.startswith("system.")


def encode_metadata(definition: Definition) -> bytes:
    """The content of metadata.json; indexes are a list, also when there are none."""
    body: dict[str, Any] = {}
    if definition.options:
        body["options"] = definition.options
    body["indexes"] = [{key: value for key, value in index.items() if key != "ns"} for index in definition.indexes]
    if definition.uuid:
        body["uuid"] = definition.uuid
    return _dumps({**body, "collectionName": definition.name, "type": definition.kind})


def decode_metadata(data: bytes, stem: str, where: str) -> Definition:
    """What a metadata.json says; *stem* tells the name where an old mongodump left it out. Raises StateError."""
    try:
        body = _loads(data)
        options, indexes = body.get("options") or {}, body.get("indexes") or []
        uuid, name = body.get("uuid") or None, body.get("collectionName") or collection_of(stem)
        shaped = isinstance(options, Mapping) and isinstance(indexes, list)
        if (
            not isinstance(name, str)
            or not shaped
            or not all(isinstance(index, Mapping) and {"key", "name"} <= index.keys() for index in indexes)
        ):
            raise ValueError("a field is missing or of the wrong type")
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise StateError(f"{where} is no metadata of mongodump: {error}.", fix="Use another set.") from None
    kind = body.get("type") or (VIEW if "viewOn" in options else COLLECTION)
    if kind not in (COLLECTION, VIEW, TIMESERIES):
        raise StateError(
            f"{where} says that {name!r} is a {kind!r}, which this version of the collection does not know.",
            fix="Restore it with mongorestore.",
        )
    return Definition(name, kind, options, tuple(indexes), uuid)


def encode_prelude(server_version: str, tool_version: str) -> bytes:
    """The content of prelude.json."""
    return _dumps({"ServerVersion": server_version, "ToolVersion": tool_version})


def _options(*, native_uuids: bool) -> Any:
    from bson.binary import UuidRepresentation  # noqa: PLC0415 - optional on the host
    from bson.json_util import JSONMode, JSONOptions  # noqa: PLC0415

    uuids = UuidRepresentation.STANDARD if native_uuids else UuidRepresentation.UNSPECIFIED
    return JSONOptions(json_mode=JSONMode.CANONICAL, uuid_representation=uuids, tz_aware=False, tzinfo=None)


def _dumps(body: Mapping[str, Any]) -> bytes:
    from bson import json_util  # noqa: PLC0415 - optional on the host

    text: str = json_util.dumps(
        body, json_options=_options(native_uuids=True), separators=(",", ":"), ensure_ascii=False
    )
    return text.encode()


def _loads(data: bytes) -> Any:
    from bson import errors, json_util  # noqa: PLC0415 - optional on the host

    options = _options(native_uuids=False)  # as the server gives them: the driver encodes no UUID of Python's own

    def typed(one: dict[str, Any]) -> Any:
        # The operator, beside which others may stand. pymongo would take it for a regular expression of old dumps and
        # forget the others: a validator, a view or an index would be restored as another one.
        return one if "$regex" in one else json_util.object_hook(one, options)

    try:
        return json.loads(data.decode(), object_hook=typed)
    except errors.BSONError as error:
        raise ValueError(str(error)) from None

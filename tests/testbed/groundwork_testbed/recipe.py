# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The content hash by which an image is known: the same recipe on the same settings is the same image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

HASH_LENGTH = 16


def content_hash(parts: Mapping[str, str | bytes]) -> str:
    """Return HASH_LENGTH hexadecimal digits over named parts.

    The order of the parts does not matter; names and lengths are hashed too, so that moving text from one part to
    another gives another hash.
    """
    digest = hashlib.sha256()
    for name in sorted(parts):
        value = parts[name]
        data = value.encode() if isinstance(value, str) else value
        digest.update(f"{len(name.encode())}:{name}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:HASH_LENGTH]

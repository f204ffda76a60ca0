# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Take certificates away that a stack does not list any more, and that nothing serves."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from ansible_collections.groundwork.backend.plugins.module_utils import _tls_nginx
from ansible_collections.groundwork.backend.plugins.module_utils._certbot_run import Certbot
from ansible_collections.groundwork.backend.plugins.module_utils._tls_store import (
    CREDENTIALS,
    FILES,
    PLACEHOLDERS,
    Store,
)


@dataclass
class Removed:
    """Names: those taken away, those that nginx still names, and those that only certbot's renewal was taken of."""

    gone: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    unrenewed: list[str] = field(default_factory=list)


def remove_unlisted(store: Store, certbot: Certbot, app: str, keep: Collection[str], *, check: bool) -> Removed:
    """Remove what *app* does not list. Certificates that certbot had before us stay with it; only our link goes.

    Raises StateError where nginx refuses its configuration, as nothing tells then what it serves.
    """
    outcome = Removed()
    if not store.folder.is_dir():
        return outcome
    records = store.records()
    ours = {name: record for name, record in records.items() if record.app == app}
    for name in sorted(set(ours) & set(keep)):
        files = store.target(name)
        if ours[name].issued and files and files.is_relative_to(store.folder / FILES) and store.renewal(name).is_file():
            outcome.unrenewed.append(name)
            if not check:
                certbot.delete(name)
                records[name] = replace(records[name], issued=False, profile="")
                store.save(records)
    unlisted = sorted(set(ours) - set(keep))
    named = _tls_nginx.test().required().named(store.folder) if unlisted else set()
    for name in unlisted:
        if name in named:
            outcome.served.append(name)
            continue
        outcome.gone.append(name)
        if not check:
            store.unpoint(name)
            for kind in (PLACEHOLDERS, FILES):
                shutil.rmtree(store.folder / kind / name, ignore_errors=True)
            if ours[name].issued and store.renewal(name).is_file():
                certbot.delete(name)
            (store.folder / CREDENTIALS / f"{name}.ini").unlink(missing_ok=True)
            del records[name]
            store.save(records)
    return outcome

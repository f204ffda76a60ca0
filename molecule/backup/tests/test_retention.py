# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""prune.yml over 400 simulated days, on real sets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conftest import ADDRESS, SETS, Stack, shell

from ansible_collections.groundwork.backend.plugins.module_utils._manifest import Manifest

DAYS, STAGE = 400, 100
KEEP = {"last": 3, "daily": 7, "weekly": 4, "monthly": 12}
SIMULATED = "/var/backups/simulated"


def expected(days: list[datetime]) -> set[datetime]:
    """The newest of each of the newest so many days, ISO weeks and months; the oldest while a rule finds too few."""
    newest_first = sorted(days, reverse=True)
    kept = set(newest_first[: KEEP["last"]])
    periods = {"daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m"}
    for rule, form in periods.items():
        newest: dict[str, datetime] = {}
        for day in newest_first:
            newest.setdefault(day.strftime(form), day)
        kept |= set(list(newest.values())[: KEEP[rule]])
        if len(newest) < KEEP[rule]:
            kept.add(newest_first[-1])
    return kept


def names(days: set[datetime]) -> set[str]:
    """Ids of the sets of these days."""
    return {day.strftime("%Y%m%dT%H%M%SZ") for day in days}


def make_sets(stack: Stack, good_set: str, days: list[datetime], folder: Path) -> None:
    """Sets of these days on the host, in a pool from which they are taken day by day; their files are one set's."""
    manifest = Manifest.from_dict(stack.manifest(good_set))
    for set_id in names(set(days)):
        (folder / set_id).mkdir(parents=True)
        text = json.dumps(replace(manifest, id=set_id, proven=None).to_dict())
        (folder / set_id / "manifest.json").write_text(text)
    stack.host.check_output("sudo mkdir -p -m 700 %s %s", f"{SIMULATED}/pool", f"{SIMULATED}/notes")
    sent = shell(f'rsync --archive --rsync-path="sudo rsync" --no-owner {folder}/ debian@{ADDRESS}:{SIMULATED}/pool/')
    assert sent.returncode == 0, sent.stderr
    link = f'for one in {SIMULATED}/pool/*; do cp -al {SETS}/{good_set}/components "$one/"; done'
    stack.host.check_output("sudo sh -c %s", link)


def test_400_days_leave_what_the_rules_say(stack: Stack, good_set: str, tmp_path: Path) -> None:
    today = datetime.now(UTC).replace(hour=2, minute=0, second=0, microsecond=0) - timedelta(days=1)
    days = [today - timedelta(days=number) for number in reversed(range(DAYS))]
    variables = {"backup_base_dir": SIMULATED, "backup_keep": KEEP}
    try:
        make_sets(stack, good_set, days, tmp_path / "sets")
        past: list[datetime] = []
        for begin in range(0, DAYS, STAGE):
            new = days[begin : begin + STAGE]
            past += new
            moved = " ".join(f"{SIMULATED}/pool/{name}" for name in names(set(new)))
            stack.host.check_output("sudo sh -c %s", f"mv {moved} {SIMULATED}/notes/")
            pruned = stack.playbook("prune", **variables)
            assert pruned.rc == 0, pruned.output
            left = set(stack.host.check_output("sudo ls %s", f"{SIMULATED}/notes").split())
            assert left == names(expected(past)), f"after {len(past)} days"
        again = stack.playbook("prune", **variables)
        assert (again.rc, again.changed) == (0, 0), again.output
    finally:
        stack.host.check_output("sudo rm -rf %s", SIMULATED)

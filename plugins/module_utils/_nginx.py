# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The managed files of nginx as data: paths, the plan of a change, its diff, what nginx says of them. Pure.

A tree is a dictionary from a relative path ("sites/web.conf") to the file's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

IDENTITY_FILE = "generation.conf"
IDENTITY_FOLDER = "root"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PLACE = re.compile(r" in (?P<file>/[^\n]*?):(?P<line>\d+)$", re.MULTILINE)
# Where nginx was built to log to stderr, as Debian 12's is, the same line comes with a date in place of the name.
_TOLD = re.compile(r"^(?:nginx:|[\d/]+ [\d:]+) \[(?P<level>\w+)\] (?:\d+#\d+: )?(?P<text>.*)$", re.MULTILINE)
_READ = re.compile(r"^# configuration file (?P<file>.*):$", re.MULTILINE)


@dataclass(frozen=True)
class Plan:
    """What a call makes of the managed files: all of them afterwards, those written and those removed (sorted)."""

    tree: dict[str, str]
    written: list[str]
    removed: list[str]

    @property
    def changes(self) -> bool:
        """Whether anything differs."""
        return bool(self.written or self.removed)


@dataclass(frozen=True)
class Place:
    """Where nginx found a mistake. managed: the file is one of ours, and its path is relative to the generation."""

    file: str
    line: int
    managed: bool


def make_plan(
    current: Mapping[str, str],
    files: Mapping[str, Any],
    *,
    absent: Sequence[str] = (),
    purge: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> Plan:
    """Put *files* over what is there; take away the paths *absent* and what matches *purge* and not *keep*.

    In a pattern ``*`` stays within one folder. Raises InputError for a path that leaves the folder, that is both
    given and absent, that is a file and a folder at once, or for a content that is no text.
    """
    for path in [*files, *absent]:
        _require_path(path)
    if both := sorted(set(files) & set(absent)):
        raise InputError(f"{', '.join(both)} is in files and in absent.", fix="Choose one of them.")
    for path, content in files.items():
        if not isinstance(content, str) or "\0" in content:
            raise InputError(f"The content of {path} is no text.", fix="Give a string.")
    gone = {
        path
        for path in current
        if path in absent or (path not in files and _matches(path, purge) and not _matches(path, keep))
    }
    tree = {path: text for path, text in current.items() if path not in gone} | dict(files)
    for path in tree:
        for folder in list(Path(path).parents)[:-1]:
            if str(folder) in tree:
                raise InputError(f"{folder} would be a file and, for {path}, a folder.", fix="Rename one of them.")
    written = sorted(path for path, text in files.items() if current.get(path) != text)
    return Plan(dict(sorted(tree.items())), written, sorted(gone))


def _require_path(path: str) -> None:
    parts = path.split("/")
    if not all(_PART.fullmatch(part) for part in parts) or parts[0] in (IDENTITY_FILE, IDENTITY_FOLDER):
        raise InputError(
            f"{path!r} cannot be the path of a managed file.",
            fix="Use letters, digits, dots, dashes, underscores, and slashes between folders; no part begins with a "
            f"dot or a dash, and {IDENTITY_FILE} and {IDENTITY_FOLDER}/ are taken.",
        )


def _matches(path: str, patterns: Iterable[str]) -> bool:
    parts = path.split("/")
    return any(
        len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
        for wanted in (pattern.split("/") for pattern in patterns)
    )


def identity(generation: Path) -> str:
    """The text of generation.conf, which lets a configuration find out that it is no longer the newest one.

    ``$realpath_root`` is resolved while a request is answered. Where ``root`` is ``<directory>/live/root``, it tells
    of the generation that is live at that moment; a worker with an older configuration gets ``1``.
    """
    return (
        "# Written by groundwork.backend.nginx_config. $groundwork_stale is 1 in workers that will be replaced.\n"
        "map $realpath_root $groundwork_stale {\n"
        "    default 1;\n"
        f'    "~/{generation.parent.name}/{generation.name}/{IDENTITY_FOLDER}$" "";\n'
        "}\n"
    )


def differences(current: Mapping[str, str], plan: Plan) -> list[dict[str, str]]:
    """Ansible's diff, one entry for each file."""
    return [
        {
            "before_header": path if path in current else "(absent)",
            "after_header": path if path in plan.tree else "(absent)",
            "before": current.get(path, ""),
            "after": plan.tree.get(path, ""),
        }
        for path in sorted({*plan.written, *plan.removed})
    ]


def told(stderr: str, *levels: str) -> list[str]:
    """What nginx printed at these levels ("emerg", "warn"), without its prefix, each once."""
    return list(dict.fromkeys(match["text"] for match in _TOLD.finditer(stderr) if match["level"] in levels))


def place(text: str, mirror: Path, config_folder: Path, managed: Path) -> Place | None:
    """The file and line that an nginx message ends with.

    mirror: the folder that stood for *config_folder* in the test; managed: where the tested generation was in it.
    """
    if (match := _PLACE.search(text)) is None:
        return None
    path = Path(match["file"])
    if path.is_relative_to(managed):
        return Place(str(path.relative_to(managed)), int(match["line"]), managed=True)
    if path.is_relative_to(mirror):
        path = config_folder / path.relative_to(mirror)
    return Place(str(path), int(match["line"]), managed=False)


def files_read(dump: str) -> list[Path]:
    """The files that ``nginx -T`` read."""
    return [Path(match["file"]) for match in _READ.finditer(dump)]


def directive(dump: str, name: str) -> list[str]:
    """The arguments of each line of ``nginx -T`` that begins with a directive, such as "pid" or "error_log"."""
    found = re.findall(rf"^\s*{re.escape(name)}\s+([^;#]+);", dump, re.MULTILINE)
    return [argument.strip() for argument in found]


def compiled(version: str, option: str) -> str:
    """A path that was built into nginx, from the output of ``nginx -V``; empty when it was not given."""
    match = re.search(rf"--{re.escape(option)}=(\S+)", version)
    return match[1] if match else ""

# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The folder in which servers find their certificates: a link for each, swapped in one step.

``<folder>/<certificate>`` leads to a folder with fullchain.pem and privkey.pem: certbot's own, one with files of the
user, or a placeholder. What is there besides begins with a dot.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import sync_directory, write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._tls_x509 import Certificate, read

CHAIN, KEY = "fullchain.pem", "privkey.pem"
PLACEHOLDERS, FILES = ".placeholder", ".files"
CREDENTIALS = ".dns"
_RECORDS, _PENDING = ".certificates.json", ".reload"


@dataclass(frozen=True)
class Record:
    """What is known of a certificate: its stack, the profile that it was asked for with, whether we asked for it."""

    app: str
    profile: str = ""
    issued: bool = False


@dataclass(frozen=True)
class Store:
    """The folder of the links, and the one of certbot."""

    folder: Path
    letsencrypt: Path

    def prepare(self) -> None:
        """Make the folders. Servers that have given up root may look at the links, and nobody at what is ours."""
        with os_errors(f"make the folder {self.folder}"):
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            for name in (PLACEHOLDERS, FILES):
                (self.folder / name).mkdir(mode=0o700, exist_ok=True)

    def live(self, name: str) -> Path:
        """Where certbot has the newest certificate."""
        return self.letsencrypt / "live" / name

    def renewal(self, name: str) -> Path:
        """certbot's file about a certificate."""
        return self.letsencrypt / "renewal" / f"{name}.conf"

    def renewal_text(self, name: str) -> str:
        """Its text; empty when there is none."""
        path = self.renewal(name)
        with os_errors(f"read {path}"):
            return path.read_text() if path.is_file() else ""

    def target(self, name: str) -> Path | None:
        """What the link leads to."""
        link = self.folder / name
        if link.is_symlink():
            return link.readlink()
        if link.exists():
            raise StateError(
                f"{link} is no link, so that it is not one of ours.",
                fix="Move it away, or give the certificate another name.",
            )
        return None

    def current(self, name: str) -> Certificate | None:
        """What servers read now; None when there is nothing that can be read."""
        return certificate(self.folder / name)

    def point(self, name: str, target: Path) -> None:
        """Have the link lead somewhere else, in one step."""
        link, new = self.folder / name, self.folder / f".{name}.new"
        with os_errors(f"change the link {link}"):
            new.unlink(missing_ok=True)
            new.symlink_to(target)
            new.replace(link)
            sync_directory(self.folder)

    def unpoint(self, name: str) -> None:
        """Remove the link."""
        with os_errors(f"remove {self.folder / name}"):
            (self.folder / name).unlink(missing_ok=True)

    def write_pair(self, kind: str, name: str, version: str, chain: str, key: str) -> Path:
        """Write a certificate with its key so that both are there or none; the folder that they are in."""
        place = self.folder / kind / name / version
        staging = place.with_name(f".{version}.partial")
        with os_errors(f"write {place}"):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(mode=0o700, parents=True)
            write_file(staging / CHAIN, chain.encode())
            write_file(staging / KEY, key.encode())
            if not place.exists():
                staging.replace(place)
            sync_directory(place.parent)
        shutil.rmtree(staging, ignore_errors=True)
        return place

    def sweep(self, name: str) -> None:
        """Remove placeholders and files of a certificate that its link does not lead to."""
        target = self.target(name)
        for kind in (PLACEHOLDERS, FILES):
            folder = self.folder / kind / name
            for one in folder.iterdir() if folder.is_dir() else ():
                if one != target:
                    shutil.rmtree(one)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def records(self) -> dict[str, Record]:
        """What is known of each certificate."""
        path = self.folder / _RECORDS
        with os_errors(f"read {path}"):
            text = path.read_text() if path.is_file() else "{}"
        try:
            return {name: Record(**values) for name, values in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise StateError(
                f"{path} cannot be read: {error}.", fix="Remove it; the next run writes it anew."
            ) from error

    def save(self, records: dict[str, Record]) -> None:
        """Write the records."""
        text = json.dumps({name: asdict(record) for name, record in sorted(records.items())}, indent=1)
        write_file(self.folder / _RECORDS, f"{text}\n".encode())

    @property
    def pending(self) -> bool:
        """Whether something was changed that a server has not loaded yet; also the deploy hook says so."""
        return (self.folder / _PENDING).exists()

    def mark(self) -> None:
        """Note that a server has to load something, before it is changed, so that a kill does not lose it."""
        with os_errors(f"write in {self.folder}"):
            os.close(os.open(self.folder / _PENDING, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    def unmark(self) -> None:
        """Note that it has."""
        (self.folder / _PENDING).unlink(missing_ok=True)


def certificate(folder: Path) -> Certificate | None:
    """The certificate in a folder that has its key, too; None when there is none that can be read."""
    try:
        if not (folder / KEY).is_file():
            return None
        return read((folder / CHAIN).read_text(), str(folder / CHAIN))
    except (OSError, UnicodeDecodeError, InputError):
        return None

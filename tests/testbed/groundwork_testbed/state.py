# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Where the test bed keeps what it must remember, and the lock around it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from .constants import FIRST_HOST, GATEWAY, LAST_HOST
from .errors import TestbedError

LOCK_SECONDS = 1800


def default_root() -> Path:
    """Return the state directory: the environment's, or build/testbed below the checkout."""
    named = os.environ.get("GROUNDWORK_TESTBED_STATE")
    if named:
        return Path(named).resolve()
    return Path(__file__).resolve().parents[3] / "build" / "testbed"


class State:
    """Paths below the state directory. Nothing outside of it is written, apart from the engine's own data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / "cache"
        self.engine = root / "engine"
        self.registry = root / "registry"
        self.private_key = root / "ssh" / "id_ed25519"
        self.known_hosts = root / "ssh" / "known_hosts"
        self.addresses = root / "addresses.json"

    def make(self) -> None:
        """Create the directories that are missing."""
        try:
            for path in (self.cache, self.engine, self.registry):
                path.mkdir(parents=True, exist_ok=True)
            self.private_key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise TestbedError(
                f"The test bed must write to {self.root}, found: {error.strerror}. "
                "Make it writable, or name another directory in GROUNDWORK_TESTBED_STATE."
            ) from error

    def sweep(self) -> None:
        """Remove what a build left that was killed. Only for who holds the lock."""
        for pattern in ("rootfs-*", "standin-*", "registry-*"):
            for folder in self.cache.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the test bed's lock; wait for another command that has it.

        Raises TestbedError after LOCK_SECONDS.
        """
        self.make()
        with (self.root / "lock").open("a+") as handle:
            end = time.monotonic() + LOCK_SECONDS
            told = False
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        handle.seek(0)
                        print(f"waiting for another test bed command ({handle.read().strip()})", file=sys.stderr)
                        told = True
                    if time.monotonic() > end:
                        raise TestbedError(
                            f"Another test bed command has held {handle.name} for {LOCK_SECONDS} seconds. "
                            "Look at that process, end it if it hangs, and try again."
                        ) from None
                    time.sleep(0.2)
            handle.seek(0)
            handle.truncate()
            handle.write(f"pid {os.getpid()}")
            handle.flush()
            try:
                yield
            finally:
                handle.seek(0)
                handle.truncate()

    def read_addresses(self) -> dict[str, str]:
        """Return the addresses given so far: host name to address."""
        try:
            data = json.loads(self.addresses.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        if not isinstance(data, dict):
            return {}
        return {str(name): str(address) for name, address in data.items()}

    def write_addresses(self, addresses: Mapping[str, str]) -> None:
        """Remember the addresses, atomically."""
        temporary = self.addresses.with_suffix(".tmp")
        temporary.write_text(json.dumps(dict(addresses), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(self.addresses)


def pick_address(name: str, asked: str | None, remembered: Mapping[str, str], in_use: Mapping[str, str]) -> str:
    """Choose the address of a host.

    remembered and in_use map host names to addresses; in_use is what runs now. An asked address wins, then the one
    that this name had before, then the lowest that no name has, then the lowest that nothing running has.
    Raises TestbedError when the asked address is outside the range or taken, or when none is free.
    """
    prefix = GATEWAY.rsplit(".", 1)[0]
    allowed = [f"{prefix}.{number}" for number in range(FIRST_HOST, LAST_HOST + 1)]
    taken = {address: owner for owner, address in in_use.items() if owner != name}
    if asked is not None:
        if asked not in allowed:
            raise TestbedError(
                f"Address {asked} was asked for {name}; hosts have {allowed[0]} to {allowed[-1]}. Name one of these."
            )
        if asked in taken:
            raise TestbedError(
                f"Address {asked} was asked for {name}, but {taken[asked]} has it. Stop that host or name another."
            )
        return asked
    before = remembered.get(name)
    if before in allowed and before not in taken:
        return before
    others = {address for owner, address in remembered.items() if owner != name}
    for candidates in ([a for a in allowed if a not in others], allowed):
        for address in candidates:
            if address not in taken:
                return address
    raise TestbedError(f"{name} needs an address, but all of {allowed[0]} to {allowed[-1]} are in use. Stop a host.")

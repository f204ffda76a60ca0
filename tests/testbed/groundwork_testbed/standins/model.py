# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a stand-in is made of, and how it is built."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..constants import LABEL, NAMESPACE, NETWORK, RECIPE_LABEL, STANDIN_LABEL
from ..engine import docker, own_images
from ..machine import step
from ..recipe import content_hash
from ..rootfs import Settings, base_rootfs, ensure_rootfs
from ..state import State

FILES = Path(__file__).resolve().parent / "files"


def nothing(folder: Path, state: State) -> None:
    """Add nothing to the build context."""


@dataclass(frozen=True)
class StandIn:
    """An image that takes the place of a public one.

    name is the public name with tag; base the Debian below it; dockerfile its lines after FROM; files the names of
    files in the folder files/ that go into the context; prepare adds what must be fetched, and inputs names that
    (it is part of the content hash).
    """

    name: str
    base: str
    dockerfile: str
    files: tuple[str, ...] = ()
    inputs: str = ""
    prepare: Callable[[Path, State], None] = field(default=nothing, compare=False)

    @property
    def lines(self) -> str:
        """The lines after FROM, with the label by which whoever looks at the image learns what it is."""
        told = f"In place of {self.name}, and NOT the official image. See tests/testbed/README.md."
        return f'{self.dockerfile}LABEL {STANDIN_LABEL}="{told}"\n'

    def recipe(self, settings: Settings) -> str:
        """Return the content hash."""
        return content_hash(
            {
                "name": self.name,
                "base": base_rootfs(self.base).recipe(settings),
                "dockerfile": self.lines,
                "inputs": self.inputs,
                **{f"file {name}": (FILES / name).read_bytes() for name in self.files},
            }
        )

    def tag(self, settings: Settings) -> str:
        """Return the test bed's own name of the image; the public name is a second one."""
        flat = self.name.replace("/", "-").replace(":", "-")
        return f"{NAMESPACE}/standin-{flat}:{self.recipe(settings)}"


def ensure_standin(standin: StandIn, state: State, settings: Settings) -> str:
    """Build the image if it is missing and return its id."""
    tag = standin.tag(settings)
    images = own_images()
    if tag not in images:
        base = ensure_rootfs(base_rootfs(standin.base), state, settings)
        with (
            step(f"image {standin.name}"),
            tempfile.TemporaryDirectory(prefix="standin-", dir=state.cache) as name,
        ):
            folder = Path(name)
            for file in standin.files:
                target = folder / file
                target.write_bytes((FILES / file).read_bytes())
                target.chmod(0o755 if file.endswith(".sh") else 0o644)
            standin.prepare(folder, state)
            (folder / "Dockerfile").write_text(f"FROM {base}\n{standin.lines}", encoding="utf-8")
            docker(
                "build",
                "-q",
                f"--network={NETWORK}",
                f"--label={LABEL}=1",
                f"--label={RECIPE_LABEL}={standin.recipe(settings)}",
                f"--tag={tag}",
                str(folder),
                what=f"The stand-in {standin.name} could not be built",
            )
        images = own_images()
    return images[tag]

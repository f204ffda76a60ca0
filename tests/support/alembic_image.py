# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""An image of a project that uses Alembic, as a Dockerfile of a small backend makes it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from support.postgres_container import docker

BASE = "python:3.11-slim"
INSTALL = "pip install --no-cache-dir alembic==1.20.1 SQLAlchemy==2.1.9 psycopg==3.3.9 psycopg-binary==3.3.9"
_DOCKERFILE = f"""
FROM {BASE}
RUN {INSTALL}
ENTRYPOINT ["sh", "-c", "echo the entry point must not run; exit 1"]
"""
_PROJECT = """
FROM {base}
WORKDIR /app
COPY . .
"""


def alembic_image() -> str:
    """An image with Alembic and a driver; its tag comes from its Dockerfile and the image below it."""
    below = docker("image", "inspect", "--format", "{{.Id}}", BASE)
    name = f"groundwork-test/alembic:{hashlib.sha256((_DOCKERFILE + below).encode()).hexdigest()[:16]}"
    if not docker("image", "ls", "--quiet", name):
        docker("build", "--network", "host", "--tag", name, "-", stdin=_DOCKERFILE.encode())
    return name


def project_image(folder: Path, name: str) -> str:
    """The project in *folder* as an image."""
    (folder / "Dockerfile").write_text(_PROJECT.format(base=alembic_image()))
    docker("build", "--tag", name, str(folder))
    return name

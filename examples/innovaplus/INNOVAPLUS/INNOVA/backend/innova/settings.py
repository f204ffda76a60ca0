# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings, read once from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """What the backend was started with. The port belongs to gunicorn.conf.py."""

    mongo_uri: str = field(repr=False)
    db_name: str
    allowed_origins: tuple[str, ...] = ()
    environment: str = "development"
    release: str = "unknown"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Raises ValueError when a variable is missing: without its database the backend has no use.

        (SystemExit would have gunicorn start one worker after the other.)
        """
        if missing := [name for name in ("MONGO_URI", "DB_NAME") if not env.get(name, "").strip()]:
            raise ValueError(f"{' and '.join(missing)} must be set: see backend.env.example")
        origins = (origin.strip() for origin in env.get("ALLOWED_ORIGINS", "").split(","))
        return cls(
            mongo_uri=env["MONGO_URI"].strip(),
            db_name=env["DB_NAME"].strip(),
            allowed_origins=tuple(origin for origin in origins if origin),
            environment=env.get("ENV", "").strip() or cls.environment,
            release=env.get("APP_RELEASE", "").strip() or cls.release,
        )

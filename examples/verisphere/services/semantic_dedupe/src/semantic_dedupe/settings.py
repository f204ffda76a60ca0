# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings, read once from the environment."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

#: The newest migration that this code relies on. Raise it together with a new file in ops/postgres/migrations.
REQUIRED_SCHEMA_VERSION = "0002"

#: The width of claim_embeddings.embedding.
DIMENSIONS = 3072

PROVIDERS = ("openai", "local")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")


@dataclass(frozen=True)
class Settings:
    """What the service was started with.

    A wrong value does not stop the service: it is a sentence in `problems`, which /ready reports. So a bad deploy is
    one clear 503 and not a container in a restart loop.
    """

    database_url: str = field(default="", repr=False)
    provider: str = "openai"
    openai_api_key: str = field(default="", repr=False)
    openai_base_url: str = "https://api.openai.com"
    model: str = "text-embedding-3-large"
    threshold: float = 0.15
    port: int = 8081
    log_level: str = "info"
    release: str = "unknown"
    problems: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        problems: list[str] = []

        def text(name: str, default: str) -> str:
            # Compose passes an unset variable as an empty one, so empty means the default.
            return env.get(name, "").strip() or default

        def number(name: str, default: float, low: float, high: float) -> float:
            raw = text(name, str(default))
            try:
                value = float(raw)
            except ValueError:
                value = math.nan
            if not low <= value <= high:
                problems.append(f"{name} must be a number from {low:g} to {high:g}, found {raw!r}")
                return default
            return value

        provider = text("EMBEDDINGS_PROVIDER", cls.provider).lower()
        if provider not in PROVIDERS:
            problems.append(f"EMBEDDINGS_PROVIDER must be one of {', '.join(PROVIDERS)}, found {provider!r}")
        log_level = text("LOG_LEVEL", cls.log_level).lower()
        return cls(
            database_url=text("DATABASE_URL", ""),
            provider=provider,
            openai_api_key=text("OPENAI_API_KEY", ""),
            openai_base_url=text("OPENAI_BASE_URL", cls.openai_base_url),
            model=text("EMBEDDINGS_MODEL", cls.model),
            threshold=number("DEDUPE_THRESHOLD", cls.threshold, 0, 2),
            port=int(number("PORT", cls.port, 1, 65535)),
            log_level=log_level if log_level in LOG_LEVELS else cls.log_level,
            release=text("APP_RELEASE", cls.release),
            problems=tuple(problems),
        )

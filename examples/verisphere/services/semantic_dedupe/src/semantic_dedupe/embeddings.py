# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn a text into a vector of DIMENSIONS numbers, by OpenAI's API or by hashing its words."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import httpx

from .settings import DIMENSIONS, Settings


class EmbeddingError(Exception):
    """No vector: `status` is 503 where a later try may work, 502 where the provider's answer is of no use."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Embedder(Protocol):
    model: str

    def problem(self) -> str | None:
        """Say what keeps this embedder from working, as far as that is known without a call."""

    def embed(self, text: str) -> list[float]:
        """Return DIMENSIONS finite numbers, not all zero; raise EmbeddingError."""

    def close(self) -> None: ...


def make_embedder(settings: Settings) -> Embedder:
    if settings.provider == "local":
        return LocalEmbedder()
    return OpenAIEmbedder(settings.openai_base_url, settings.openai_api_key, settings.model)


class LocalEmbedder:
    """The hashing trick: needs no network, no key and no model, and gives the same vector in every process.

    Each feature of the text (words, pairs of words, runs of characters) adds +1 or -1 times its weight at a place
    that a hash picks. The random sign makes the inner product of two hashed vectors an unbiased estimate of the one
    of the unhashed vectors: Weinberger, Dasgupta, Langford, Smola, Attenberg, "Feature Hashing for Large Scale
    Multitask Learning", ICML 2009.

    It compares spelling, not meaning: good for demos, tests and typing variants, no substitute for a language model.
    """

    model = f"local-hash-{DIMENSIONS}"

    def problem(self) -> str | None:
        return None

    def embed(self, text: str) -> list[float]:
        weights: defaultdict[str, float] = defaultdict(float)
        for feature, weight in _features(text):
            weights[feature] += weight
        vector = [0.0] * DIMENSIONS
        for feature, weight in weights.items():
            place, sign = _place(feature)
            vector[place] += sign * math.sqrt(weight)  # damped, so that one repeated word does not drown the rest
        norm = math.sqrt(sum(x * x for x in vector))
        if norm == 0:  # all features cancelled out
            vector[_place(text)[0]] = norm = 1.0
        return [x / norm for x in vector]

    def close(self) -> None:
        pass


def _features(text: str) -> Iterator[tuple[str, float]]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = re.findall(r"\w+", folded) or [folded]  # a text of nothing but signs is its own word
    for word in words:
        yield f"w:{word}", 2.0
        padded = f"<{word}>"
        for size in (3, 4):
            for start in range(len(padded) - size + 1):
                yield f"c:{padded[start : start + size]}", 0.25
    for pair in pairwise(words):
        yield f"p:{' '.join(pair)}", 0.25


def _place(feature: str) -> tuple[int, int]:
    # blake2b and not hash(): Python salts hash() anew in each process.
    number = int.from_bytes(hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    return (number >> 1) % DIMENSIONS, 1 if number & 1 else -1


class OpenAIEmbedder:
    """POST {base}/v1/embeddings, as in https://platform.openai.com/docs/api-reference/embeddings/create."""

    def __init__(self, base_url: str, api_key: str, model: str) -> None:
        self.model = model
        self._api_key = api_key
        # OpenAI's own client wants the /v1 in its base URL; take both.
        self._url = base_url.rstrip("/").removesuffix("/v1") + "/v1/embeddings"
        self._client = httpx.Client(timeout=httpx.Timeout(15, connect=5))

    def problem(self) -> str | None:
        return None if self._api_key else "OPENAI_API_KEY is empty: set it, or set EMBEDDINGS_PROVIDER=local"

    def embed(self, text: str) -> list[float]:
        if problem := self.problem():
            raise EmbeddingError(503, problem)
        try:
            response = self._client.post(
                self._url,
                headers={"Authorization": f"Bearer {self._api_key}"},
                json={"model": self.model, "input": text, "encoding_format": "float"},
            )
        except httpx.TimeoutException as error:
            raise EmbeddingError(503, "The embeddings provider did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise EmbeddingError(503, f"The embeddings provider cannot be reached ({type(error).__name__})") from error
        # The body of a refusal is not passed on: OpenAI repeats parts of the key in it.
        if response.status_code == 429 or response.status_code >= 500:
            raise EmbeddingError(503, f"The embeddings provider answered {response.status_code}; try again later")
        if response.status_code != 200:
            raise EmbeddingError(502, f"The embeddings provider answered {response.status_code}")
        return _check(response)

    def close(self) -> None:
        self._client.close()


def _check(response: httpx.Response) -> list[float]:
    try:
        vector = [float(x) for x in response.json()["data"][0]["embedding"]]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise EmbeddingError(502, "The embeddings provider's answer holds no embedding") from error
    if len(vector) != DIMENSIONS:
        raise EmbeddingError(
            502, f"The embeddings provider sent {len(vector)} dimensions, the database holds {DIMENSIONS}"
        )
    if not all(map(math.isfinite, vector)) or not any(vector):
        raise EmbeddingError(502, "The embeddings provider's answer is not a usable vector")
    return vector

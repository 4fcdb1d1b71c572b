"""What version 0.1.0 has stored, put back into a Redis."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import redis

STORED = Path(__file__).with_name("stored_by_0_1_0")


def restore(url: str, data_dir: Path, change: Callable[[str], str] = str) -> None:
    """Puts every key back.

    Args:
        url: Of a Redis.
        data_dir: The learner's folder, which records name.
        change: What becomes of every text that is stored.
    """

    def raw(text: str) -> bytes:
        if text.startswith("base64:"):
            return base64.b64decode(text.removeprefix("base64:"))
        return change(text.replace("{data_dir}", str(data_dir))).encode()

    with redis.Redis.from_url(url) as client:
        for key, item in json.loads((STORED / "redis.json").read_text()).items():
            value = item["value"]
            match item["kind"]:
                case "hash":
                    client.hset(key, mapping={raw(name): raw(text) for name, text in value.items()})
                case "string":
                    client.set(key, raw(value))
                case "list":
                    client.rpush(key, *map(raw, value))
                case "set":
                    client.sadd(key, *map(raw, value))
                case "zset":
                    client.zadd(key, {raw(member): score for member, score in value})
                case "stream":
                    for row, fields in value:
                        client.xadd(key, {raw(name): raw(text) for name, text in fields.items()}, id=row)

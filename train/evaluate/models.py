"""Which models an evaluation is of: what tells the policy, and a model that plays the user, from another one.

A name does not: weights are trained anew under the same path, and another model is served at the same address.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tracemill.config import Config, EndpointConfig, VllmConfig
from tracemill.trace import Json
from tracemill.train.model import contents


def models_of(config: Config) -> dict[str, dict[str, Json]]:
    """By role. Raises ConfigError or TeacherError where an endpoint does not say what it serves."""
    roles = {"policy": config.teacher, "user": config.user}
    return {role: _identity(spec) for role, spec in roles.items() if isinstance(spec, EndpointConfig | VllmConfig)}


def _identity(spec: EndpointConfig | VllmConfig) -> dict[str, Json]:
    if isinstance(spec, EndpointConfig):
        return asyncio.run(_served(spec))
    found = {"name": Path(spec.model).name}
    parts = {"weights": Path(spec.model), "chat_template": spec.chat_template, "adapter": spec.adapters.get(spec.adapter or "")}
    return found | {part: contents(path) for part, path in parts.items() if path is not None and path.exists()}


async def _served(spec: EndpointConfig) -> dict[str, Json]:
    from tracemill.generators.teachers.openai import OpenAIChat

    chat = OpenAIChat(spec)
    await chat.start()
    await chat.close()
    return chat.identity

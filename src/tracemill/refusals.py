"""How a command ends that cannot do what it is told."""

from __future__ import annotations

from typing import NoReturn

import typer

from tracemill.errors import TracemillError


class refusals:
    """Our own errors end the command with their message, not with a traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TracemillError):
            fail(str(error))


def fail(message: str) -> NoReturn:
    typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    raise typer.Exit(2)

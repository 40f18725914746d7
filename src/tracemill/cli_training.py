"""The part of the command line that trains and evaluates: `tracemill train | evaluate | compare`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tracemill.refusals import refusals

train = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Train a model on a run: SFT, then DPO.")
Folder = Annotated[Path, typer.Argument(exists=True, file_okay=False)]


def evaluate(
    policy: Annotated[
        str | None, typer.Option(help="Folder or Hub name of a model, folder of a LoRA adapter, URL of an endpoint, or 'scripted'.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where episodes and report go; an evaluation that is there already is continued.")] = ...,  # type: ignore[assignment]
    data: Annotated[
        Path | None,
        typer.Option(help="A run: the policy is tried on its environments and kinds, and on the templates that it held out.", exists=True),
    ] = None,
    suite: Annotated[str | None, typer.Option(help="standard, adversarial or all. [default: standard]")] = None,
    scenarios: Annotated[int | None, typer.Option(help="Of each arm of the suite. [default: 50]")] = None,
    samples: Annotated[int | None, typer.Option(help="Rollouts of each scenario, for pass@k and pass^k. [default: 1]")] = None,
    mode: Annotated[list[str] | None, typer.Option(help="Compare execution modes: fast, balanced, thorough. Repeatable.")] = None,
    environment: Annotated[list[str] | None, typer.Option(help="Only these environments. Repeatable.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds. Repeatable.")] = None,
    user: Annotated[str | None, typer.Option(help="Who plays the user: 'scripted', a model or a URL. [default: scripted]")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same scenarios. [default: 0]")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings; flags win over it.", exists=True)] = None,
    actors: Annotated[int | None, typer.Option(help="Ray actors. [default: one for each CPU or engine]")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Rollouts in flight in each actor. [default: 32]")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Join this Ray cluster ('auto' for the running one).")] = None,
) -> None:
    """Play a policy in the environments, on scenarios that no run holds, and report how good an agent it is."""
    flags = {
        "policy": policy, "suite": suite, "scenarios": scenarios, "samples": samples, "modes": mode or None, "user": user, "seed": seed,
        "actors": actors, "concurrency": concurrency,
        "kinds": dict.fromkeys(kind, 1.0) if kind else None,
        "environments": dict.fromkeys(environment, 1.0) if environment else None,
    }  # fmt: skip
    sys.path.insert(0, str(Path.cwd()))  # so that module:Class finds a module in the working folder
    with refusals():
        from tracemill import evaluate as evaluation

        settings, tried_on = evaluation.load_evaluation(config, data, flags)
        code = evaluation.evaluate(settings, tried_on, out, ray_address=ray_address)
    raise typer.Exit(code)


def compare(
    a: Folder,
    b: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare two evaluations scenario by scenario: B against A, with intervals and McNemar's test."""
    with refusals():
        from tracemill.evaluate import compare as show

        show(a, b, as_json=as_json)


COMMANDS: dict[Callable[..., None], str] = {
    evaluate: "**Examples**\n\n"
    "`tracemill evaluate --policy runs/sft --data runs/first --out runs/sft-evaluated`\n\n"
    "`tracemill evaluate --policy http://127.0.0.1:8000/v1 --suite all --samples 4 --out runs/endpoint`\n\n"
    "`tracemill evaluate --policy Qwen/Qwen3-8B --mode fast --mode balanced --mode thorough --out runs/modes`\n\n"
    "Run the same command again to continue an evaluation that was stopped or killed.",
    compare: "**Example**\n\n`tracemill compare runs/base-evaluated runs/sft-evaluated`",
}

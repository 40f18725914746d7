"""The command line: `tracemill generate | import | verify | stats | show | environments | schema | tools`, and what
`cli_training.py` and `cli_sharing.py` add.

Heavy packages (ray, datasets, pyarrow) are imported by the commands that need them, so that `tracemill --help` is
there at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tracemill import cli_sharing, cli_training
from tracemill.refusals import fail, refusals

app = typer.Typer(
    name="tracemill",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Verified training data for agents: executed, replayed and constitution-checked traces.",
)
imports = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Import conversations that were made elsewhere: checked in form, never replayed.",
)
app.add_typer(imports, name="import")
app.add_typer(cli_training.train, name="train")
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The output folder of a run.", exists=True, file_okay=False)]


@app.command(
    epilog="**Examples**\n\n"
    "`tracemill generate --out runs/first --accept 300`\n\n"
    "`tracemill generate --config my.yaml --seed 7 --out runs/second`\n\n"
    "`tracemill generate --environment my_module:MyEnvironment --out runs/mine`\n\n"
    "`tracemill generate --teacher Qwen/Qwen3-8B --mode thorough --out runs/vllm`\n\n"
    "`tracemill generate --teacher http://127.0.0.1:8000/v1 --siblings 4 --out runs/pairs`\n\n"
    "Run the same command again to continue a run that was stopped or killed."
)
def generate(
    out: Annotated[Path, typer.Option(help="Where the dataset goes; a run that is there already is continued.")],
    config: Annotated[Path | None, typer.Option(help="YAML file with settings; flags win over it.")] = None,
    accept: Annotated[int | None, typer.Option(help="How many accepted traces in all. [default: 300]")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed and config, same accepted set. [default: 0]")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only these kinds: tool_call, goal_decomposition, error_recovery. Repeatable.")
    ] = None,
    environment: Annotated[
        list[str] | None, typer.Option(help="Only these: a built-in name, module:Class, or an MCP file. Repeatable.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="'scripted', a model for vLLM (folder or Hub name), or the URL of an endpoint. [default: scripted]")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Who plays the user: 'scripted', 'teacher', a model or a URL. [default: scripted]")
    ] = None,
    critic: Annotated[
        str | None, typer.Option(help="Who judges beside the rules: 'none', 'teacher', a model or a URL. [default: none]")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="fast, balanced or thorough. [default: balanced]")] = None,
    siblings: Annotated[int | None, typer.Option(help="Rollouts of each scenario, for preference pairs. [default: 1]")] = None,
    flaws: Annotated[float | None, typer.Option(help="Share of first drafts that the scripted teacher spoils. [default: 0.1]")] = None,
    holdout: Annotated[
        float | None, typer.Option(help="Share of each environment's goal templates that is kept back for evaluation. [default: 0]")
    ] = None,
    constitution: Annotated[Path | None, typer.Option(help="Your own constitution file.")] = None,
    actors: Annotated[int | None, typer.Option(help="Ray actors. [default: one for each CPU]")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Rollouts in flight in each actor. [default: 32]")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Join this Ray cluster ('auto' for the running one).")] = None,
) -> None:
    """Make a dataset of verified traces."""
    from tracemill.config import load_config

    flags = {
        "accept": accept, "seed": seed, "flaws": flaws, "constitution": constitution, "actors": actors, "concurrency": concurrency,
        "teacher": teacher, "user": user, "critic": critic, "mode": mode, "siblings": siblings, "holdout": holdout,
        "kinds": dict.fromkeys(kind, 1.0) if kind else None,
        "environments": dict.fromkeys(environment, 1.0) if environment else None,
    }  # fmt: skip
    sys.path.insert(0, str(Path.cwd()))  # so that module:Class finds a module in the working folder
    with refusals():
        settings = load_config(config, flags)
        from tracemill.generate import generate as make

        code = make(settings, out, ray_address=ray_address)
    raise typer.Exit(code)


@app.command(epilog="**Example**\n\n`tracemill verify runs/first && echo fine`")
def verify(
    out: Out,
    workers: Annotated[int, typer.Option(min=0, help="Processes that check side by side. [default: one for each CPU]")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write all findings to this file as JSON lines.")] = None,
) -> None:
    """Check a dataset again from its files alone: schema, arguments, replay, goal, proofs, rules. Ends with 1 if a
    single record fails."""
    sys.path.insert(0, str(Path.cwd()))
    with refusals():
        from tracemill.verify import verify as check

        code = check(out, workers=workers, report=report)
    raise typer.Exit(code)


@app.command(epilog="**Example**\n\n`tracemill stats runs/first`")
def stats(
    out: Out,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """How diverse a run is: environments, templates, tools, call sequences, lengths, near-duplicates."""
    with refusals():
        from tracemill.stats import show_stats

        show_stats(out, as_json=as_json)


@app.command(
    epilog="**Examples**\n\n`tracemill show runs/first`\n\n`tracemill show runs/first --kind error_recovery --limit 3`\n\n`tracemill show runs/first tm-0a1b…`"
)
def show(
    out: Out,
    id: Annotated[str | None, typer.Argument(help="Only the trace whose id begins like this.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind.")] = None,
    environment: Annotated[str | None, typer.Option(help="Only this environment.")] = None,
    template: Annotated[str | None, typer.Option(help="Only this goal template.")] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="Show the ledger instead of the accepted traces.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
) -> None:
    """Page through traces, readably."""
    with refusals():
        from tracemill.show import show_traces

        show_traces(out, id=id, kind=kind, environment=environment, template=template, rejects=rejects, limit=limit)


@app.command(
    epilog="**Examples**\n\n`tracemill environments`\n\n`tracemill environments store`\n\n`tracemill environments my_module:MyEnvironment --check`"
)
def environments(
    name: Annotated[str | None, typer.Argument(help="A built-in name, module:Class, or an MCP file: show it in detail.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Try out the goals of this one: their references are run.")] = False,
) -> None:
    """List the environments, or show one: policy, tools with their effects, goal templates. Ends with 1 if --check finds
    a goal that does not do."""
    sys.path.insert(0, str(Path.cwd()))
    with refusals():
        if check:
            raise typer.Exit(_checked(name))
        from tracemill.show import show_environments

        show_environments(name)


def _checked(name: str | None) -> int:
    import asyncio

    from tracemill.generators.environments.catalogue import environment
    from tracemill.generators.environments.gate import gate
    from tracemill.generators.environments.goal import templates

    if name is None:
        fail("--check wants to know which environment")
    cls = environment(name)
    problems = asyncio.run(gate(cls))
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{len(problems)} problem(s) with the goals of {cls.name}." if problems else f"All {len(templates(cls))} goals are fine.")
    return 1 if problems else 0


@app.command(epilog="**Examples**\n\n`tracemill schema`\n\n`tracemill schema trace > trace.schema.json`")
def schema(
    kind: Annotated[str | None, typer.Argument(help="trace, preference, rejection, scenario, plan, conversation or refusal.")] = None,
) -> None:
    """Print the JSON Schema of a record kind, or list them."""
    from tracemill.schemas.check import RECORD_KINDS, record_schema

    if kind is None:
        for name in RECORD_KINDS:
            typer.echo(f"{name:12} {str(record_schema(name).get('description', '')).splitlines()[0]}")
        return
    if kind not in RECORD_KINDS:
        fail(f"no record kind {kind!r}; there are {', '.join(RECORD_KINDS)}")
    typer.echo(json.dumps(record_schema(kind), indent=2, ensure_ascii=False))


@app.command(epilog="**Examples**\n\n`tracemill tools tools.json`\n\n`tracemill tools mcp-tools.jsonl --refused`")
def tools(
    file: Annotated[
        Path, typer.Argument(help="An MCP listing, OpenAI functions, or JSON lines of {server, tools}.", exists=True, dir_okay=False)
    ],
    refused: Annotated[bool, typer.Option("--refused", help="List only the refused ones.")] = False,
) -> None:
    """Load tool definitions and say which load, which are refused, and why."""
    with refusals():
        from tracemill.show import show_tools

        show_tools(file, only_refused=refused)


Dataset = Annotated[Path, typer.Option("--out", help="Where the dataset goes: a folder that is empty or not there.")]
Offered = Annotated[
    Path | None,
    typer.Option("--tools", help="Tools of the rows that name none: OpenAI functions, or an MCP listing.", exists=True, dir_okay=False),
]
MinReward = Annotated[float, typer.Option(help="Rows with a lower reward are refused; 0 keeps failures.")]


def _file(holds: str) -> Any:
    return typer.Argument(metavar="FILE", help=f"JSON lines, a JSON list, or Parquet, with {holds}.", exists=True, dir_okay=False)


@imports.command(
    epilog="**Examples**\n\n`tracemill import openai chats.jsonl --out runs/chats --tools tools.json`\n\n"
    "`tracemill import openai chats.parquet --out runs/all --min-reward 0`"
)
def openai(
    file: Annotated[Path, _file("`messages` (or `traj`), `tools`, `reward`")],
    out: Dataset,
    tools: Offered = None,
    min_reward: MinReward = 1.0,
) -> None:
    """Import conversations in the OpenAI chat format. Ends with 1 if none is accepted."""
    with refusals():
        from tracemill.importing.openai import import_openai

        code = import_openai(file, out, tools=tools, min_reward=min_reward)
    raise typer.Exit(code)


@imports.command(epilog="**Example**\n\n`tracemill import sharegpt hermes.jsonl --out runs/hermes`")
def sharegpt(
    file: Annotated[Path, _file("`conversations` (turns of `from` and `value`), `system`, `tools`")],
    out: Dataset,
    tools: Offered = None,
    min_reward: MinReward = 1.0,
) -> None:
    """Import ShareGPT conversations, as LLaMA-Factory or Hermes write calls. Ends with 1 if none is accepted."""
    with refusals():
        from tracemill.importing.sharegpt import import_sharegpt

        code = import_sharegpt(file, out, tools=tools, min_reward=min_reward)
    raise typer.Exit(code)


@imports.command(epilog="**Example**\n\n`tracemill import tau gpt-4o-airline.json --tools airline-tools.json --out runs/airline`")
def tau(
    file: Annotated[Path, _file("`task_id`, `trial`, `traj`, `reward`, `info`")],
    out: Dataset,
    tools: Offered = None,
    min_reward: MinReward = 1.0,
) -> None:
    """Import trajectories of tau-bench, each named by its task and trial. Ends with 1 if none is accepted."""
    with refusals():
        from tracemill.importing.tau import import_tau

        code = import_tau(file, out, tools=tools, min_reward=min_reward)
    raise typer.Exit(code)


for command, epilog in (cli_training.COMMANDS | cli_sharing.COMMANDS).items():  # after the commands above, as in --help
    app.command(epilog=epilog)(command)


def main() -> None:
    app()


if __name__ == "__main__":
    main()

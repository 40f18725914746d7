"""The part of the command line that brings a run to others: `tracemill push | export | clean | view | annotate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from tracemill.refusals import fail, refusals

Out = Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of a run.", exists=True, file_okay=False)]


# --- push ---------------------------------------------------------------------------------------------------


def push(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of a run, an import or a training.", file_okay=False)],
    repo: Annotated[str, typer.Option(help="Where to on the Hub, as org/name; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private.")] = False,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Go on pushing what is new, each 30s, 10m or 1h, until the run is complete. OUT may be yet to come."
        ),
    ] = None,
) -> None:
    """Bring a run or an import (as a dataset) or a training (as a model) to the Hugging Face Hub: only what is new there.

    The token is that of HF_TOKEN or of `hf auth login`. It is checked first.
    """
    with refusals():
        from tracemill.hub.push import push as bring

        code = bring(out, repo, private=private, every=every)
    raise typer.Exit(code)


# --- export -------------------------------------------------------------------------------------------------


def export(
    out: Out,
    form: Annotated[
        Literal["trl", "openai", "sharegpt", "llama-factory", "axolotl", "instruct", "sts"],
        typer.Option("--format", help="Which trainer's; docs/formats.md says what each holds."),
    ],
    folder: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the files go: a folder that is empty or not there.")],
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds. Repeatable.")] = None,
) -> None:
    """Write a run, or imported conversations, in the format of another trainer. Ends with 1 if no row is left."""
    with refusals():
        from tracemill.exporting.driver import export as write

        code = write(out, folder, form=form, kinds=kind or ())
    raise typer.Exit(code)


# --- clean --------------------------------------------------------------------------------------------------


def clean(
    out: Out,
    clean_to: Annotated[
        Path, typer.Option("--out", metavar="CLEAN", help="Where the cleaned run goes: empty, or not there. OUT stays as it is.")
    ],
    earlier: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Nothing that is like a trace of this run. Repeatable.", exists=True, file_okay=False),
    ] = None,
    benchmark: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Nothing that meets this one: JSON, JSON lines, Parquet. Repeatable.", exists=True, dir_okay=False
        ),
    ] = None,
    similar: Annotated[float, typer.Option(help="Jaccard similarity from which on two traces that do the same are near-duplicates.")] = 0.8,
    keep_findings: Annotated[bool, typer.Option("--keep-findings", help="Report secrets and personal data, and leave them in.")] = False,
) -> None:
    """Make a copy of a run, or of an import, without near-duplicates, benchmarks, secrets and personal data. Ends with 1 if nothing is left."""
    with refusals():
        from tracemill.hygiene import clean as cleaning

        job = cleaning.Cleaning(out, clean_to, tuple(earlier or ()), tuple(benchmark or ()), similar, keep_findings)
        code = cleaning.clean(job)
    raise typer.Exit(code)


# --- view and annotate --------------------------------------------------------------------------------------


def view(
    out: Out,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 is any free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser; the address is printed.")] = False,
) -> None:
    """Browse, filter and search a run or an import in a local web page, also while it still grows. Nothing leaves this machine."""
    with refusals():
        from tracemill.viewer.api import view as show

        show(out, port=port, open_browser=not no_open)


def annotate(
    out: Out,
    name: Annotated[str | None, typer.Option(metavar="ANNOTATOR", help="Who judges: opens the page.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Judge whole trajectories from where they part, not next messages.")] = False,
    judges: Annotated[int, typer.Option(min=1, help="How many people should judge each pair; 2 or more show how far they agree.")] = 2,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    to: Annotated[
        Path | None, typer.Option("--export", metavar="FOLDER", help="Write what is decided as preference pairs, in place of judging.")
    ] = None,
    with_names: Annotated[bool, typer.Option("--with-names", help="Export the names of who judged; else they are numbers.")] = False,
) -> None:
    """Let people judge the preference pairs of a run, blind. Without --name and --export: progress and agreement."""
    with refusals():
        if name is not None and to is not None:
            fail("--name judges and --export writes: give one of them")
        from tracemill.annotating import server

        if to is not None:
            server.export_judgements(out, to, whole=whole, names=with_names)
        elif name is not None:
            server.annotate(out, name, whole=whole, judges=judges, port=port, open_browser=not no_open)
        else:
            server.show_progress(out, whole=whole, judges=judges)


COMMANDS: dict[Callable[..., None], str] = {
    view: "**Examples**\n\n`tracemill view runs/first`\n\n`tracemill view runs/first --port 8421 --no-open`",
    push: "**Examples**\n\n"
    "`tracemill push runs/first --repo org/agent-traces --private`\n\n"
    "`tracemill push runs/first --repo org/agent-traces --every 10m` beside `tracemill generate --out runs/first`\n\n"
    "`tracemill push runs/sft --repo org/agent-adapter`\n\n"
    "Run the same command again to go on with a push that was stopped or killed.",
    export: "**Examples**\n\n"
    "`tracemill export runs/first --format trl --out exports/trl`\n\n"
    "`tracemill export runs/first --format llama-factory --kind tool_call --kind error_recovery --out exports/lf`\n\n"
    "`tracemill export runs/imported --format axolotl --out exports/axolotl`",
    clean: "**Examples**\n\n"
    "`tracemill clean runs/second --out runs/clean --earlier runs/first`\n\n"
    "`tracemill clean runs/first --out runs/clean --benchmark tau.json --benchmark bfcl.jsonl`\n\n"
    "`tracemill clean runs/imported --out runs/clean --similar 0.7 --keep-findings`",
    annotate: "**Examples**\n\n"
    "`tracemill annotate runs/first --name Ada`\n\n"
    "`tracemill annotate runs/first` shows progress and agreement\n\n"
    "`tracemill annotate runs/first --export runs/preferred`",
}
"""Each with its examples."""

"""`tracemill generate`: a run with its live view and its summary."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from tracemill.calling import command, python
from tracemill.config import MODES, Config, EndpointConfig, VllmConfig
from tracemill.generators.scenario import kind_of
from tracemill.job import Generation, build_job, engines, run_record
from tracemill.stopping import Stop, begin_again, stoppable
from tracemill.trace import Kind
from tracemill.writer import Tally, Writer

PLAIN_EVERY = 10.0  # seconds between lines where the output is no terminal


def generate(config: Config, out: Path, *, ray_address: str | None = None) -> int:
    """Run to the end or to Ctrl-C; the exit code: 0 complete, 1 barren, 130 stopped."""
    console = Console()
    job = build_job(config)
    quotas = config.quotas()
    writer = Writer(out, quotas=quotas, kind_of=lambda index: kind_of(job.seed, index, job.mix), run=run_record(config))
    before = writer.tally.accepted.total()
    if before and not writer.full:
        console.print(f"Continuing {escape(str(out))}: {before:,} of {sum(quotas.values()):,} are there.", highlight=False)
    ending = "complete"
    started = time.monotonic()
    stop = Stop()
    if not writer.full:
        console.print(Text("Starting Ray …", style="dim"))
        from tracemill import cluster

        cluster.start(address=ray_address, cpus=max(os.cpu_count() or 1, config.actors), on_loss=lambda: begin_again(stop))
        actors = cluster.actors_for(config)
        for line in _models(config):
            console.print(Text(line, style="dim"), highlight=False)
        for engine in engines(config):
            console.print(Text(f"Loading {engine.model} with vLLM in {actors} actor(s) …", style="dim"))
        view = View(console, writer, quotas, actors * config.concurrency)
        with stoppable(stop), view:
            ending = cluster.run(
                Generation(config), writer, actors=actors, on_progress=view.update, on_notice=view.notice, should_stop=stop.is_set
            )
    writer.close()
    _summary(console, config, out, writer, ending, before, time.monotonic() - started)
    return {"complete": 0, "barren": 1, "stopped": 130}[ending]


def _models(config: Config) -> Iterator[str]:
    """What the models of a run are told to do, so that a mode is no secret."""
    for role, spec in (("agent", config.teacher), ("user", config.user), ("critic", config.critic)):
        if isinstance(spec, VllmConfig | EndpointConfig):
            care = spec.care(MODES[config.mode])
            told = (
                f"temperature {care.temperature:g}, at most {care.max_tokens:,} tokens a message, {care.reasoning_steps} reasoning step(s)"
            )
            yield f"{role.capitalize()}: {spec.model or 'the endpoint'}, mode {config.mode}: {'temperature 0' if role == 'critic' else told}"


class View:
    """Live: accepted by kind, rejected by stage, rate, time left, in flight, tokens. Without a terminal: a line now and then."""

    def __init__(self, console: Console, writer: Writer, quotas: dict[Kind, int], slots: int) -> None:
        self._console = console
        self._writer = writer
        self._slots = slots
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), writer.tally.accepted.total())], maxlen=60)
        self._total = sum(quotas.values())
        self._progress = Progress(
            TextColumn("{task.description:20}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.percentage:>3.0f}%")
        )
        self._bars: dict[str, TaskID] = {kind: self._progress.add_task(kind, total=number) for kind, number in quotas.items()}
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._shown = time.monotonic()

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, in_flight: int) -> None:
        now = time.monotonic()
        if now - self._shown < (0.25 if self._live else PLAIN_EVERY):
            return
        self._shown = now
        self._recent.append((now, self._writer.tally.accepted.total()))
        if self._live:
            for kind, bar in self._bars.items():
                self._progress.update(bar, completed=self._writer.tally.accepted[kind])
            self._live.update(Group(self._progress, Text(self._line(in_flight), style="dim")))
        else:
            print(self._line(in_flight), file=sys.stderr, flush=True)

    def notice(self, text: str) -> None:
        """Something that the user should know while the run goes on."""
        self._console.print(Text(text, style="yellow"))

    def _line(self, in_flight: int) -> str:
        tally = self._writer.tally
        (since, then), (now, count) = self._recent[0], self._recent[-1]
        rate = (count - then) / (now - since) if now > since else 0.0
        left = self._total - count
        eta = _duration(left / rate) if rate else "?"
        rejected = ", ".join(f"{stage} {number}" for stage, number in sorted(tally.rejected.items())) or "none"
        return (
            f"{count:,}/{self._total:,} accepted · rejected: {rejected} · revised {tally.revised} · {rate:.0f}/s · "
            f"{eta} left · {min(in_flight, self._slots)} in flight · {tally.completion_tokens / 1e6:.2f}M tokens written"
        )


def _summary(console: Console, config: Config, out: Path, writer: Writer, ending: str, before: int, seconds: float) -> None:
    tally = writer.tally
    made = tally.accepted.total() - before
    grid = Table.grid(padding=(0, 2))
    for kind, number in writer.quotas.items():
        grid.add_row(kind, f"{tally.accepted[kind]:,} of {number:,}")
    grid.add_row("revised drafts", f"{tally.revised:,}, {tally.preferences:,} preference pairs")
    grid.add_row("rejected", ", ".join(f"{stage} {number:,}" for stage, number in sorted(tally.rejected.items())) or "none")
    if tally.rejected:
        grid.add_row("to blame", ", ".join(f"{who} {number:,}" for who, number in tally.blamed.most_common()))
        grid.add_row("yield", _yield(tally))
    if made:
        grid.add_row("speed", f"{made:,} accepted in {_duration(seconds)} ({_rate(made, seconds)})")
    grid.add_row("tokens", f"{tally.prompt_tokens:,} read, {tally.completion_tokens:,} written{_each(tally)}")
    if tally.cost:
        each = f", {tally.cost / tally.accepted.total():,.6g} for each accepted trace" if tally.accepted else ""
        grid.add_row("cost", f"{tally.cost:,.6g}{each}")
    if config.critic != "none":
        grid.add_row("critic", _critic(out))
    where = escape(str(out))
    state = {
        "complete": f"[green]Done.[/] {tally.accepted.total():,} accepted traces are in [bold]{where}[/]",
        "stopped": f"[yellow]Stopped.[/] Nothing is lost; run the same command again to continue [bold]{where}[/]",
        "barren": f"[red]Given up:[/] nothing was accepted for thousands of scenarios in a row. See the reasons: {escape(command('show', out, '--rejects'))}",
    }[ending]
    console.print(state, highlight=False)
    console.print(grid, highlight=False)
    if ending == "complete":
        console.print("\n[dim]What to do next[/]", highlight=False)
        use = f"from datasets import load_dataset; print(load_dataset({str(out)!r}))"
        for line, why in (
            (command("verify", out), "check every record again from the files"),
            (command("stats", out), "see how diverse it is"),
            (command("view", out), "read some, in the browser; or here: show"),
            (f'{shlex.quote(python())} -c "{use}"', "use it"),
        ):
            console.print(f"  {escape(line)}  [dim]# {why}[/]", highlight=False, soft_wrap=True)


def _yield(tally: Tally) -> str:
    """Of what reached each stage, how much passed it; and of what the agent decided, how much was accepted."""
    stages = [f"{stage} {(reached - lost) / reached:.0%}" for stage, reached, lost in tally.stages() if lost]
    whole = f"{tally.accepted.total() / tally.finished:.1%} of all scenarios"
    share = tally.agent_yield
    return f"{whole} ({', '.join(stages)})" + (f"; {share:.1%} of those that the agent decided" if share is not None else "")


def _rate(made: int, seconds: float) -> str:
    return f"{made / seconds:,.0f}/s" if made >= 10 * seconds else f"{_duration(seconds / made)} each"


def _each(tally: Tally) -> str:
    accepted = tally.accepted.total()
    return f"; {(tally.prompt_tokens + tally.completion_tokens) / accepted:,.0f} for each accepted trace" if accepted else ""


def _critic(out: Path) -> str:
    from tracemill.stats import critic_agreement

    found = critic_agreement(out)
    overall = found.overall
    if not overall.judged:
        return f"measured against no rule yet; {found.unreadable:,} critiques could not be read"
    shares = {"precision": overall.precision, "recall": overall.recall, "kappa": overall.kappa}
    told = ", ".join(f"{name} {'-' if share is None else f'{share:.2f}'}" for name, share in shares.items())
    return f"{told} against the rules ({overall.judged:,} judgements); {found.unreadable:,} critiques could not be read"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s" if minutes else f"{seconds:.1f}s" if seconds < 10 else f"{rest}s"
    )

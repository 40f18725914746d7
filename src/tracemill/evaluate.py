"""`tracemill evaluate` and `tracemill compare`: a policy in the environments, and two policies side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from tracemill import __version__
from tracemill.config import Config, EndpointConfig, load_config, read_config, validation_problems
from tracemill.constitution.constitution import load_constitution
from tracemill.errors import ConfigError
from tracemill.job import engines
from tracemill.stopping import Stop, begin_again, stoppable
from tracemill.trace import Json, fingerprint
from tracemill.train.evaluate.compare import compare as compare_episodes
from tracemill.train.evaluate.play import Evaluation
from tracemill.train.evaluate.report import build_report
from tracemill.train.evaluate.sheet import Sheet, episodes
from tracemill.train.evaluate.suite import Plan, SuiteConfig
from tracemill.train.evaluate.tables import show, show_comparison
from tracemill.writer import write_whole


def load_evaluation(path: Path | None, data: Path | None, flags: Mapping[str, Any]) -> tuple[Config, SuiteConfig]:
    """A YAML file, then the flags that were given; environments, kinds and holdout are those of the run `data`, where it is given
    and nothing else is said. Raises ConfigError with all problems at once."""
    given: dict[str, Any] = _of_run(data) if data else {}
    given |= read_config(path) if path else {}
    given |= {key: value for key, value in flags.items() if value is not None}
    problems: list[str] = []
    policy = given.pop("policy", None)
    if policy is None:
        problems.append("policy: expected 'scripted', the folder or name of a model, an adapter's folder, or the URL of an endpoint")
    own = {key: given.pop(key) for key in SuiteConfig.model_fields if key in given}
    suite = SuiteConfig()
    try:
        suite = SuiteConfig.model_validate(own)
    except ValidationError as errors:
        problems += validation_problems(errors, SuiteConfig)
    config = Config()
    try:
        config = load_config(None, {**given, "teacher": _policy(policy or "scripted"), "flaws": 0.0})
    except ConfigError as error:
        problems += [problem.replace("teacher", "policy", 1) for problem in error.problems or (error.message,)]
    if problems:
        raise ConfigError(f"the evaluation has {len(problems)} problem(s)", problems)
    return config, suite


def _of_run(data: Path) -> dict[str, Any]:
    try:
        run = json.loads((data / "run.json").read_text(encoding="utf-8"))["content"]
    except (OSError, ValueError, KeyError) as reason:
        raise ConfigError(f"{data} holds no run: expected the output folder of tracemill generate", [str(reason)]) from reason
    return {key: run[key] for key in ("environments", "kinds", "holdout") if run.get(key)}


def _policy(policy: Any) -> Any:
    """A LoRA adapter's folder stands for its base model with the adapter on it."""
    adapter = Path(policy) / "adapter_config.json" if isinstance(policy, str) else None
    if adapter is None or not adapter.is_file():
        return policy
    base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ConfigError(f"policy: {adapter} names no base model: give it as policy: {{model: ..., adapters: {{policy: {policy}}}}}")
    return {"model": base, "adapters": {"policy": policy}, "adapter": "policy"}


def evaluate(config: Config, suite: SuiteConfig, out: Path, *, ray_address: str | None = None) -> int:
    """Play every try, then write and show the report; the exit code: 0 complete, 1 some tries were lost, 130 stopped."""
    console = Console()
    plan = Plan(config, suite)
    sheet = Sheet(out, len(plan), _record(config, suite))
    if sheet.done and not sheet.full:
        console.print(f"Continuing {escape(str(out))}: {sheet.done:,} of {len(plan):,} rollouts are there.", highlight=False)
    ending = "complete"
    if not sheet.full:
        from tracemill import cluster

        stop = Stop()
        console.print(Text("Starting Ray …", style="dim"))
        cluster.start(address=ray_address, cpus=max(os.cpu_count() or 1, config.actors), on_loss=lambda: begin_again(stop))
        actors = cluster.actors_for(config)
        for engine in engines(config):
            console.print(Text(f"Loading {engine.model} with vLLM in {actors} actor(s) …", style="dim"))
        with stoppable(stop), _progress(console, sheet, len(plan)) as update:
            ending = cluster.run(
                Evaluation(config, suite), sheet, actors=actors, on_progress=update, should_stop=stop.is_set,
                on_notice=lambda text: console.print(Text(text, style="yellow")),
            )  # fmt: skip
    sheet.close()
    if ending != "complete":
        console.print(
            f"[yellow]Stopped.[/] Nothing is lost; run the same command again to continue [bold]{escape(str(out))}[/]", highlight=False
        )
        return 130
    return _conclude(console, config, suite, sheet)


def _conclude(console: Console, config: Config, suite: SuiteConfig, sheet: Sheet) -> int:
    out = sheet.out
    report = build_report(episodes(out), facts=_facts(config, suite, sheet))
    write_whole(out / "report.json", json.dumps(report.plain(), indent=2) + "\n")
    write_whole(out / "report.html", report.html())
    show(report, console)
    if sheet.lost:
        reason = next(iter(sheet.lost.values()))
        console.print(
            f"[yellow]{len(sheet.lost):,} rollouts were lost, not failed:[/] {escape(reason)}. Run the same command again to repeat them."
        )
    console.print(f"\nThe whole report: [bold]{escape(str(out / 'report.html'))}[/]", highlight=False)
    console.print(f"Another policy on the same scenarios: tracemill compare {escape(str(out))} OTHER", highlight=False)
    return 1 if sheet.lost else 0


def compare(first: Path, second: Path, *, as_json: bool = False) -> None:
    """Print how two policies did on the same scenarios. Raises DatasetError where these are not the same."""
    comparison = compare_episodes(list(episodes(first)), list(episodes(second)))
    plain = {"a": str(first), "b": str(second), **comparison.plain()}
    if as_json:
        print(json.dumps(plain, indent=2))
    else:
        show_comparison(plain, Console())


def _record(config: Config, suite: SuiteConfig) -> dict[str, Json]:
    content = {**config.content(load_constitution(config.constitution).digest()), "suite": suite.model_dump(mode="json")}
    return {"tracemill": __version__, "digest": fingerprint(content), "content": content, "actors": config.actors}


def _facts(config: Config, suite: SuiteConfig, sheet: Sheet) -> dict[str, Json]:
    return {
        "policy": _named(config),
        "suite": suite.suite,
        "scenarios": suite.scenarios,
        "samples": suite.samples,
        "seed": config.seed,
        "environments": sorted(config.environments),
        "kinds": sorted(config.weights()),
        "holdout": config.holdout,
        "lost": len(sheet.lost),
        "tracemill": __version__,
    }


def _named(config: Config) -> str:
    policy = config.teacher
    if isinstance(policy, str):
        return policy
    if isinstance(policy, EndpointConfig):
        return policy.model or "the endpoint's model"
    return Path(policy.model).name + (f" + {policy.adapters[policy.adapter].name}" if policy.adapter else "")


@contextmanager
def _progress(console: Console, sheet: Sheet, total: int) -> Iterator[Any]:
    """A bar on a terminal, elsewhere a line now and then."""
    columns = (TextColumn("rollouts"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[success]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task: TaskID = progress.add_task("rollouts", total=total, success="")
        told = [sheet.done]

        def update(in_flight: int) -> None:
            progress.update(task, completed=sheet.done, success=f"{sheet.successes / max(1, sheet.done):.0%} success")
            if not console.is_terminal and sheet.done >= told[0] + max(10, total // 20):
                told[0] = sheet.done
                console.print(f"{sheet.done:,}/{total:,} rollouts · {sheet.successes / sheet.done:.0%} success", highlight=False)

        yield update

"""`tracemill evaluate`: a policy in the environments."""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
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
from tracemill.calling import command
from tracemill.config import Config, EndpointConfig, ModelConfig, load_config, read_config, unknown_key, validation_problems
from tracemill.constitution.constitution import load_constitution
from tracemill.errors import ConfigError, TeacherError
from tracemill.job import engines
from tracemill.stopping import Stop, begin_again, stoppable
from tracemill.trace import Json, fingerprint
from tracemill.train.evaluate.models import models_of
from tracemill.train.evaluate.play import Evaluation
from tracemill.train.evaluate.report import build_report
from tracemill.train.evaluate.sheet import Sheet, episodes
from tracemill.train.evaluate.suite import NOT_HERE, Plan, SuiteConfig, in_its_words
from tracemill.train.evaluate.tables import show
from tracemill.train.model import base_of, is_adapter
from tracemill.writer import write_whole

MOST_REASONS = 3


KNOWN = ("policy", *SuiteConfig.model_fields, *(name for name in Config.model_fields if name not in NOT_HERE))
USERS = ("scripted", "policy")
"""Who can play the user besides a model of its own."""


def load_evaluation(path: Path | None, data: Path | None, flags: Mapping[str, Any]) -> tuple[Config, SuiteConfig]:
    """A YAML file, then the flags that were given; environments, kinds and holdout are those of the run `data`, where it is given
    and nothing else is said. Raises ConfigError with all problems at once."""
    given: dict[str, Any] = _of_run(data) if data else {}
    given |= read_config(path) if path else {}
    given |= {key: value for key, value in flags.items() if value is not None}
    problems = [unknown_key(key, key, KNOWN) for key in given if key not in KNOWN]
    policy = given.get("policy")
    if not policy:
        problems.append("policy: expected 'scripted', the folder or name of a model, an adapter's folder, or the URL of an endpoint")
    if wrong := _wrong_user(given.get("user"), policy):
        problems.append(wrong)
        del given["user"]
    suite = SuiteConfig()
    try:
        suite = SuiteConfig.model_validate({key: value for key, value in given.items() if key in SuiteConfig.model_fields})
    except ValidationError as errors:
        problems += validation_problems(errors, SuiteConfig)
    settings = {key: value for key, value in given.items() if key in Config.model_fields and key not in NOT_HERE}
    if settings.get("user") == "policy":
        settings["user"] = "teacher"
    config = Config()
    try:
        config = load_config(None, {**settings, "teacher": _policy(policy or "scripted"), "flaws": 0.0})
    except ConfigError as error:
        problems += [in_its_words(problem) for problem in error.problems or (error.message,)]
    if problems:
        raise ConfigError(f"the evaluation has {len(problems)} problem(s)", problems)
    return config, suite


def _of_run(data: Path) -> dict[str, Any]:
    try:
        run = json.loads((data / "run.json").read_text(encoding="utf-8"))["content"]
        return {key: run[key] for key in ("environments", "kinds", "holdout") if run.get(key)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as reason:
        raise ConfigError(f"{data} holds no run: expected the output folder of tracemill generate", [str(reason)]) from reason


def _policy(policy: Any) -> Any:
    """A LoRA adapter's folder stands for its base model with the adapter on it."""
    if not isinstance(policy, str) or not is_adapter(Path(policy)):
        return policy
    return {"model": base_of(Path(policy)), "adapters": {"policy": policy}, "adapter": "policy"}


def _wrong_user(user: Any, policy: Any) -> str:
    """What is wrong with a word for who plays the user; empty if nothing is, or if it is the name of a model."""
    if user == "policy" and policy in (None, "scripted"):
        return "user: 'policy' takes a model as the policy: the scripted one cannot play the user so"
    if not isinstance(user, str) or "/" in user or user in USERS:
        return ""
    slip = difflib.get_close_matches(user, (*USERS, "teacher"), n=1, cutoff=0.75)
    meant = "policy" if slip == ["teacher"] else "".join(slip)  # what a run calls it
    return f"user: expected one of {', '.join(USERS)}, or a model; got {user!r}; did you mean {meant!r}?" if slip else ""


def evaluate(config: Config, suite: SuiteConfig, out: Path, *, ray_address: str | None = None) -> int:
    """Play every try, then write and show the report; the exit code: 0 complete, 1 some tries were lost, 130 stopped."""
    console = Console()
    plan = Plan(config, suite)
    models, unknown = _models(config)
    sheet = Sheet(out, len(plan), _record(config, suite, models))
    if unknown is not None and not sheet.full:
        raise unknown
    _greet(console, config, sheet, len(plan))
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


def _models(config: Config) -> tuple[dict[str, dict[str, Json]], TeacherError | None]:
    """What tells the models from others. An endpoint that is down does not say; of a complete evaluation there is still the report."""
    try:
        return models_of(config), None
    except TeacherError as reason:
        return {}, reason


def _greet(console: Console, config: Config, sheet: Sheet, total: int) -> None:
    out = escape(str(sheet.out))
    if sheet.full:
        console.print(f"{out} is complete already; nothing was played.", highlight=False, soft_wrap=True)
    elif sheet.done:
        console.print(f"Continuing {out}: {sheet.done:,} of {total:,} rollouts are there.", highlight=False, soft_wrap=True)
    if "models" not in sheet.record and isinstance(config.teacher, ModelConfig):
        console.print("[yellow]It does not say by which model it was played:[/] this one is taken for the same.")


def _conclude(console: Console, config: Config, suite: SuiteConfig, sheet: Sheet) -> int:
    out = sheet.out
    if sheet.counted:
        report = build_report((one for one in episodes(out) if one.counts), facts=_facts(config, suite, sheet))
        write_whole(out / "report.json", json.dumps(report.plain(), indent=2) + "\n")
        write_whole(out / "report.html", report.html())
        show(report, console)
    _tell(console, sheet.left_out, "left out")
    _tell(console, sheet.spoiled, "left out of all figures, spoiled by the simulated user")
    _tell(console, sheet.lost, "lost, not failed", "Run the same command again to repeat them.")
    if not sheet.counted:
        console.print("There is nothing to report.")
        return 1
    console.print(f"\nThe whole report: [bold]{escape(str(out / 'report.html'))}[/]", highlight=False, soft_wrap=True)
    next_step = command("compare", out, "OTHER")
    console.print(f"Another policy on the same scenarios: {escape(next_step)}", highlight=False, soft_wrap=True)
    return 1 if sheet.lost else 0


def _tell(console: Console, tries: Mapping[int, str], what: str, advice: str = "") -> None:
    """How many, and each reason once, the most frequent first."""
    reasons = [reason for reason, _ in Counter(tries.values()).most_common()]
    if reasons:
        verb = "rollout was" if len(tries) == 1 else "rollouts were"
        told = "; ".join(reasons[:MOST_REASONS]) + ("; …" if len(reasons) > MOST_REASONS else "")
        console.print(f"[yellow]{len(tries):,} {verb} {what}:[/] {escape(told)}. {advice}", highlight=False)


def _record(config: Config, suite: SuiteConfig, models: dict[str, dict[str, Json]]) -> dict[str, Json]:
    content = {**config.content(load_constitution(config.constitution).digest()), "suite": suite.model_dump(mode="json")}
    return {"tracemill": __version__, "digest": fingerprint(content), "content": content, "models": models, "actors": config.actors}


def _facts(config: Config, suite: SuiteConfig, sheet: Sheet) -> dict[str, Json]:
    model = sheet.record.get("models", {}).get("policy")
    where_any = {"left_out": len(sheet.left_out), "spoiled": len(sheet.spoiled)}
    return {
        "policy": _named(config, model),
        **({"fingerprint": fingerprint(model)[:12]} if model else {}),
        "suite": suite.suite,
        "scenarios": suite.scenarios,
        "samples": suite.samples,
        "seed": config.seed,
        "environments": sorted(config.environments),
        "kinds": sorted(config.weights()),
        "holdout": config.holdout,
        "lost": len(sheet.lost),
        **{name: number for name, number in where_any.items() if number},
        "tracemill": __version__,
    }


def _named(config: Config, model: Mapping[str, Json] | None) -> str:
    policy = config.teacher
    if isinstance(policy, str):
        return policy
    if isinstance(policy, EndpointConfig):
        return str(model["name"]) if model else policy.model or "the endpoint's model"
    return _last(policy.model) + (f" + {_last(policy.adapters[policy.adapter])}" if policy.adapter else "")


def _last(path: str | Path) -> str:
    """With the folder above it: every merged model lies in one of the same name."""
    return "/".join(Path(path).parts[-2:])


@contextmanager
def _progress(console: Console, sheet: Sheet, total: int) -> Iterator[Any]:
    """A bar on a terminal, elsewhere a line now and then."""
    columns = (TextColumn("rollouts"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[success]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task: TaskID = progress.add_task("rollouts", total=total, success="")
        told = [sheet.done]

        def update(in_flight: int) -> None:
            success = f"{sheet.successes / sheet.counted:.0%} success" if sheet.counted else "none that counts yet"
            progress.update(task, completed=sheet.done, success=success)
            if not console.is_terminal and sheet.done >= told[0] + max(10, total // 20):
                told[0] = sheet.done
                console.print(f"{sheet.done:,}/{total:,} rollouts · {success}", highlight=False)

        yield update

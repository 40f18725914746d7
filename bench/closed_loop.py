"""From nothing to an agent on a CPU: what training on our traces gives, and what each part of it gives.

    python bench/closed_loop.py OUT             # two cores, less than an hour
    python bench/closed_loop.py OUT --quick     # every stage in minutes, too short to learn much

A tiny model is built that can copy and nothing else (closed_loop_base.py), and meets the post room of examples/post_room.py:

    base    before any training
    sft     trained on scripted traces of tool_call and error_recovery, wrong steps kept out of the loss
    plain   the same number of tokens, all of tool_call: no recoveries to learn from
    wrong   the same traces as sft, and wrong steps are trained like any others
    dpo     sft, and then preferences between its own rollouts of training scenarios

All are tried on the same scenarios: seeds and worlds that no training saw, and templates that no training saw. What is there
in OUT already is not made again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracemill.config import Config
from tracemill.train.evaluate.compare import compare
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.interval import Estimate, estimate, rate
from tracemill.train.evaluate.process import process
from tracemill.train.evaluate.sheet import episodes
from tracemill.train.evaluate.suite import SuiteConfig

HERE = Path(__file__).resolve().parent
ENVIRONMENT = "post_room:PostRoom"
HOLDOUT = 0.25
POLICIES = ("base", "sft", "plain", "wrong", "dpo")
SAMPLED = ("sft", "dpo")
"""Tried a second time at temperature 1, where the model errs more often than when it takes the likeliest token."""
COMPARED = (("base", "sft"), ("plain", "sft"), ("wrong", "sft"), ("sft", "dpo"), ("sft-sampled", "dpo-sampled"))
BOTH = {"tool_call": 1.0, "error_recovery": 1.0}
HARDER = {"tool_call": 1.0, "error_recovery": 3.0}  # for preferences: where nothing goes wrong, nothing is left to prefer
ROW, BATCH = 1024, 4  # tokens of a packed row, rows of a step
TOKENS = 160  # of one message at most
EXAM = 42  # seed of the evaluation's scenarios; no setting here was chosen by looking at them
Numbers = dict[str, Estimate | None]


@dataclass(frozen=True)
class Size:
    traces: int
    """Of each of the two data sets."""
    base: int
    """Tokens on which the base model learns to copy."""
    sft: int
    """Tokens of each of the three trainings."""
    pairs: int
    """Accepted scenarios of which preference pairs are made."""
    siblings: int
    """Rollouts of each by the model that was trained; 1: the scripted teacher's drafts and revisions, for a model that never succeeds."""
    dpo: float
    """Passes over the pairs."""
    exam: int
    """Scenarios of each arm of the evaluation."""


FULL = Size(traces=5000, base=1_000_000, sft=2_500_000, pairs=800, siblings=4, dpo=2.0, exam=200)
QUICK = Size(traces=200, base=30_000, sft=40_000, pairs=100, siblings=1, dpo=1.0, exam=10)


def config(**settings: Any) -> Config:
    """Of a run in the post room."""
    return Config(environments={ENVIRONMENT: 1.0}, holdout=HOLDOUT, worlds=100_000, name="closed-loop", **settings)


# --- stages: each runs in a process of its own, and leaves alone what is there -------------------------------


def data(out: Path, kinds: dict[str, float], traces: int) -> None:
    from tracemill.generate import generate

    generate(config(kinds=kinds, accept=traces, flaws=0.0), out)


def base(out: Path, traces: Path, tokens: int) -> None:
    from closed_loop_base import build_base

    if not (out / "tokenizer.json").exists():
        build_base(out, traces, tokens)


def sft(out: Path, traces: Path, start: Path, tokens: int, mask_wrong: bool) -> None:
    from tracemill.train.settings import SftSettings
    from tracemill.train.sft import sft as train

    train(SftSettings(
        data=(traces,), model=str(start), out=out, method="full", learning_rate=3e-3, max_length=ROW, batch_size=BATCH,
        gradient_accumulation=1, max_steps=max(1, tokens // (ROW * BATCH)), eval_share=0.02, mask_wrong=mask_wrong,
    ))  # fmt: skip


def pairs(out: Path, policy: Path, accepted: int, siblings: int) -> None:
    """On-policy: where the model's own rollouts of training scenarios part, and one way led to the goal more often.

    At half the temperature: what the model hardly ever says teaches it nothing when it is rejected, and costs it much (of pairs
    at temperature 1 the rejected messages were e^-10 to e^-30 likely, and training on them lost a sixth of all scenarios).
    """
    from tracemill.generate import generate

    model = {"model": str(policy), "temperature": 0.5, "max_tokens": TOKENS, "reasoning_steps": 0}
    by = {"teacher": model, "siblings": siblings} if siblings > 1 else {"flaws": 1.0}
    budget = {"repairs": 1}  # what is malformed once is mostly malformed again, and each try costs as much as a whole conversation
    generate(config(kinds=HARDER, accept=accepted, seed=2, concurrency=64, budget=budget, **by), out)


def dpo(out: Path, preferences: Path, start: Path, epochs: float) -> None:
    from tracemill.train.dpo import dpo as train
    from tracemill.train.settings import DpoSettings

    train(DpoSettings(
        data=(preferences,), model=str(start), out=out, method="full", learning_rate=1e-4, beta=0.1, sft=1.0, max_length=ROW,
        batch_size=8, gradient_accumulation=1, epochs=epochs, eval_share=0.05,
    ))  # fmt: skip


def exam(out: Path, policy: Path, scenarios: int, temperature: float = 0.0, seed: int = EXAM) -> None:
    from tracemill.evaluate import evaluate

    teacher = {"model": str(policy), "max_tokens": TOKENS, "temperature": temperature}
    budget = {"repairs": 1}
    evaluate(config(kinds=BOTH, seed=seed, teacher=teacher, budget=budget, concurrency=64), SuiteConfig(scenarios=scenarios), out)


# --- running them -------------------------------------------------------------------------------------------


class Clock:
    """Minutes of each stage, over all sessions, in OUT/minutes.json."""

    def __init__(self, out: Path) -> None:
        self._path = out / "minutes.json"
        self.minutes: dict[str, float] = json.loads(self._path.read_text()) if self._path.exists() else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        print(f"== {name}", flush=True)
        try:
            yield
        finally:
            self.minutes[name] = self.minutes.get(name, 0.0) + (time.monotonic() - started) / 60
            self._path.write_text(json.dumps(self.minutes, indent=2) + "\n")
            print(f"== {name}: {self.minutes[name]:.1f} minutes", flush=True)


def apart(stage: Callable[..., None], *arguments: Any) -> None:
    """In a process of its own, whose engines and threads end with it. Raises RuntimeError where it fails."""
    process = multiprocessing.get_context("spawn").Process(target=stage, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the stage {stage.__name__}{arguments} ended with {process.exitcode}")


def run(out: Path, size: Size, clock: Clock) -> None:
    mixed, plain = out / "data-mixed", out / "data-plain"
    with clock.stage("data"):
        apart(data, mixed, BOTH, size.traces)
        apart(data, plain, {"tool_call": 1.0}, size.traces)
    with clock.stage("base"):
        apart(base, out / "base", mixed, size.base)
    with clock.stage("sft, plain, wrong"), ThreadPoolExecutor(max_workers=2) as two:
        arms = (("sft", mixed, True), ("plain", plain, True), ("wrong", mixed, False))
        jobs = [two.submit(apart, sft, out / name, traces, out / "base", size.sft, mask) for name, traces, mask in arms]
        [job.result() for job in jobs]
    with clock.stage("pairs"):
        apart(pairs, out / "pairs", out / "sft", size.pairs, size.siblings)
    with clock.stage("dpo"):
        apart(dpo, out / "dpo", out / "pairs", out / "sft", size.dpo)
    with clock.stage("evaluation"):
        for name in POLICIES:
            apart(exam, out / f"{name}-evaluated", out / name, size.exam)
        for name in SAMPLED:
            apart(exam, out / f"{name}-sampled-evaluated", out / name, size.exam, 1.0)


# --- what came out ------------------------------------------------------------------------------------------


def numbers(played: Sequence[Episode]) -> Numbers:
    """Rates over scenarios with 95% intervals; None where nothing of the kind was played."""
    seeds = [one for one in played if one.arm == "seeds"]
    troubled = [one for one in seeds if one.scenario.kind == "error_recovery"]

    def success(some: Sequence[Episode]) -> Estimate | None:
        return rate((one.key, one.success) for one in some)

    return {
        "held-out seeds": success(seeds),
        "of them tool_call": success([one for one in seeds if one.scenario.kind == "tool_call"]),
        "of them error_recovery": success(troubled),
        "recovered where struck": success([one for one in troubled if one.troubled]),
        "held-out templates": success([one for one in played if one.arm == "templates"]),
        "wasted calls, error_recovery": estimate((one.key, float(process(one).wasted)) for one in troubled),
    }


def report(out: Path, size: Size, clock: Clock) -> None:
    tried = (*POLICIES, *(f"{name}-sampled" for name in SAMPLED))
    played = {name: list(episodes(out / f"{name}-evaluated")) for name in tried}
    found = {name: numbers(some) for name, some in played.items()}
    print(f"\n{'':30}" + "".join(f"{name:>24}" for name in tried))
    for measure in found["base"]:
        print(f"{measure:30}" + "".join(f"{shown(found[name][measure]):>24}" for name in tried))
    compared = {f"{a} -> {b}": compare(played[a], played[b]) for a, b in COMPARED}
    for name, one in compared.items():
        print(f"\n{name}")
        print("\n".join(f"  {line}" for line in one.lines()))
    total = sum(clock.minutes.values())
    print(f"\n{total:.0f} minutes in all: " + ", ".join(f"{name} {spent:.1f}" for name, spent in clock.minutes.items()))
    plain = {
        "size": asdict(size),
        "minutes": clock.minutes,
        "policies": {name: {measure: one and one.plain() for measure, one in some.items()} for name, some in found.items()},
        "compared": {name: one.plain() for name, one in compared.items()},
    }
    (out / "results.json").write_text(json.dumps(plain, indent=2) + "\n")
    plot({name: found[name] for name in POLICIES}, out / "results.png")


def shown(one: Estimate | None) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" if one else "-"


def plot(found: dict[str, Numbers], path: Path) -> None:
    from matplotlib.figure import Figure

    measures = ("held-out seeds", "held-out templates", "recovered where struck")
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot(ylim=(0, 1), ylabel="share of scenarios, 95% intervals", title="A tiny model in the post room")
    width = 0.8 / len(POLICIES)
    for at, (name, some) in enumerate(found.items()):
        bars = [(place, one) for place, measure in enumerate(measures) if (one := some[measure])]
        errors = [[one.value - one.low for _, one in bars], [one.high - one.value for _, one in bars]]
        axes.bar([place + at * width for place, _ in bars], [one.value for _, one in bars], width, yerr=errors, capsize=3, label=name)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(measures))], measures)
    axes.legend(ncols=len(POLICIES), fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for everything")
    parser.add_argument("--quick", action="store_true", help="every stage at the smallest size")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    sys.path[:0] = places = [str(HERE), str(HERE.parent / "examples")]  # the stages' processes take it over
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*places, os.environ.get("PYTHONPATH", "")])}  # and Ray's this
    out = arguments.out.resolve()  # the runs note the path of their model
    out.mkdir(parents=True, exist_ok=True)
    clock = Clock(out)
    run(out, size, clock)
    report(out, size, clock)


if __name__ == "__main__":
    main()

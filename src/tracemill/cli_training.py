"""The part of the command line that trains and evaluates: `tracemill train | evaluate | compare`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from tracemill.refusals import refusals

train = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Train a model on a run: SFT, then DPO.")
Folder = Annotated[Path, typer.Argument(exists=True, file_okay=False)]


Data = Annotated[list[Path] | None, typer.Argument(metavar="[OUT...]", help="Output folders of runs.", exists=True, file_okay=False)]
Model = Annotated[str | None, typer.Option(help="Folder or Hub name of a model, or folder of an adapter, which is trained on.")]
Result = Annotated[Path | None, typer.Option("--out", help="Where the result goes; a training that is there already is continued.")]
File = Annotated[Path | None, typer.Option("--config", help="YAML file with settings; flags win over it.", exists=True, dir_okay=False)]
Method = Annotated[str | None, typer.Option(help="lora, qlora (needs a GPU and bitsandbytes) or full. [default: lora]")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate. [default: by method, see docs/training.md]")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the data. [default: 3 for sft, 1 for dpo]")]
MaxSteps = Annotated[int | None, typer.Option(help="Optimizer steps, whatever the epochs say.")]
BatchSize = Annotated[int | None, typer.Option(help="Rows of a forward pass on each device. [default: 2]")]
Accumulation = Annotated[int | None, typer.Option(help="Forward passes of one optimizer step. [default: 4]")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens of the longest row. [default: 4096]")]
Reasoning = Annotated[str | None, typer.Option(help="Thinking: train, keep (in the context only) or drop. [default: train]")]
EvalShare = Annotated[float | None, typer.Option(help="Share of the traces that is held out and measured. [default: 0.05]")]
Ewc = Annotated[str | None, typer.Option(help="Hold the weights that this data needs (elastic weight consolidation).")]
Kl = Annotated[float | None, typer.Option(help="Hold the old predictions: weight of the KL term to the model as it was.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, settings and data, same weights on one machine. [default: 0]")]
ReportTo = Annotated[str | None, typer.Option(help="Where metrics go besides OUT: tensorboard, wandb, ... [default: none]")]
Merge = Annotated[bool | None, typer.Option("--merge", help="Write base and adapter as one model to OUT/merged too.")]
Workers = Annotated[int | None, typer.Option(help="Data-parallel workers through Ray Train. [default: 1]")]


@train.command(
    epilog="**Examples**\n\n"
    "`tracemill train sft runs/first --model Qwen/Qwen3-8B --out runs/sft --merge`\n\n"
    "`tracemill train sft runs/first --model Qwen/Qwen3-8B --out runs/sft --mix HuggingFaceTB/smoltalk:everyday-conversations=0.2`\n\n"
    "`accelerate launch --num_processes 8 -m tracemill train sft runs/first --model Qwen/Qwen3-8B --out runs/sft`\n\n"
    "Run the same command again to continue a training that was stopped or killed."
)
def sft(
    data: Data = None,
    model: Model = None,
    out: Result = None,
    file: File = None,
    method: Method = None,
    learning_rate: Rate = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    batch_size: BatchSize = None,
    gradient_accumulation: Accumulation = None,
    max_length: MaxLength = None,
    packing: Annotated[
        bool | None, typer.Option("--packing/--no-packing", help="Several conversations in a row. [default: packing]")
    ] = None,
    reasoning: Reasoning = None,
    too_long: Annotated[str | None, typer.Option(help="A trace beyond --max-length: split or drop. [default: split]")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds. Repeatable.")] = None,
    mix: Annotated[list[str] | None, typer.Option(help="Other data beside, SOURCE=SHARE, so that old skills stay. Repeatable.")] = None,
    ewc: Ewc = None,
    kl: Kl = None,
    eval_share: EvalShare = None,
    stream: Annotated[bool | None, typer.Option("--stream", help="Train on a run that still grows; takes --max-steps.")] = None,
    seed: Seed = None,
    report_to: ReportTo = None,
    merge: Merge = None,
    workers: Workers = None,
) -> None:
    """Supervised fine-tuning: imitate what the agent did well."""
    flags = {
        "data": data or None, "model": model, "out": out, "method": method, "learning_rate": learning_rate, "epochs": epochs,
        "max_steps": max_steps, "batch_size": batch_size, "gradient_accumulation": gradient_accumulation, "max_length": max_length,
        "packing": packing, "reasoning": reasoning, "too_long": too_long, "kinds": kind or None, "mix": mix or None, "eval_share": eval_share,
        "stream": stream, "seed": seed, "report_to": report_to, "merge": merge, "workers": workers,
        "ewc": {"sample": ewc} if ewc else None, "kl": {"weight": kl} if kl else None,
    }  # fmt: skip
    with refusals():
        from tracemill.train.settings import SftSettings, load_settings

        settings = load_settings(SftSettings, file, flags)
        from tracemill.train import sft as recipe

        recipe.sft(settings)


@train.command(
    epilog="**Examples**\n\n"
    "`tracemill train dpo runs/pairs --model runs/sft --out runs/dpo --merge`\n\n"
    "`tracemill train dpo runs/pairs --model runs/sft --out runs/dpo --beta 0.05 --sft 0.2`"
)
def dpo(
    data: Data = None,
    model: Model = None,
    out: Result = None,
    file: File = None,
    method: Method = None,
    learning_rate: Rate = None,
    beta: Annotated[float | None, typer.Option(help="How strongly the model is held to where it started. [default: 0.1]")] = None,
    sft: Annotated[float | None, typer.Option(help="Weight of the SFT loss on the chosen message. [default: 0]")] = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    batch_size: BatchSize = None,
    gradient_accumulation: Accumulation = None,
    max_length: MaxLength = None,
    reasoning: Annotated[str | None, typer.Option(help="Thinking: train or drop. [default: train]")] = None,
    ewc: Ewc = None,
    kl: Kl = None,
    eval_share: EvalShare = None,
    seed: Seed = None,
    report_to: ReportTo = None,
    merge: Merge = None,
    workers: Workers = None,
) -> None:
    """Direct preference optimization: prefer what was better to what was worse, after the same messages."""
    flags = {
        "data": data or None, "model": model, "out": out, "method": method, "learning_rate": learning_rate, "beta": beta, "sft": sft,
        "epochs": epochs, "max_steps": max_steps, "batch_size": batch_size, "gradient_accumulation": gradient_accumulation,
        "max_length": max_length, "reasoning": reasoning, "eval_share": eval_share, "seed": seed, "report_to": report_to,
        "merge": merge, "workers": workers,
        "ewc": {"sample": ewc} if ewc else None, "kl": {"weight": kl} if kl else None,
    }  # fmt: skip
    with refusals():
        from tracemill.train.settings import DpoSettings, load_settings

        settings = load_settings(DpoSettings, file, flags)
        from tracemill.train import dpo as recipe

        recipe.dpo(settings)


@train.command(
    epilog="**Examples**\n\n"
    "`tracemill train preview runs/first --model Qwen/Qwen3-8B`\n\n"
    "`tracemill train preview runs/first --model Qwen/Qwen3-8B --kind error_recovery --limit 3 --reasoning keep`"
)
def preview(
    data: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of a run.", exists=True, file_okay=False)],
    model: Annotated[str, typer.Option(help="Folder or Hub name of the model; only its tokenizer is loaded.")],
    kind: Annotated[str | None, typer.Option(help="Only this kind.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many traces.")] = 1,
    reasoning: Annotated[
        Literal["train", "keep", "drop"], typer.Option(help="Thinking: train, keep (in the context only) or drop.")
    ] = "train",
    max_length: Annotated[int, typer.Option(min=8, help="Tokens of the longest row.")] = 4096,
) -> None:
    """Show, token by token, what a model would learn from a run."""
    with refusals():
        from tracemill.train.preview import preview as show

        show(data, model, limit=limit, kind=kind, reasoning=reasoning, max_length=max_length)


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
    user: Annotated[
        str | None, typer.Option(help="Who plays the user: 'scripted', 'policy' (the same model), a model or a URL. [default: scripted]")
    ] = None,
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
        from tracemill import comparing

        comparing.compare(a, b, as_json=as_json)


COMMANDS: dict[Callable[..., None], str] = {
    evaluate: "**Examples**\n\n"
    "`tracemill evaluate --policy runs/sft --data runs/first --out runs/sft-evaluated`\n\n"
    "`tracemill evaluate --policy http://127.0.0.1:8000/v1 --suite all --samples 4 --out runs/endpoint`\n\n"
    "`tracemill evaluate --policy Qwen/Qwen3-8B --mode fast --mode balanced --mode thorough --out runs/modes`\n\n"
    "Run the same command again to continue an evaluation that was stopped or killed.",
    compare: "**Example**\n\n`tracemill compare runs/base-evaluated runs/sft-evaluated`",
}

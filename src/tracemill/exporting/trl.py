"""TRL: Parquet for `SFTTrainer` (prompt, completion, tools) and `DPOTrainer` (prompt, chosen, rejected, tools).

TRL masks by role or by prompt, never a single message. So a trace is cut at its wrong steps: each run of good messages is
a completion, with all that came before, wrong steps too, as its prompt. Completion and role mask are both applied
(trl 1.16, `SFTTrainer._prepare_dataset`), so that with `assistant_only_loss` results inside a completion are no target.

Arguments are objects, as templates want them; the feature `List(Json())` keeps Arrow from filling in keys. Where there are no tools the
column is null: TRL passes it on, and for an empty list Llama's template says that functions follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tracemill.exporting.form import LAST_RESULTS, WRONG_STEPS, Example, Form, Line, Notes, Pair, bare, ends_with_result, spans, wrong


class Trl(Form):
    name = "trl"
    files: ClassVar = {
        "sft.parquet": "messages of the agent without a wrong step among them (`completion`), and what came before (`prompt`)",
        "dpo.parquet": "a preference pair: one message each in `chosen` and `rejected`",
    }
    columns: ClassVar = {
        "sft.parquet": {"id": "text", "prompt": "records", "completion": "records", "tools": "records"},
        "dpo.parquet": {"id": "text", "prompt": "records", "chosen": "records", "rejected": "records", "tools": "records"},
    }
    configs: ClassVar = {"sft.parquet": "sft", "dpo.parquet": "dpo"}
    following = "python -c \"import datasets, os; print(datasets.load_dataset(os.getcwd(), '{stem}'))\"  # then as in its README"

    def example(self, one: Example, notes: Notes) -> Iterator[Line]:
        messages = [bare(message) for message in one.messages]
        runs = spans(one.messages)
        for start, end in runs:
            row = {"id": one.id, "prompt": messages[:start], "completion": messages[start:end], "tools": one.tools or None}
            yield "sft.parquet", row
        notes[WRONG_STEPS] += sum(map(wrong, one.messages))
        notes["conversations cut at their wrong steps into several rows"] += len(runs) > 1
        notes[LAST_RESULTS] += ends_with_result(one.messages)

    def pair(self, one: Pair, notes: Notes) -> Iterator[Line]:
        prompt = [bare(message) for message in one.prompt]
        chosen, rejected = [bare(one.chosen)], [bare(one.rejected)]
        yield "dpo.parquet", {"id": one.id, "prompt": prompt, "chosen": chosen, "rejected": rejected, "tools": one.tools or None}

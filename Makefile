# make setup    the .venv that all other targets use, from pinned versions
# make demo     train, evaluate and sample a generator of handwritten digits: a few minutes on two cores
# make test     all tests            make lint     ruff and mypy
# make bench    the benchmarks       make results  docs/results.md from benchmarks/results
# make clean    what was made here, but for .venv and runs
#
# Needs Python 3.11 or newer and make. `make setup PYTHON=/path/to/python` takes that Python.

CANDIDATES := python3.11 python3.12 python3.13 python3 python
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin
STAMP := .venv/installed
RUN := runs/cgan-digits

.PHONY: setup demo test bench results lint clean
.DELETE_ON_ERROR:

setup: $(STAMP)

# Anew only when what is asked for changes; pip then adds what is missing and leaves the rest.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found; name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -c 'import tomllib; g = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]; print(*g["test"], *g["lint"], sep="\n")' > .venv/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r .venv/dev.txt -e .
	@touch $@

# Training resumes where it stopped, so a second `make demo` takes seconds. A label that nothing asks for goes through its names in turn.
demo: setup
	$(BIN)/condgen train cgan-digits --out $(RUN)
	$(BIN)/condgen evaluate $(RUN)
	$(BIN)/condgen sample $(RUN) -n 80 --seed 0 --out $(RUN)/every-class.png
	@echo
	@echo "every class:  $(RUN)/every-class.png"
	@echo "the report:   $(RUN)/report.html"

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: setup
	$(BIN)/python benchmarks/limits.py --out benchmarks/results/limits.json
	$(BIN)/python benchmarks/train_step.py --out benchmarks/results/train_step.json
	$(BIN)/python benchmarks/style.py --out benchmarks/results/style.json
	$(BIN)/python benchmarks/transfer.py --out benchmarks/results/transfer.json
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then $(BIN)/python benchmarks/gpu.py; fi

results: setup
	$(BIN)/python benchmarks/results_table.py

lint: setup
	$(BIN)/ruff check
	$(BIN)/mypy

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

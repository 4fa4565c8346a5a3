# One command each; everything is installed into .venv, and nothing is written outside this folder but pip's cache.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# IPython and matplotlib keep their files in the home folder unless told otherwise.
export IPYTHONDIR := $(CURDIR)/$(VENV)/var/ipython
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/var/matplotlib
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check chaos launcher bench growth queued layers mpi-suite docs clean

demo: $(VENV)/.installed
	@$(BIN)/nsactors demo

# The quick half first: what needs no Ray, and is run as if there were none.
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not ray and not cluster" --without-ray
	$(BIN)/python -m pytest -m "ray or cluster"

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# Options go into ARGS: make bench ARGS="--n 1,4,16,64", make chaos ARGS="--minutes 10 --soak".
chaos: $(VENV)/.installed-test
	$(BIN)/python -m tests.chaos $(ARGS)

# Ray's own cluster launcher on machines made of namespaces: minutes, and what CI leaves out.
launcher: $(VENV)/.installed-test
	$(BIN)/python -m pytest --full-size tests/cluster/test_ray_launcher.py

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks $(ARGS)

growth: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.growth $(ARGS)

queued: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.queued $(ARGS)

layers: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.layers $(ARGS)

mpi-suite: $(VENV)/.installed-mpi
	$(BIN)/python -m benchmarks.mpi_suite $(ARGS)

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find nsactors tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per set of extras: a second run installs nothing until pyproject.toml changes.
$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "Installing nsactors into $(VENV) (minutes the first time, for Ray is large)"
	@$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(VENV)/.created
	@echo "Installing nsactors[$*] into $(VENV) (minutes the first time, for Ray is large)"
	@$(BIN)/pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV)/.created:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "nsactors needs Python 3.11 or later, and '$(PYTHON)' is not there: try make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "nsactors needs Python 3.11 or later, and '$(PYTHON)' is older: try make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

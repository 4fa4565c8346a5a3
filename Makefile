# One command each; everything is installed into .venv, and nothing is written outside this folder but pip's cache.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# IPython and matplotlib keep their files in the home folder unless told otherwise.
export IPYTHONDIR := $(CURDIR)/$(VENV)/var/ipython
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/var/matplotlib
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start a thousand interpreters: each would compile the package anew where the environment keeps Python from
# keeping byte code.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-full check chaos chaos-debuggers doors launcher matrix release bench growth queued layers house mpi-suite ipyparallel-examples ipyparallel-programs docs clean

demo: $(VENV)/.installed
	@$(BIN)/nsactors demo

# The quick half first: what needs no Ray, and is run as if there were none. Its files are dealt out to several
# processes. Then what needs Ray, likewise, and by itself at last what watches the clock; one file after the other:
# make test RAY_PROCESSES=. In the order of their names the files that take long come first. A time limit ends a process of tests:
# where one waits in Ray's C++ code, nothing less helps.
PROCESSES := --numprocesses=logical --maxprocesses=4 --dist=loadfile
RAY_PROCESSES := $(PROCESSES) --no-loadscope-reorder -o timeout_method=thread
# The folders with tests that need Ray: each process would take ten seconds to look for some among all the others.
RAY_TESTS := $(addprefix tests/,cluster contract docs examples notebooks unit/benchmarks unit/transport)
TEST_TAKES := 2 minutes for what needs no Ray, and 25 minutes for what does

test: $(VENV)/.installed-test
	@echo "Two cores with nothing else to do take about $(TEST_TAKES)."
	$(BIN)/python -m pytest $(PROCESSES) -m "not ray and not cluster" --without-ray $(ARGS)
	$(BIN)/python -m pytest $(RAY_PROCESSES) -m "(ray or cluster) and not serial" $(ARGS) $(RAY_TESTS)
	$(BIN)/python -m pytest -m "(ray or cluster) and serial" $(ARGS) $(RAY_TESTS)

# Also each repeat of a kind, on each transport, and what takes long.
test-full:
	@$(MAKE) --no-print-directory test ARGS="--full-size $(ARGS)" TEST_TAKES="an hour"

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# Options go into ARGS: make bench ARGS="--n 1,4,16,64", make chaos ARGS="--minutes 10 --soak".
chaos: $(VENV)/.installed-test
	$(BIN)/python -m tests.chaos $(ARGS)

# Users of the debugger, who are killed and stopped at its prompts: make chaos-debuggers ARGS="--minutes 60"
chaos-debuggers: $(VENV)/.installed-test
	$(BIN)/python -m tests.chaos.debuggers $(ARGS)

# Ray's own cluster launcher on machines made of namespaces: minutes, and what CI leaves out.
launcher: $(VENV)/.installed-test
	$(BIN)/python -m pytest --full-size tests/cluster/test_ray_launcher.py

# Every way to install and to launch, as far as one machine can be several: what CI leaves out, too.
DOORS := test_release test_ssh_hosts test_slurm test_slurm_site test_grid_engine test_batch_commands test_ray_launcher \
	test_autoscaler test_aws test_site_mpi

doors: $(VENV)/.installed-test $(VENV)/.installed-release $(VENV)/.installed-doors
	@echo "Two cores with nothing else to do take about half an hour."
	$(BIN)/python -m pytest --full-size $(DOORS:%=tests/cluster/%.py) $(ARGS)

# The suite on several versions of Python and Ray: make matrix ARGS="--python 3.13 --parts quick"
matrix: $(VENV)/.installed
	$(BIN)/python -m tests.matrix $(ARGS)

# All of a release but the upload: both files, which are checked and installed into a new environment, where the demo runs.
release: $(VENV)/.installed-test $(VENV)/.installed-release
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	NSACTORS_DIST=dist $(BIN)/python -m pytest --full-size tests/unit/test_release.py tests/cluster/test_release.py $(ARGS)
	@awk '/^## / { counts = /Unreleased/ } counts && /^- / { changes++ } END { \
		if (changes) print "dist/ is for trying: CHANGELOG.md lists " changes " changes as unreleased"; \
		else print "dist/ can be uploaded: $(BIN)/twine upload dist/*" }' CHANGELOG.md

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks $(ARGS)

growth: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.studies.growth $(ARGS)

queued: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.studies.queued $(ARGS)

layers: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.studies.layers $(ARGS)

# Measures of the package as a reader meets it: figures inform, readers decide.
house: $(VENV)/.installed
	$(BIN)/python -m benchmarks.studies.house $(ARGS)

mpi-suite: $(VENV)/.installed-mpi
	$(BIN)/python -m benchmarks.studies.mpi_suite $(ARGS)

# The examples of ipyparallel's documentation by alias: make ipyparallel-examples ARGS=CHECKOUT
ipyparallel-examples: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.studies.ipyparallel_examples $(ARGS)

# Programs that take an executor, a view or a client of ipyparallel, as far as they are installed
ipyparallel-programs: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.studies.ipyparallel_programs $(ARGS)

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
	@mkdir -p $(VENV)/var
	@touch $@

# Every target sets up what it needs. PYTHON names the interpreter (3.11 to 3.13) for .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: setup quickstart smollm2 test slow fuzz parity cluster-test chaos calibrate bench bench-search bench-gpu gpu-check levers benchmark check docs lock micro clean

setup: $(READY)

# --no-compile: pip would otherwise compile 24,000 modules, most of which are never imported. The `env` command below compiles those
# that a sweep and Ray's processes import. Without it, where PYTHONDONTWRITEBYTECODE is set, every process would compile its 4,000
# modules again, 9 seconds each time.
# editable_mode=compat: puts the repository on the search path, ahead of folders of the same names in the user's working folder. With
# setuptools' default an empty folder called trials would hide the package from python -m.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	    { echo "slimsweep needs Python 3.11 to 3.13; $$($(PYTHON) --version) found. Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -W ignore -c 'import analysis.report.build, orchestrator.cli, orchestrator.cluster.runner, orchestrator.planning.plan, trials.run.worker; \
	    from orchestrator.cluster.connect import connected; from orchestrator.config.model import Resources; \
	    connected(None, Resources(), {}).__enter__()' 2>&1
	@touch $@

quickstart: $(READY)
	$(BIN)/slimsweep run configs/quickstart.yaml

# MIRROR names a folder laid out as org/name. Without it everything is downloaded from the hub.
smollm2: $(READY)
	$(BIN)/slimsweep run configs/smollm2.yaml $(if $(MIRROR),--set hub_mirror=$(MIRROR))

# Two processes; the tests of a file stay in one of them, and tests/conftest.py orders the files. No test uses more than one core for long.
# Where PYTHONDONTWRITEBYTECODE is set, each process of a test would compile its modules again.
TESTS := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -m "not slow and not fuzz" -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(TESTS)

# The slow tests: a cluster of network namespaces, two drivers on one PostgreSQL study, a Ray job.
slow: $(READY)
	$(BIN)/python -m pytest -m slow

# Hundreds of odd inputs: configs, damaged storage, terminals and limits, every causal architecture of transformers.
fuzz: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal tests/fuzz

# Each preset against lm-eval's own command line, on 50 documents of the real data. HUB_MIRROR names the mirror folder.
parity: $(READY)
	$(BIN)/python -m pytest -rs tests/system/test_parity.py

# Only the cluster test: network namespaces, one node lost, one joined. Needs root; 6 minutes.
cluster-test: $(READY)
	$(BIN)/python -m pytest tests/system/test_cluster.py

# A sweep that is SIGKILLed ten times and must neither lose nor repeat anything; about 10 minutes.
chaos: $(READY)
	$(BIN)/python -m tests.system.chaos

# The statistics on simulated outcomes with known truth; 20 minutes of one core.
calibrate: $(READY)
	$(BIN)/python -m tests.system.calibrate

# The same sweep by a plain script, a tuned script and slimsweep; with MIRROR also on SmolLM2, an hour. Needs an idle machine.
bench: $(READY)
	$(BIN)/python -m tests.benchmarks.programs micro
	$(if $(MIRROR),$(BIN)/python -m tests.benchmarks.programs smollm2 --hub-mirror $(MIRROR))

# Our samplers against Optuna's and BoTorch's on synthetic sweeps with a known truth; hours. BoTorch: pip install botorch.
bench-search: $(READY)
	$(BIN)/python -m tests.benchmarks.search $(if $(SAMPLERS),--samplers $(SAMPLERS))

# One trial of a random model of 1B shape on documents of real lengths, by the tuned script and slimsweep; no Ray, no network.
bench-gpu: $(READY)
	$(BIN)/python -m tests.benchmarks.gpu

# Whether all that a trial needs works on this machine's GPU, part by part; passed parts are not repeated. build/gpu-check/results.md.
gpu-check: $(READY)
	$(BIN)/python -m tests.gpu_check --folder build/gpu-check $(if $(MIRROR),--mirror $(MIRROR)) $(if $(MINUTES),--minutes $(MINUTES))

# The factor of each optimisation on micro, measured by switching it off, 5 minutes; with MIRROR also on SmolLM2. Needs an idle machine.
levers: $(READY)
	$(BIN)/python -m tests.benchmarks.levers micro
	$(if $(MIRROR),$(BIN)/python -m tests.benchmarks.levers smollm2 --hub-mirror $(MIRROR))

benchmark: $(READY)
	$(BIN)/python -m tests.benchmarks.driver
	$(BIN)/python -m tests.benchmarks.load
	$(BIN)/python -m tests.benchmarks.front
	$(BIN)/python -m tests.benchmarks.trial

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) docs
	$(TESTS)

# The documentation's site, build/site/index.html. A link to nowhere, or a page that the navigation lacks, ends it. Not --quiet: that drops
# warnings before `strict` counts them.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# For the oldest Python: Debian 12 has 3.11.2, and a package may require a later 3.11.
# The lock leaves out CUDA packages: torch's own wheel requires them, and a lock would force them on machines without a GPU.
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11.0 --extra dev --extra docs --upgrade --quiet --no-annotate --no-header pyproject.toml \
	    | grep -v -E '^(nvidia-|cuda-|triton)' > requirements.lock.new
	mv requirements.lock.new requirements.lock

# Trains the miniature base from scratch, 10 minutes. VARIANT names another corpus or seed (python -m trials.micro --help).
micro: $(READY)
	$(BIN)/python -m trials.micro $(if $(VARIANT),--variant $(VARIANT))

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache

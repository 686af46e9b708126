# Every target sets up what it needs; PYTHON names the interpreter (3.11 to 3.13) that .venv is made with.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: setup quickstart smollm2 test slow fuzz parity cluster-test chaos calibrate bench bench-gpu levers benchmark check lock micro clean

setup: $(READY)

# Without --no-compile pip would compile 24,000 modules, most of which nothing here ever imports. Those which a sweep imports
# are compiled here, with those of Ray's own processes: where PYTHONDONTWRITEBYTECODE is set every process would compile its 4,000
# anew, 9 seconds each time. Installed in the compatible way, as a folder in the search path, the packages come before folders of
# their names where the user stands; setuptools' own way would let an empty folder called trials hide them from python -m.
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

# MIRROR names a folder laid out as org/name; without it everything comes from the hub.
smollm2: $(READY)
	$(BIN)/slimsweep run configs/smollm2.yaml $(if $(MIRROR),--set hub_mirror=$(MIRROR))

# Two processes, a file's tests in one of them; none of the tests uses more than a core for long.
TESTS := $(BIN)/python -m pytest -m "not slow and not fuzz" -n 2 --dist loadfile

test: $(READY)
	$(TESTS)

# What takes long: a cluster of network namespaces, two drivers on one PostgreSQL study, a Ray job.
slow: $(READY)
	$(BIN)/python -m pytest -m slow

# Odd inputs by the hundred: configs, damaged storage, terminals and limits, every causal architecture of transformers.
fuzz: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal tests/fuzz

# Each preset against lm-eval's own command line, 50 documents of the real data; HUB_MIRROR names the mirror folder.
parity: $(READY)
	$(BIN)/python -m pytest -rs tests/system/test_parity.py

# A cluster of network namespaces that loses a node and gets one, alone; needs root, 6 minutes.
cluster-test: $(READY)
	$(BIN)/python -m pytest tests/system/test_cluster.py

# A sweep that is SIGKILLed ten times and must lose and repeat nothing; about 10 minutes.
chaos: $(READY)
	$(BIN)/python -m tests.system.chaos

# The statistics on simulated outcomes whose truth is known; 6 minutes.
calibrate: $(READY)
	$(BIN)/python -m tests.system.calibrate

# The same sweep as a plain script, a tuned one and slimsweep; with MIRROR on SmolLM2 as well, an hour. On an idle machine.
bench: $(READY)
	$(BIN)/python -m tests.benchmarks.programs micro
	$(if $(MIRROR),$(BIN)/python -m tests.benchmarks.programs smollm2 --hub-mirror $(MIRROR))

# One trial of a 1B-shaped random model on documents of the real lengths, tuned script and slimsweep; without Ray or a network.
bench-gpu: $(READY)
	$(BIN)/python -m tests.benchmarks.gpu

# Each lever's own factor on micro, measured with it off, 5 minutes; with MIRROR on SmolLM2 as well. On an idle machine.
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
	$(TESTS)

# torch's own wheel says which CUDA packages it needs; a lock that named them would force them on machines without a GPU.
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --upgrade --quiet --no-annotate --no-header pyproject.toml \
	    | grep -v -E '^(nvidia-|cuda-|triton)' > requirements.lock.new
	mv requirements.lock.new requirements.lock

# The miniature base from nothing, 10 minutes; VARIANT names another corpus or seed (see python -m trials.micro --help).
micro: $(READY)
	$(BIN)/python -m trials.micro $(if $(VARIANT),--variant $(VARIANT))

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache

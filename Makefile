# A fresh machine needs Python >= 3.11, make and git; everything else lands in $(VENV).
PYTHON ?= python3
# The oldest Python of devices (JetPack 6 has no other): the first that runs, for pyenv's command may not.
PYTHON310 ?= $(firstword $(foreach python,python3.10 $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3.10), \
  $(shell $(python) -c 'print("$(python)")' 2>/dev/null)))
VENV ?= .venv
CI ?=
# Test processes. Each runs its networks on one thread (tests/conftest.py), so two keep two cores busy.
TEST_JOBS ?= 2
TESTS ?= tests
# What `make fast` runs: quick tests of every package, some 25 seconds on two idle cores.
FAST := $(addprefix tests/, \
  test_docs.py test_layout.py edgedistill/test_facade.py \
  deploy/files deploy/bundle deploy/inference deploy/evaluation deploy/tasks deploy/test_cli.py \
  deploy/analysis/test_curves.py deploy/analysis/test_scores.py deploy/backends/test_onnxruntime_cpu.py \
  deploy/lint/test_command.py deploy/lint/test_rules.py deploy/raster/test_ahead.py deploy/raster/test_grid.py \
  deploy/quantize/test_half.py deploy/quantize/test_qdq.py deploy/quantize/test_ranges.py \
  teacher/test_pooling.py teacher/test_pspnet.py student/test_networks.py student/test_subpixel.py \
  distill/test_overrides.py distill/reporting distill/export/test_deployable.py \
  distill/data/test_augment.py distill/data/test_crops.py distill/data/test_loader.py distill/data/test_sample.py \
  distill/data/datasets/test_camvid.py distill/data/datasets/test_folder.py distill/data/datasets/test_synthetic.py \
  distill/data/grasp/test_cornell.py distill/data/grasp/test_targets.py distill/data/grasp/test_view.py \
  distill/losses/test_common.py distill/losses/test_distillation_loss.py distill/losses/test_expression.py \
  distill/losses/distillation/test_cirkd.py distill/losses/distillation/test_reference_values.py \
  distill/losses/supervised/test_class_weights.py distill/losses/supervised/test_reference_values.py \
  distill/distillation/test_weight_transfer.py distill/quantization/test_grids.py \
  distill/training/test_loop.py distill/training/test_optim.py distill/training/test_schedule.py \
  benchmarks/test_loading_script.py benchmarks/test_no_data_script.py)
# Flags for the demo, e.g. make demo ARGS="--seed 1"
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# A stamp is named after what it was made from, so a changed pyproject.toml or a moved folder installs again,
# and it is written last, so an interrupted installation is redone.
KEY := $(shell { cat pyproject.toml; pwd; } | cksum | tr ' ' '-')
CREATED := $(VENV)/.created-$(shell pwd | cksum | tr ' ' '-')
TRAIN := $(VENV)/.train-$(KEY)
DEV := $(VENV)/.dev-$(KEY)

# Python 3.10 with the base dependencies and what the tests of `deploy` need; no PyTorch.
DEVICE := $(VENV)/device
DEVICE_DEV := $(DEVICE)/.dev-$(KEY)

.PHONY: help demo fast test device-test extras headers chaos lint spelling format site bench clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo     teacher, baseline and distilled student on synthetic scenes, 3 to 5 minutes'
	@echo 'make test     the test suite (CI=true adds the slow tests; TESTS=path picks some)'
	@echo 'make device-test  the tests of deploy/ on Python 3.10, where it is installed'
	@echo 'make extras   resolve the extras for Python 3.10 and 3.12, x86-64 and ARM'
	@echo 'make headers  fetch the C++ headers of ONNX Runtime, with which a test compiles examples/cpp'
	@echo 'make fast     a slice of every package, under a minute'
	@echo 'make chaos    50 killed runs and 1000 damaged bundles, an hour'
	@echo 'make lint     ruff, codespell, basedpyright, import-linter'
	@echo 'make format   let ruff rewrite what it can'
	@echo 'make site     the documents as a site, in $(VENV)/site'
	@echo 'make bench    latency of the bundles under runs/ (or BUNDLES="path ...")'
	@echo 'make clean    remove $(VENV) and caches; runs/ stays'

demo: $(TRAIN)
	$(BIN)/python -m edgedistill run quick --resume $(ARGS)
	@echo 'To type edgedistill: . $(BIN)/activate'

# A process that crashes is not replaced: with loadfile its queue would be lost, and the run would wait for it for ever.
test: $(DEV)
	$(BIN)/python -m pytest $(TESTS) -n $(TEST_JOBS) --max-worker-restart 0 --dist loadfile --no-loadscope-reorder --timeout 600 $(if $(CI),,-m 'not slow')

device-test:
	@if [ -n "$(PYTHON310)" ]; then $(MAKE) --no-print-directory device-test-310 PYTHON310="$(PYTHON310)"; else \
	  echo 'SKIPPED: no Python 3.10 here (make device-test PYTHON310=/path/to/python3.10)'; fi

.PHONY: device-test-310
device-test-310: $(DEVICE_DEV)
	$(DEVICE)/bin/python -m pytest tests/deploy -n $(TEST_JOBS) --max-worker-restart 0 --dist loadfile --timeout 120 -q -rfE -m 'not slow'

extras: $(DEV)
	$(BIN)/python .ci/extras.py

# The test of examples/cpp compiles it for ONNX Runtime too, whose headers no package of PyPI has: those of Debian 13.
headers: $(DEV)
	$(BIN)/python .ci/headers.py $(VENV)/include/onnxruntime

fast: $(DEV)
	$(BIN)/python -m pytest $(FAST) -n $(TEST_JOBS) --dist loadfile --timeout 60 -q -m 'not slow'

chaos: $(DEV)
	EDGEDISTILL_CHAOS=1000 $(BIN)/python -m pytest tests/chaos/test_damaged_bundles.py -s
	EDGEDISTILL_KILLS=50 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos/test_killed_runs.py

lint: $(DEV) spelling
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -c 'import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_logo=True))'

spelling: $(DEV)
	$(BIN)/python -m codespell_lib -D - -D .ci/spelling.txt

format: $(DEV)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

site: $(DEV)
	$(BIN)/python -m sphinx -W --keep-going -q -c docs/site -b html docs $(VENV)/site

bench: $(TRAIN)
	@bundles="$(BUNDLES)"; \
	[ -n "$$bundles" ] || bundles=$$(find runs -name manifest.json -exec dirname {} \; 2>/dev/null | sort); \
	if [ -z "$$bundles" ]; then \
	  echo 'error: no bundle under runs/: make one with "make demo", or name some: make bench BUNDLES="path ..."' >&2; \
	  exit 2; \
	fi; \
	$(BIN)/python benchmarks/latency.py $$bundles

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find benchmarks deploy distill edgedistill examples student teacher tests -name __pycache__ -prune -exec rm -rf {} +

$(CREATED):
	@command -v $(PYTHON) >/dev/null || \
	  { echo 'error: no "$(PYTHON)": install Python >= 3.11, or name one: make PYTHON=/path/to/python' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old, need >= 3.11: name another: make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo 'error: $(PYTHON) lacks the venv module (Debian, Ubuntu: apt install python3-venv)' >&2; exit 2; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(TRAIN): $(CREATED)
	@echo 'Installing edgedistill[train] into $(VENV) (PyTorch is several GB: a few minutes the first time)'
	@$(PIP) install --quiet -e '.[train]'
	@touch $@

# Holds the training packages too, so `make demo` after `make test` has nothing to install.
$(DEV): $(CREATED)
	@echo 'Installing edgedistill[train,dev] into $(VENV) (PyTorch is several GB: a few minutes the first time)'
	@$(PIP) install --quiet -e '.[train,dev]'
	@touch $(TRAIN) $@

$(DEVICE_DEV):
	@echo "Installing edgedistill[train,dev] for $$($(PYTHON310) --version) into $(DEVICE), without PyTorch"
	@$(PYTHON310) -m venv --clear $(DEVICE)
	@$(DEVICE)/bin/python -m pip --disable-pip-version-check --no-input install --quiet -e '.[train,dev]'
	@touch $@

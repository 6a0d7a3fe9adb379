.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint format bench bench-ray bench-report bench-gpu lpips-weights vbench train-shapes example-run clean
PYTHON ?= python3
BIN := .venv/bin
# one torch thread a process, and idle threads asleep: on few cores everything else is slower
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= passive

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

install: .venv/.installed ## make .venv with everything in it (needs Python 3.11 or newer)

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "srbench needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -e ".[dev]"
	$(BIN)/srbench weights || echo "warning: without its weights the column LPIPS says missing;" \
		"run \`make lpips-weights\` to try again" >&2
	@touch $@

demo: install ## run the demo sweep on this machine's CPU and print its table
	$(BIN)/python -m srbench +experiment=shapes_delta_sweep engine.workers=2

test: install ## the tests (a few minutes on two cores; JOBS=1 for one process)
	$(BIN)/python -m pytest -m "not slow" -n $(or $(JOBS),2) --dist loadfile

test-all: install ## all tests, the slow ones too
	$(BIN)/python -m pytest

lint: install ## ruff, mypy, import contracts, doctests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules srbench -o testpaths=srbench

bench: install ## PSNR, SSIM and LPIPS against the loops others use, in one run (half an hour on one core)
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -e ".[bench]"
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.bench.similarity $(BENCH)

bench-ray: install ## how much of the ideal engine=ray reaches, with denoisers that sleep (two minutes)
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -e ".[ray]"
	$(BIN)/python -m tests.bench.ray_efficiency $(BENCH)

bench-gpu: install ## step times of true-size Wan and CogVideoX on this GPU, random weights (an hour; tiny on a CPU)
	$(BIN)/python -m tests.bench.gpu $(BENCH)

bench-report: install ## tables, figures and page of 75,520 synthetic cells: seconds and memory (ten minutes, 2 GB)
	$(BIN)/python -m tests.bench.report_scale $(BENCH)

lpips-weights: install ## install the weights of LPIPS into .venv (NET=vgg for its other network)
	$(BIN)/srbench weights --net $(or $(NET),alex)

example-run: install ## make the run that the notebooks read again, with the shapes model of today (minutes)
	$(BIN)/python notebooks/make_example_run.py

format: install ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

vbench: install ## VBench's own environment (5.8 GB in your cache), built and checked
	$(BIN)/srbench vbench setup

train-shapes: install ## train the embedded family again, from nothing (hours)
	for stage in text vae latents denoisers export; do \
		$(BIN)/torchrun --nproc-per-node 2 -m srbench.shapes.train $$stage || exit 1; done

clean: ## remove the environment and caches (results stay)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

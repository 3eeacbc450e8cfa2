PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
DATA ?= sample
# Steps on small batches are fastest, and repeatable in time, on one thread.
export OMP_NUM_THREADS ?= 1
# Threads that wait leave their core to the other processes.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test sync notebooks docs recipes bench fuzz mutate clean

demo: $(VENV)/.installed  ## train on ratings with titles: make demo, or make demo DATA=ml-100k
	@$(BIN)/python -m fastrec demo --data $(DATA)

test: $(VENV)/.dev  ## the notebooks, then the tests beside them
	$(BIN)/nbdev-test --do-print --n-workers 2
	$(BIN)/python -m pytest -n 2 --dist worksteal

sync: $(VENV)/.dev  ## modules, README.md and CONTRIBUTING.md from the notebooks
	$(BIN)/python tools/colab.py
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-export
	$(BIN)/python tools/readme.py

notebooks: $(VENV)/.torchrec  ## run every notebook and store its outputs
	$(BIN)/python tools/run_notebooks.py
	$(MAKE) sync

docs: $(VENV)/.docs tools/node_modules/.installed  ## the site, into _docs; with it and a Chromium, make test looks at its pages
	$(BIN)/python tools/docs.py

recipes: $(VENV)/.dev  ## the published recipes, run and checked; MovieLens in fastai's data folder
	$(BIN)/python benchmarks/recipes.py

bench: $(VENV)-bench/.installed  ## the measured tables of benchmarks/README.md
	for name in accuracy shapes ranges newcomers newcomers_lists fits ranking lists sweeps choices steering reasons speed levers time_to_rmse growth next_month extend neighbours loading grids sgd serving service page command soak lifecycle distributed pictures; do $(VENV)-bench/bin/python benchmarks/$$name.py || exit 1; done

fuzz: $(VENV)/.dev  ## the long tests; twenty thousand random frames and calls, catalogues, damaged folders and forged manifests, and a hundred killed processes
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m long
	@FASTREC_FUZZ=1950 FASTREC_SEED=10000 $(BIN)/python -m pytest -q -s tests/test_fuzz.py & first=$$!; \
	  FASTREC_FUZZ=1950 FASTREC_SEED=20000 FASTREC_KILLS=100 $(BIN)/python -m pytest -q -s tests/test_fuzz.py tests/test_export.py tests/test_states.py -k 'test_fuzz or killed or any_line'; \
	  second=$$?; wait $$first && exit $$second

mutate: $(VENV)/.dev  ## mistakes planted one at a time in a copy of the package: is each noticed by a test?
	$(BIN)/python tools/mutate.py

clean:  ## remove what make has installed
	rm -rf $(VENV) $(VENV)-bench tools/node_modules _proc _docs

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'make: $(PYTHON) cannot create a virtual environment (on Debian and Ubuntu: apt install python3-venv)' >&2; exit 1; }

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo 'Installing fastrec into $(VENV) (once, a minute or more) …'
	@$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e '.[serve]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo 'Installing the test tools into $(VENV) (once) …'
	@$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@

$(VENV)/.torchrec: $(VENV)/.dev  # without what it asks for: CUDA's kernels
	@$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) --no-deps torchrec fbgemm_gpu_cpu
	@$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) torchmetrics tensordict pyre-extensions tqdm
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	@echo 'Installing what builds the site into $(VENV) (once) …'
	@$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e '.[docs]'
	@touch $@

tools/node_modules/.installed: tools/package.json
	@command -v npm >/dev/null || { echo 'make: the site takes MathJax from npm, which is not there: install Node.js' >&2; exit 1; }
	@npm install --prefix tools --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

$(VENV)-bench/.installed: pyproject.toml benchmarks/constraints.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install -q --disable-pip-version-check -c benchmarks/constraints.txt -e '.[bench]'
	@touch $@

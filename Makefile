# Each target does its own set-up; what is there already is not done again.  `make help` lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# Waiting threads sleep instead of spinning: two torch processes on two cores are otherwise ten times slower.
export OMP_WAIT_POLICY ?= PASSIVE

PYTHON ?= python3
PROFILE ?= teach
NOTEBOOKS ?= $(wildcard notebooks/*.ipynb)
CELL_TIMEOUT ?= 600
# Processes of the tests; each holds up to 2 GB.
WORKERS ?= 2
STUDENT := build/student

IN := .venv/bin
PIP := $(IN)/python -m pip install --disable-pip-version-check
INSTALLED := .venv/.installed
COMPILED := .venv/.compiled
# Needs g++ and Python's headers, and only tests and benchmarks use it: notebooks run without.
TO_COMPILE := '^pydensecrf2'
OLD := 'requirements.txt is for Python 3.11 or newer; this is ' + sys.version.split()[0] + '. Try: make PYTHON=python3.12'

.PHONY: help run test check look book student lab batch refresh verify drift bench lock front badges samples prepared clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: prepared  ## execute the notebooks: make run [PROFILE=smoke|teach|full] [NOTEBOOKS=…]
	$(IN)/python -m helpers.runs $(NOTEBOOKS) -p profile $(PROFILE) --out runs/$(PROFILE)

test: check prepared  ## everything: check, each notebook again with its claims, on readers' folders, and untrained
	$(IN)/python -m pytest -q -n $(WORKERS) --dist loadfile --nbval-lax --nbval-current-env \
	  --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout=$(CELL_TIMEOUT) \
	  --nbval-kernel-startup-timeout=180 $(NOTEBOOKS)
	$(IN)/python -m pytest -q -n $(WORKERS) tests/whole
	$(MAKE) student
	rm -rf build/untrained runs/untrained
	$(IN)/python tools/untrained.py $(STUDENT)/*.ipynb --out build/untrained
	$(IN)/python -m helpers.runs build/untrained/*.ipynb -p profile smoke --out runs/untrained
	$(IN)/python tools/student.py runs/untrained/*/*.ipynb --open
	$(IN)/python tools/untrained.py runs/untrained/*/metrics.json --check tests/untrained.yaml

check: samples $(COMPILED)  ## the fast part, for every commit: ruff and the tests of the code
	$(IN)/ruff check .
	$(IN)/ruff format --check .
	OMP_NUM_THREADS=1 $(IN)/python -m pytest -q -n $(WORKERS) --dist loadscope tests --ignore tests/whole

look: $(INSTALLED)  ## what is understood of a folder of scans: make look DATA=PATH
	@test -n "$(DATA)" || { echo 'say which folder: make look DATA=PATH'; exit 2; }
	$(IN)/python -m helpers.data "$(DATA)" $(LOOK)

book: $(INSTALLED)  ## the reading site, in build/book/html; open index.html from disk or put the folder on any host
	rm -rf build/book
	mkdir -p build/book/source
	cp -r docs/*.md docs/_static $(wildcard notebooks/*.ipynb) build/book/source
	$(IN)/sphinx-build -q -W --keep-going -c docs build/book/source build/book/html

student: prepared  ## copies of the notebooks without solutions, for a class, in build/student
	rm -rf $(STUDENT)
	$(IN)/python tools/student.py $(NOTEBOOKS) --out $(STUDENT)

lab: prepared  ## open JupyterLab on this machine only
	$(IN)/jupyter lab --ip=127.0.0.1 notebooks

batch: prepared  ## run a grid, and go on where it stopped: make batch GRID=grids/… [BATCH="--workers 2 --redo stale"]
	@test -n "$(GRID)" || { echo 'say which grid: make batch GRID=grids/01_explanation.yaml'; exit 2; }
	$(IN)/python -m helpers.runs $(GRID) $(BATCH)

refresh: prepared  ## run the notebooks as committed, print the references that moved, keep the new outputs
	CLAIMS=report $(IN)/python -m helpers.runs $(NOTEBOOKS) --out runs/refresh
	$(IN)/python tools/refresh.py runs/refresh $(NOTEBOOKS)

verify: prepared  ## try records whose code has changed: make verify [TABLE=08_label_budget] [FULL=1]
	$(IN)/python tools/verify.py $(TABLE) $(if $(FULL),--full)

drift: prepared $(TORCH:%=build/torch-%/.installed)  ## claims and stated decimals that change under other arithmetic: make drift [NOTEBOOKS=…] [TORCH=2.6.0]
	$(IN)/python -m tools.drift $(NOTEBOOKS) $(TORCH:%=--torch %)

bench: $(COMPILED)  ## speed, as ratios in one run
	for file in benchmarks/*.py; do $(IN)/python $$file; done

lock: $(INSTALLED)  ## exact versions from the ranges in pyproject.toml; versions that still fit are kept
	$(PIP) -q uv
	$(IN)/uv pip compile --universal --python-version 3.11 --all-extras --no-header --annotation-style line \
	  pyproject.toml -o requirements.txt

front: $(INSTALLED)  ## draw the pictures of the first page, in docs/_static, from what is recorded and the notebooks' figures
	$(IN)/python tools/front.py

badges: $(INSTALLED)  ## give the folder a public home, for Colab and Binder: make badges [REPO=owner/name]
	$(IN)/python tools/badges.py $(if $(REPO),--repo '$(REPO)')
	touch $(INSTALLED)  # the ranges are as they were

samples: $(INSTALLED)
	@$(IN)/python -m data_scripts.fetch samples

prepared: samples  ## compute once what the chapters take from the samples
	@$(IN)/python -m data_scripts.prepare

clean:  ## remove what make made; the sample images stay in the user's cache
	rm -rf .venv runs build *.egg-info .pytest_cache .ruff_cache

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit($(OLD) if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv .venv
	grep -v $(TO_COMPILE) requirements.txt | $(PIP) -r /dev/stdin
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# Another torch that the ranges allow, to be thrown away; all but what it brings is as in requirements.txt.
build/torch-%/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(@D)
	grep -vE '^(torch|triton|nvidia|cuda|sympy)' requirements.txt > $(@D)/constraints.txt
	$(@D)/bin/python -m pip install --disable-pip-version-check -q -c $(@D)/constraints.txt 'torch==$*' -e .
	touch $@

$(COMPILED): $(INSTALLED)
	grep $(TO_COMPILE) requirements.txt | $(PIP) -r /dev/stdin
	touch $@

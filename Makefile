# Everything below sets itself up: a machine with Python (3.11 or newer) and make is enough.
#   make demo   search, export, verify and benchmark a small model on the built-in phantom images
#   make test   the checks and the tests
#   make docs   the documentation as a site, with a reference of the library: build/site/index.html
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO   ?= runs/demo

.PHONY: demo test lint docs setup clean
setup: $(READY)

# torch and torchvision must be installed together, under the constraints: see constraints.txt.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,dev]'
	@touch $@

demo: $(READY)
	$(BIN)/ttl-deploy search --backbone resnet18 --weights none --data 'phantom:blob?patients=400' --image-size 64 --epochs 8 --lr 1e-3 -o $(DEMO)
	$(BIN)/ttl-deploy export $(DEMO) --format onnx
	$(BIN)/ttl-deploy verify $(DEMO)
	@echo '$(BIN)/ttl-deploy bench $(DEMO)'; $(BIN)/ttl-deploy bench $(DEMO) || test $$? -eq 7
	$(BIN)/ttl-deploy report $(DEMO)
	@cat $(DEMO)/NEXT_STEPS.txt

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Broken links, missing pages and docstrings that do not fit the code are errors. With --quiet they would pass unseen.
docs: $(READY)
	$(BIN)/mkdocs build --strict

test: lint docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not gpu' -n auto --dist loadfile

clean:
	rm -rf $(VENV) build *.egg-info

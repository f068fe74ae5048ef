# Two commands: `make demo` and `make test`. Both make .venv and install into it first.
PYTHON ?= python3
BIN := .venv/bin
.PHONY: demo test test-slow test-gpu gpu-figures lint install clean

demo: install
	$(BIN)/bench run grid.yaml --results demo/results
	$(BIN)/bench report --results demo/results --reports demo/reports
	@echo "open demo/reports/digits/index.html; the checked-in figures are in reports/digits/"

# A test that hangs fails after 10 minutes, with the place where it hangs: no test takes two.
test: install lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --timeout 600 -m "not slow and not gpu"

test-slow: install
	$(BIN)/python -m pytest -m slow

# On a machine with one GPU: what only a GPU shows, then its figures and its environment under results/, meant for ten
# minutes in all. `make gpu-figures DEVICE=cpu NETS=28x4` is its dry run.
DEVICE ?= cuda
NETS ?= 28x32,32x64,64x64
QUICK ?= --quick --seconds 1 --rounds 3
gpu-figures: install
	$(BIN)/python -m pytest -m gpu -rs
	$(BIN)/python results/speed/engine.py --device $(DEVICE) --nets $(NETS) --runs 8,32
	$(BIN)/bench speed --device $(DEVICE) $(QUICK) --out results/speed/$(DEVICE).json

test-gpu: install
	$(BIN)/python -m pytest -m gpu -rs

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: .venv/installed

# uv installs the same packages as pip in a fraction of the time; where it cannot be had, pip does it. Compiled once:
# where PYTHONDONTWRITEBYTECODE is set, every process would compile torch anew (4 s in place of 2).
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv \
	  && $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[test]' \
	  || $(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf .venv demo

# Everything sets itself up: `make demo` to see it work, `make test` to see it proved.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test style types tests postgresql chromium pictures campaign bench clean

demo: $(VENV)/demo.installed  ## a simulated call, transcribed here: neither phone nor key
	$(BIN)/python app.py demo $(if $(FILE),"$(FILE)") $(if $(VOCABULARY),--vocabulary $(VOCABULARY)) $(if $(SERVICE),--service $(SERVICE))

test: style types tests  ## all that .ci/run runs

style: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.installed
	$(BIN)/mypy

tests: $(VENV)/dev.installed postgresql chromium  ## the tests with coverage, and beside them on every other Python found here
	tests/every_python.sh $(BIN)

postgresql:  ## the tests start a server of their own; root gets it from the system's packages
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || \
	    { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; } || \
	    { echo "The tests need PostgreSQL's programs: sudo apt-get install postgresql"; exit 1; }

chromium:  ## the page is tested in a real browser; root gets it from the system's packages
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	    { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } || \
	    { echo "The tests need the browser Chromium: sudo apt-get install chromium"; exit 1; }

pictures: $(VENV)/dev.installed chromium  ## the README's pictures of the page, anew
	$(BIN)/python -m tests.browser.pictures

campaign: $(VENV)/dev.installed  ## random drop schedules for as long as you like: make campaign EXAMPLES=5000
	DROP_EXAMPLES=$(or $(EXAMPLES),1000) $(BIN)/python -m pytest tests/test_drops.py --timeout 0

bench: $(VENV)/bench.installed  ## our relay against others: half an hour and two idle cores, or a look: make bench QUICK=1
	$(BIN)/python -m benchmarks.run $(if $(QUICK),--quick)

$(VENV)/demo.installed: requirements.txt requirements-demo.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-demo.txt
	@touch $@

$(VENV)/dev.installed: requirements-dev.txt $(VENV)/demo.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/bench.installed: requirements-bench.txt $(VENV)/demo.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@

clean:
	rm -rf .venv* .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

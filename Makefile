# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test compiled tools lint lock docs clean

# Python compiles what is imported when it is first imported: a small part of what pip would compile on one core here.
export PYTHONDONTWRITEBYTECODE =

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/basin-gate demo $(DEMO_ARGS)

# The tests of the alerts run the real Prometheus; without it they skip.
$(VENV)/prometheus: tests/tools/unpack_debian.sh
	tests/tools/unpack_debian.sh $@ prometheus prometheus-alertmanager
	touch -c $@

# The guard is tried on a real MariaDB, whose collations take many spellings for one name; without it those tests skip.
$(VENV)/mariadb: tests/tools/unpack_debian.sh
	tests/tools/unpack_debian.sh $@ mariadb-server-core libaio1 liburing2 libnuma1
	touch -c $@

# The tests of the chart render it with the real Helm; where it cannot be had they skip and say why.
$(BIN)/helm: charts/install_helm.py $(VENV)/.installed
	$(BIN)/python charts/install_helm.py $(BIN)
	touch -c $@

# The linter that what the chart renders is held to; without it that test skips.
$(VENV)/checkov: tests/tools/install_checkov.sh tests/tools/checkov.lock $(VENV)/.installed
	tests/tools/install_checkov.sh $@
	touch -c $@

# Three processes, since some of the time is waiting for servers to start; tests/conftest.py says which tests share one.
test:
	$(MAKE) --no-print-directory --jobs=3 tools lint compiled
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Collected once beforehand, on a core that has nothing to do, so that three processes do not each compile the same.
compiled: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q --collect-only > $(VENV)/collected.log || { cat $(VENV)/collected.log; exit 1; }

tools: $(VENV)/prometheus $(VENV)/mariadb $(VENV)/checkov $(BIN)/helm

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site that needs no network: .state/site/index.html. Warnings, as of a broken link, end it.
docs: $(VENV)/.installed
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet docs .state/site

lock: $(VENV)/.installed
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) .state

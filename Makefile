# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint lock docs clean

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
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

# Three processes, since most of the time is waiting for servers to start; each file stays on one of them.
test: $(VENV)/.installed $(VENV)/prometheus $(VENV)/mariadb $(BIN)/helm lint
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile $(PYTEST_ARGS)

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

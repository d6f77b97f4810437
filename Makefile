# Needs make, Python 3.11 or later, and the package registries; on Debian as root, missing programs are installed with apt.
#   make demo    see it work          make test    all tests          make check   lint, types, layers
#   make bench   compare with peers   make guard   has it become slower?
#   make bench-h2   HTTP/2 beside nghttpx, Envoy and HAProxy
#   make bench-telemetry   what scrapes, traces and the like cost
#   make chaos   hurt backends under load      make bench-tls   what TLS costs
#   make churn   change endpoints under load   make kube-apiserver   a real API server for the tests, in ten minutes
#   make docs    the manual       make clean   remove what these made

# Debian's build is optimised by profile, which some others in PATH are not: 10 to 25 % on the data path.
# Where there is none at all, it is the one that apt brings.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11) $(shell command -v python3.11) /usr/bin/python3.11)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# More than the two cores of a small machine, as tests wait for much of their time; they share nothing, ports neither.
TEST_JOBS ?= 3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test check bench bench-peers bench-tls bench-h2 bench-telemetry guard chaos churn kube-apiserver docs clean FORCE

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

venv: $(VENV)/.installed

# The folder is made anew when it is missing or its interpreter is gone; setup.cfg decides what is in it.
$(VENV)/.installed: setup.cfg pyproject.toml $(if $(wildcard $(BIN)/python),,FORCE)
	@case "$(PYTHON)" in /usr/bin/*) .ci/packages python3-venv ;; esac
	test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet --editable '.[test,lint]'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) install --quiet --editable '.[docs]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python deploy/demo/run.py $(ARGS)

# Hypothesis tries the same examples each time; ARGS='--hypothesis-profile random' tries others, as pytest by itself does.
# Where the surroundings tell Python to keep no bytecode, each of the hundreds of gateways that are started would be compiled anew.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.installed
	.ci/packages nginx-light haproxy curl dnsmasq-base bind9 bind9-dnsutils wrk openssl sslscan consul zookeeper \
		nghttp2-client nghttp2-server nghttp2-proxy chromium prometheus influxdb
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal --hypothesis-profile fixed $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/unit/test_layers.py

bench: $(VENV)/.installed
	.ci/packages nginx-light haproxy wrk
	$(BIN)/python benchmarks/run.py $(ARGS)

# The benchmark makes what it lacks below .bench/ itself; this does so in advance.
bench-peers: $(VENV)/.installed
	$(BIN)/python benchmarks/environments.py

bench-tls: $(VENV)/.installed
	.ci/packages nginx-light haproxy wrk openssl curl
	$(BIN)/python benchmarks/tls.py $(ARGS)

bench-h2: $(VENV)/.installed
	.ci/packages haproxy nghttp2-client nghttp2-server nghttp2-proxy
	$(BIN)/python benchmarks/h2.py $(ARGS)

bench-telemetry: $(VENV)/.installed
	.ci/packages haproxy wrk
	$(BIN)/python benchmarks/telemetry.py $(ARGS)

# By hand and before a release, never in CI: figures of another machine or build prove nothing.
guard: $(VENV)/.installed
	.ci/packages nginx-light wrk
	$(BIN)/python benchmarks/guard.py $(ARGS)

chaos: $(VENV)/.installed
	$(BIN)/python benchmarks/chaos.py $(ARGS)

# Two minutes of churn, and as many without for comparison; ARGS='--source apiserver' after make kube-apiserver, as root.
churn: $(VENV)/.installed
	.ci/packages haproxy consul
	$(BIN)/python benchmarks/churn.py $(ARGS)

# Not needed by make test, which says what it leaves out without it.
kube-apiserver:
	.ci/packages dpkg-dev
	.ci/kube-apiserver

docs: $(VENV)/.docs
	mkdir -p docs/reference/generated
	$(BIN)/meshgw reference > docs/reference/generated/configuration.md
	$(BIN)/mkdocs build --strict --quiet
	@echo "the manual is in site/index.html"

clean:
	rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis site docs/reference/generated build dist
	find meshgw twisted tests benchmarks deploy -name __pycache__ -type d -prune -exec rm -rf {} +

FORCE:

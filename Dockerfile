# Three images from one file, each with only what it runs:
#
#   docker build --target api    -t basin-gate-api    .   API, dispatcher, offline commands; no torch
#   docker build --target worker -t basin-gate-worker .   the same and the bench; torch for the CPU
#   docker build --target guard  -t basin-gate-guard  .   an MLflow server with the guard inside
#
# A worker for NVIDIA GPUs: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
# (torch brings its CUDA libraries along, each at the version that it demands; the host has the driver only.)
# Each image says what it was built of: /opt/basin-gate/bom.cdx.json (CycloneDX, its Python packages); BuildKit's --sbom=true
# tells of the system's packages too. For releases pin the base by its digest: --build-arg PYTHON_IMAGE=python:…@sha256:…

ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

# ---------------------------------------------------------------- our own wheel
FROM ${PYTHON_IMAGE} AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /build
WORKDIR /src
RUN /build/bin/pip install setuptools==84.2.1
COPY pyproject.toml README.md LICENSE ./
COPY gate gate/
COPY tasks tasks/
COPY policies policies/
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# ---------------------------------------------------------------- what each image installs, at the locked versions
FROM ${PYTHON_IMAGE} AS installer
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/basin-gate
COPY requirements.lock /src/
# Clients of object stores, as `boto3==…`: only where artifacts are read around MLflow's own proxy.
ARG EXTRA_REQUIREMENTS=""

FROM installer AS api-files
COPY --from=wheel /wheels /wheels
RUN /opt/basin-gate/bin/pip install --constraint /src/requirements.lock \
      "$(echo /wheels/basin_gate-*.whl)[service,tracing]" ${EXTRA_REQUIREMENTS} \
 && /opt/basin-gate/bin/pip check \
 && /opt/basin-gate/bin/basin-gate version --bom > /opt/basin-gate/bom.cdx.json \
 && /opt/basin-gate/bin/python -c "import importlib.util as u; assert u.find_spec('torch') is None, 'torch in the api image'"

FROM installer AS worker-files
# Torch first and alone: the largest layer is the one that changes least.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN /opt/basin-gate/bin/pip install --constraint /src/requirements.lock --extra-index-url "${TORCH_INDEX}" torch
COPY --from=wheel /wheels /wheels
RUN /opt/basin-gate/bin/pip install --constraint /src/requirements.lock --extra-index-url "${TORCH_INDEX}" \
      "$(echo /wheels/basin_gate-*.whl)[service,bench,tracing,sigstore]" ${EXTRA_REQUIREMENTS} \
 && /opt/basin-gate/bin/pip check \
 && /opt/basin-gate/bin/basin-gate version --bom > /opt/basin-gate/bom.cdx.json

FROM installer AS guard-files
COPY --from=wheel /wheels /wheels
RUN /opt/basin-gate/bin/pip install --constraint /src/requirements.lock \
      "$(echo /wheels/basin_gate-*.whl)[guard]" ${EXTRA_REQUIREMENTS} \
 && /opt/basin-gate/bin/pip check \
 && /opt/basin-gate/bin/basin-gate version --bom > /opt/basin-gate/bom.cdx.json

# ---------------------------------------------------------------- what runs: nothing is written outside /tmp and the state folder
FROM ${PYTHON_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="basin-gate" \
      org.opencontainers.image.description="A model-registry safety gate for MLflow" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 gate \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin gate \
 && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/basin-gate
ENV PATH=/opt/basin-gate/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    GATE_STATE_DIR=/var/lib/basin-gate
WORKDIR /var/lib/basin-gate
USER 10001:10001

FROM runtime AS api
COPY --from=api-files /opt/basin-gate /opt/basin-gate
ENV GATE_API_BIND=0.0.0.0:8500 \
    GATE_HEARTBEAT_FILE=/tmp/heartbeat
EXPOSE 8500
# The dispatcher of this image touches a file as it works; the API is asked.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
  CMD ["sh", "-c", "find /tmp/heartbeat -mmin -10 2>/dev/null | grep --quiet . || python -c \"import os, ssl, urllib.request as r; tls = bool(os.environ.get('GATE_TLS_CERTIFICATE_FILE')); r.urlopen('https://127.0.0.1:8500/readyz' if tls else 'http://127.0.0.1:8500/readyz', timeout=8, context=ssl._create_unverified_context() if tls else None)\""]
ENTRYPOINT ["basin-gate"]
CMD ["api"]

FROM runtime AS worker
COPY --from=worker-files /opt/basin-gate /opt/basin-gate
ENV HF_HUB_OFFLINE=1 \
    GATE_HEARTBEAT_FILE=/tmp/heartbeat
HEALTHCHECK --interval=60s --timeout=10s --start-period=120s \
  CMD ["sh", "-c", "find /tmp/heartbeat -mmin -10 | grep --quiet ."]
ENTRYPOINT ["basin-gate"]
CMD ["worker", "cpu"]

FROM runtime AS guard
COPY --from=guard-files /opt/basin-gate /opt/basin-gate
ENV MLFLOW_DISABLE_TELEMETRY=true
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5000/health', timeout=8)"]
ENTRYPOINT ["mlflow"]
CMD ["server", "--host", "0.0.0.0", "--port", "5000"]

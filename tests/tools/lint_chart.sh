#!/usr/bin/env bash
# Holds what the chart renders, and the Dockerfile, to checkov's policies: tests/tools/lint_chart.sh
# Checkov wants many packages at versions of its own, so it gets an environment of its own, which is removed at the end.
# Not part of the test suite: what the suite's own policy tests hold is checked there at every run.
set -euo pipefail
cd "$(dirname "$0")/../.."
helm=${HELM:-.venv/bin/helm}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check "checkov==3.3.30"
mkdir "$scratch/rendered"
for values in charts/basin-gate/ci/*-values.yaml; do
  "$helm" template gate charts/basin-gate --namespace basin-gate --api-versions keda.sh/v1alpha1 \
    --api-versions cert-manager.io/v1 --api-versions gateway.networking.k8s.io/v1 --values "$values" \
    >"$scratch/rendered/$(basename "$values")"
done
# What is not followed, and why:
skipped=(
  CKV_K8S_21   # the namespace is Helm's --namespace, not the manifests'
  CKV_K8S_11   # no CPU limits: throttling a measurement helps nobody; memory is limited
  CKV_K8S_15   # images are named by version or digest: nothing changes under a tag that would have to be pulled again
  CKV_K8S_43   # digests are a value of the operator (image.*.digest)
  CKV_K8S_35   # addresses with passwords are variables, as SQLAlchemy's and Celery's are everywhere; keys are files
  CKV_K8S_8    # the pod of `helm test` ends by itself; the suite holds that whatever runs on is watched
  CKV_K8S_9    # workers are asked by nobody, so nobody has to know when they are ready
)
"$scratch/venv/bin/checkov" --directory "$scratch/rendered" --framework kubernetes --quiet --compact \
  --skip-download --skip-check "$(IFS=,; echo "${skipped[*]}")"
# CKV_DOCKER_7 looks at the base's default tag through a build argument and sees none; the suite holds that it is pinned.
"$scratch/venv/bin/checkov" --file Dockerfile --framework dockerfile --quiet --compact --skip-download --skip-check CKV_DOCKER_7
echo "checkov: nothing found"

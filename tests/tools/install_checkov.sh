#!/usr/bin/env bash
# Puts the linter checkov into an environment of its own: install_checkov.sh FOLDER
# It wants many packages at versions of its own, and uv installs them in seconds where pip takes half a minute.
# Where it cannot be had this says so and the test that needs it skips.
set -euo pipefail
folder=$1
lock=$(dirname "$0")/checkov.lock

python3 -m venv --clear "$folder"
if ! { "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$lock" uv \
  && "$folder/bin/uv" pip install --quiet --no-deps --python "$folder/bin/python" --requirement "$lock"; } 2>"$folder/log"; then
  echo "checkov: not to be had, the test that needs it will skip: $(tail -n 1 "$folder/log")" >&2
  rm -rf "$folder"
fi

#!/usr/bin/env bash
# Unpacks Debian packages into a folder: unpack_debian.sh FOLDER PACKAGE…
# Needs no root and changes nothing of the system. Where they cannot be had it says so and the tests skip.
set -euo pipefail
folder=$1
packages=("${@:2}")

for tool in apt-get dpkg; do
  command -v "$tool" >/dev/null || { echo "${packages[0]}: no $tool here; tests that need it will skip" >&2; exit 0; }
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
options=(-qq -o Debug::NoLocking=1 -o Dir::State::lists="$scratch/lists" -o Dir::Cache="$scratch/cache")
[ "$(id -u)" -ne 0 ] || options+=(-o APT::Sandbox::User=root)
cd "$scratch"
if ! { apt-get "${options[@]}" update && apt-get "${options[@]}" download "${packages[@]}"; } >"$scratch/log" 2>&1; then
  echo "${packages[0]}: not to be had, tests that need it will skip: $(tail -n 1 "$scratch/log")" >&2
  exit 0
fi
cd - >/dev/null
mkdir -p "$folder"
for package in "$scratch"/*.deb; do dpkg -x "$package" "$folder"; done

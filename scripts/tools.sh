#!/usr/bin/env bash
# Builds the tools that tools/go.mod pins, once, and prints the folder they are in.
#
#   scripts/tools.sh [name…]      the named ones, e.g. buf golangci-lint; all of them without a name
#
# The folder is named by a hash of tools/go.sum: a new pin gets a new folder, an old one is never run by mistake.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=$PWD/.tools/$(sha256sum tools/go.sum | cut -c1-12)
mkdir -p "$dir"
exec 9>"$dir/.lock"
flock 9 # two runs at once: the second one waits and finds the work done

packages=$(cd tools && go list tool)
[ $# -gt 0 ] || mapfile -t names < <(basename -a $(sed -E 's|/v[0-9]+$||' <<<"$packages"))
for name in "${@:-${names[@]}}"; do
  [ -x "$dir/$name" ] && continue
  package=$(grep -E "/$name(/v[0-9]+)?\$" <<<"$packages") || { echo "tools/go.mod pins no tool named $name" >&2; exit 1; }
  echo "building $name" >&2
  go build -C tools -o "$dir/$name.new" "$package"
  mv "$dir/$name.new" "$dir/$name"
done
echo "$dir"

#!/usr/bin/env bash
# Runs the checks, tier by tier; test/runner says what they are.
#
#   scripts/test.sh [-long] [tier…]
set -euo pipefail
cd "$(dirname "$0")/.."
exec go run ./test/runner "$@"

#!/usr/bin/env bash
# Installs what a make target needs and this machine lacks. Silent when nothing is missing.
#
#   scripts/install.sh up|test|test-long|bench
#
# Packages are named before they are installed. As root, or where sudo asks no password, apt installs them; otherwise
# the line to run is printed and the exit status is 1. No daemon is started and no database cluster is made.
set -euo pipefail

purpose=${1:-up}
missing=()

need() { # need PACKAGE… -- TEST…: the packages are missing unless the test succeeds
  local packages=()
  while [ "$1" != -- ]; do packages+=("$1"); shift; done
  shift
  "$@" >/dev/null 2>&1 || missing+=("${packages[@]}")
}

postgresql_present() {
  [ -n "${ROWHOUSE_PG_DSN:-}${ROWHOUSE_PG_BIN:-}" ] && return
  local server major
  for server in /usr/lib/postgresql/*/bin/postgres; do
    major=${server#/usr/lib/postgresql/} major=${major%%/*}
    [ -x "$server" ] && [ "$major" -ge 15 ] && return
  done
  command -v postgres
}

need postgresql-15 -- postgresql_present
case $purpose in
up) ;;
test | test-long)
  need gcc -- command -v gcc
  need libc6-dev -- test -e /usr/include/stdlib.h # the race detector links with C
  need curl -- command -v curl # the guides are run as they are written
  need patch -- command -v patch # one of them changes a program
  need chromium -- command -v chromium
  PATH=$PATH:/usr/sbin
  need pgbouncer -- command -v pgbouncer # isolation is tested through it
  need redis-server -- command -v redis-server # one of the stores that leases are granted from
  if [ "$purpose" = test-long ]; then
    need npm -- command -v npm # OpenFeature's providers for JavaScript ask our flags
  fi
  ;;
bench)
  PATH=$PATH:/usr/sbin
  need nginx-light -- command -v nginx
  need haproxy -- command -v haproxy
  need wrk -- command -v wrk
  need redis-server -- command -v redis-server # the store of a rate limiter that ours is compared with
  ;;
*)
  echo "usage: scripts/install.sh up|test|test-long|bench" >&2
  exit 2
  ;;
esac

[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]} (names of Debian packages); install them and run this again" >&2
  exit 1
elif [ "$(id -u)" = 0 ]; then
  as_root=(env)
elif sudo -n true 2>/dev/null; then
  as_root=(sudo -n env)
else
  line="scripts/install.sh $purpose"
  command -v sudo >/dev/null && line="sudo $line" || line="su -c '$line'"
  echo "missing: ${missing[*]}. To install them with apt, run this, then try again:" >&2
  echo "  $line" >&2
  exit 1
fi
echo "installing ${missing[*]}"

# While the packages install, forbid them to start daemons and to make PostgreSQL's own "main" cluster.
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d/rowhouse-install.conf
ours=()
forbid() { # forbid FILE MODE TEXT: unless the machine has a rule of its own there
  [ -e "$1" ] && return
  ours+=("$1")
  "${as_root[@]}" install -D -m "$2" /dev/stdin "$1" <<<"$3"
}
allow_again() { [ ${#ours[@]} -eq 0 ] || "${as_root[@]}" rm -f "${ours[@]}"; }
trap allow_again EXIT
forbid "$policy" 755 $'#!/bin/sh\nexit 101'
forbid "$cluster" 644 'create_main_cluster = false'

log=$(mktemp)
apt() { "${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >"$log" 2>&1 || { tail -20 "$log" >&2; exit 1; }; }
apt update
apt install --no-install-recommends "${missing[@]}"
rm -f "$log"

# Nor at the next boot: the packages enable their daemons.
for package in "${missing[@]}"; do
  case $package in nginx-light | haproxy | pgbouncer | redis-server)
    ! command -v systemctl >/dev/null || "${as_root[@]}" systemctl -q disable "${package%-light}" || true ;;
  esac
done

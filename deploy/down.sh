#!/usr/bin/env bash
# Ends what deploy/up.sh runs: guests are shut down, daemons stopped, taps and bridge removed. State is kept.
# Also clears up after an up.sh that was killed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/cloud.sh
. "$here/lib/cloud.sh"

if ((EUID != 0)); then
    exec sudo --preserve-env=CLOUD_STATE_DIR,CLOUD_PORT,CLOUD_BRIDGE,CLOUD_HOSTS_NAME,CLOUD_UNDERLAY,CLOUD_BIN_DIR,CLOUD_RUN_DIR,CARGO_TARGET_DIR "$0" "$@"
fi
cloud_configure "${CLOUD_STATE_DIR:-/var/lib/thecloud}" "${CLOUD_PORT:-8080}" "${CLOUD_BRIDGE:-br-int}"

cloud_does_not_run() { ! cloud_runs; }

mkdir -p "$run_dir"
touch "$run_dir/cloud.lock"
if cloud_runs; then
    pid=$(cat "$run_dir/up.pid" 2> /dev/null) || die "a demonstration or a test runs a cloud here, not make up: let it end"
    kill -TERM "$pid"
    within 120 cloud_does_not_run || die "make up (pid $pid) does not end"
    exit 0
fi
take_cloud_lock "a cloud has just been started: try again"
if [[ -d $run_dir/hosts ]]; then
    exec 8>&-
    exec "$here/hosts.sh" down
fi
if [[ ! -d $daemons_dir && ! -e $run_dir/up.pid ]]; then
    note "nothing runs"
    exit 0
fi
rm -f "$run_dir/up.pid"
# Whoever started them is gone, so the services may need starting to be cleaned.
"$here/services.sh" start up 8>&-
cloud_stop up
note "stopped; instances and volumes are kept in $state_dir"

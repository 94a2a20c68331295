#!/usr/bin/env bash
# Runs a one-machine cloud until Ctrl-C or deploy/down.sh: services, the gateway, the three agents, the image `tiny`.
# Instances and volumes stay for the next time. `make up` builds first; this needs root (it asks sudo).
#
# CLOUD_STATE_DIR (/var/lib/thecloud), CLOUD_PORT (8080), CLOUD_BRIDGE (br-int), CLOUD_BIN_DIR (target/release)
# HOSTS=3: several hosts instead, each in namespaces of its own; see hosts.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/cloud.sh
. "$here/lib/cloud.sh"

if [[ -n ${HOSTS:-} ]]; then exec "$here/hosts.sh" up "$HOSTS"; fi
if ((EUID != 0)); then
    exec sudo --preserve-env=CLOUD_STATE_DIR,CLOUD_PORT,CLOUD_BRIDGE,CLOUD_BIN_DIR,CLOUD_RUN_DIR,CLOUD_CACHE_DIR,CARGO_TARGET_DIR "$0" "$@"
fi
cloud_configure "${CLOUD_STATE_DIR:-/var/lib/thecloud}" "${CLOUD_PORT:-8080}" "${CLOUD_BRIDGE:-br-int}"
take_cloud_lock "a cloud already runs here: make down stops it"

finish() {
    local status=$?
    trap - EXIT
    # From here on a second Ctrl-C changes nothing: half a clean-up helps nobody, and each step has its own limit.
    trap '' INT TERM
    note "stopping"
    rm -f "$run_dir/up.pid"
    (cloud_stop up) || status=1
    ((status != 0)) || note "stopped; instances and volumes are kept in $state_dir"
    exit "$status"
}
trap finish EXIT
trap 'exit 0' INT TERM
echo $$ > "$run_dir/up.pid"

cloud_start up
import_tiny
if [[ -n ${SUDO_UID:-} ]]; then chown "$SUDO_UID" "$key_file"; fi
printf 'CLOUD_ENDPOINT=%s\nCLOUD_API_KEY_FILE=%s\nexport CLOUD_ENDPOINT CLOUD_API_KEY_FILE\n' \
    "$endpoint" "$key_file" > "$run_dir/env.new"
mv "$run_dir/env.new" "$run_dir/env"

cat << TEXT

The cloud is up.
  REST, gRPC, gRPC-Web   $endpoint
  OpenAPI, metrics       $endpoint/openapi.json  $endpoint/metrics
  API key                $key_file
  logs                   ${logs_dir#"$root_dir"/}

Three things to try, in another terminal:
  . .run/env; PATH=$bin_dir:\$PATH
  cloud instance launch --image tiny --name web-01 --wait && cloud instance console web-01
  curl -s -H "Authorization: Bearer \$(cat \$CLOUD_API_KEY_FILE)" \$CLOUD_ENDPOINT/instances
  grpcurl -plaintext -H "authorization: Bearer \$(cat \$CLOUD_API_KEY_FILE)" 127.0.0.1:$port cloud.v1.InstanceService/ListInstances

Ctrl-C or make down ends it.
TEXT

while true; do
    # In the background, so that a signal is handled at once.
    sleep 1 8>&- &
    wait $! || true
    restart_dead_daemons
done

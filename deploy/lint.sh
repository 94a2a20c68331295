#!/usr/bin/env bash
# Static checks: formatting, clippy, shell scripts. Anything found fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts() {
    local files libraries
    mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run ':!deploy/lib')
    shellcheck -x -P SCRIPTDIR "${files[@]}"
    # What is sourced is used by and uses variables of the others.
    mapfile -t libraries < <(git ls-files --cached --others --exclude-standard -- deploy/lib)
    shellcheck -e SC2034,SC2154 "${libraries[@]}"
    # The guest's own scripts have no suffix; busybox reads them as plain sh.
    shellcheck -s sh -x --source-path=images/tiny/rootfs images/tiny/rootfs/usr/lib/tiny/*
}

case ${1:-all} in
    fmt) cargo fmt --all --check ;;
    clippy) cargo clippy --workspace --all-targets --locked -- -D warnings ;;
    scripts) scripts ;;
    all)
        cargo fmt --all --check
        cargo clippy --workspace --all-targets --locked -- -D warnings
        scripts
        ;;
    *)
        echo "usage: deploy/lint.sh [fmt|clippy|scripts]" >&2
        exit 2
        ;;
esac

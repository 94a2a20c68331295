# shellcheck shell=bash
# Python programs that tests use, each in a virtual environment of its own; sourced.

# python_tools NAME REQUIREMENTS: a virtual environment in the cache with what the file says, made once for each content of it; prints its directory.
# CLOUD_CACHE_DIR is .cache of the checkout where it is not set.
python_tools() {
    local name=$1 requirements=$2 cache wanted
    cache=${CLOUD_CACHE_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.cache}
    wanted=$cache/$name-$(sha256sum "$requirements" | cut -c1-12)
    if [[ ! -e $wanted/complete ]]; then
        rm -rf "$wanted"
        mkdir -p "$cache"
        python3 -m venv "$wanted" >&2
        "$wanted/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$requirements" >&2
        touch "$wanted/complete"
    fi
    echo "$wanted"
}

# shellcheck shell=bash
# Functions of the tests with unmodified clients of other servers, which source this file.
# shellcheck source=kernel/lib.sh
. kernel/lib.sh

# install_from_pypi FOLDER PACKAGE...: a virtual environment FOLDER/venv with exactly these packages.
install_from_pypi() {
    local folder=$1
    shift
    if [ "$(cat "$folder/from-pypi" 2>/dev/null)" = "$*" ]; then return; fi
    mkdir -p "$folder"
    "${PYTHON:-python3}" -m venv --clear "$folder/venv"
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"
    echo "$*" >"$folder/from-pypi"
}

# with_server SCRIPT LANGUAGE...: runs `SCRIPT inside` beside a server with these languages. CLOUDE_TEST_BACKEND has its URL.
with_server() {
    local script=$1 binaries memory language languages=()
    shift
    for language in "$@"; do languages+=(--language "$language"); done
    binaries=$(tools/build)
    "$binaries/cloude-initramfs" build "${languages[@]}"
    memory=$(awk '$1 == "MemTotal:" { print int($2 / 1024 * 0.5) }' /proc/meminfo)
    # shellcheck disable=SC2016
    tools/with-kvm --memory "$memory" tools/on-tmpfs "$binaries" "$(cache_dir)" \
        bash -c 'tools/tests/sdk_server.py "$CLOUDE_BIN_DIR" "$0" inside' "$script"
}

# Sourced by the tools: finds or makes the Python environment that they run in, and sets `root` and `py`.
#
#   GFLDET_PYTHON=FILE, or --python FILE as the first argument   an environment that is ready; nothing is installed
#   PYTHON=FILE                                                  the Python 3.10+ to make .venv of the checkout with
#
# Without the first, .venv in the checkout is used, made and filled when it is missing or pyproject.toml has changed.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ "${1:-}" = --python ]; then
    GFLDET_PYTHON=${2:?--python needs the path of a Python}
    shift 2
fi

die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 2
}

# The first Python that is new enough and can make environments.
find_python() {
    local candidate seen="" candidates=(python3 python3.14 python3.13 python3.12 python3.11 python3.10 python)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        command -v "$candidate" >/dev/null || continue
        seen="$seen $candidate"
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
        "$candidate" -c 'import ensurepip, venv' 2>/dev/null || continue
        printf '%s\n' "$candidate"
        return
    done
    die "no Python 3.10 or newer with the modules venv and ensurepip (looked at:${seen:- none}); \
install one (on Debian and Ubuntu the package python3-venv belongs to it), or set PYTHON=/path/to/python3"
}

# use_environment NAME REQUIREMENT...: sets py; installs the requirements into .venv once for each pyproject.toml.
use_environment() {
    local name=$1 venv="$root/.venv" base stamp
    shift
    if [ -n "${GFLDET_PYTHON:-}" ]; then
        py=$(command -v "$GFLDET_PYTHON") || die "$GFLDET_PYTHON: no such Python (from GFLDET_PYTHON or --python)"
        [ "${py#/}" != "$py" ] || py="$PWD/$py"
        return
    fi
    py="$venv/bin/python"
    stamp="$root $(cksum <"$root/pyproject.toml")"
    if [ -x "$py" ] && [ "$(cat "$venv/gfldet-$name" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    if ! "$py" -m pip --version >/dev/null 2>&1; then
        base=$(find_python)
        printf 'Making an environment in %s with %s\n' "$venv" "$("$base" --version)"
        "$base" -m venv --clear "$venv"
    fi
    printf 'Installing gfldet and what it needs into %s (the first time takes minutes)\n' "$venv"
    (cd "$root" && "$py" -m pip install --disable-pip-version-check --quiet "$@")
    printf '%s' "$stamp" >"$venv/gfldet-$name"
}

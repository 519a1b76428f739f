# Sourced by quickstart.sh and run_tests.sh: creates a virtual environment and installs the project in it.
#   PYTHON   interpreter (default: python3)
#   VENV     folder of the environment (default: .venv in the project)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

setup_env() { # EXTRAS
    local venv=${VENV:-$root/.venv} stamp
    if [ ! -x "$venv/bin/python" ]; then
        echo "Creating a virtual environment in $venv"
        "${PYTHON:-python3}" -m venv "$venv"
    fi
    # shellcheck disable=SC1091
    . "$venv/bin/activate"
    # Install again only if the requirements have changed.
    stamp="$venv/.installed-$(cat setup.cfg setup.py pyproject.toml constraints.txt | cksum | tr ' ' -)-$1"
    if [ ! -f "$stamp" ]; then
        echo "Installing pvvae_plugin[$1] and its dependencies (a few minutes the first time)"
        # Install torch first, separately: a suitable installed version is kept.
        python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch setuptools wheel
        python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$1]"
        rm -f "$venv"/.installed-*-"$1"
        touch "$stamp"
    fi
}

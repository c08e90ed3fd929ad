# shellcheck shell=bash
# The system of compose/dev.yml in containers. Sourced by scripts/up and scripts/down.

readonly compose_file=compose/dev.yml
readonly pull_timeout_s=${PILLION_PULL_TIMEOUT:-180}
readonly healthy_timeout_s=${PILLION_UP_TIMEOUT:-120}

compose_command= # "docker compose", or "docker-compose" where only the old one is there

engine_answers() { command -v docker >/dev/null && timeout 20 docker info >/dev/null 2>&1; }

find_compose() {
  if docker compose version >/dev/null 2>&1; then
    compose_command="docker compose"
  elif command -v docker-compose >/dev/null; then
    compose_command="docker-compose"
    # The old tool builds with the engine's old builder unless told otherwise; that one has no cache mounts.
    export DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1
  else
    return 1
  fi
}

compose() {
  # shellcheck disable=SC2086 # two words
  $compose_command -f "$compose_file" "$@"
}

# base_images FILE... - the public images, or their stand-ins, that compose files build on.
base_images() {
  local file
  for file in "$@"; do
    # shellcheck disable=SC2086 # two words
    $compose_command -f "$file" config | sed -n 's/^ *[A-Z]*_BASE: //p'
  done | sort -u
}

# example_images - the public images, or their stand-ins, that compose/examples are made of.
example_images() {
  local file
  for file in compose/examples/*.yml; do
    # shellcheck disable=SC2086 # two words
    $compose_command -f "$file" config | sed -n 's/^ *image: //p' | grep -v '^pillion/[a-z]*:dev$'
  done
}

# ensure_base_images [FILE...] - each is here, or can be pulled, or stand-ins are made of Debian packages.
ensure_base_images() {
  # shellcheck disable=SC2046 # a word each
  ensure_images '' $(base_images "${@:-$compose_file}")
}

# ensure_example_images - the same for compose/examples.
ensure_example_images() {
  # shellcheck disable=SC2046 # a word each
  ensure_images --examples $(example_images)
}

# ensure_images OPTION IMAGE... - OPTION is for scripts/base-images.
ensure_images() {
  local image option=$1
  shift
  for image in "$@"; do
    docker image inspect "$image" >/dev/null 2>&1 && continue
    case $image in
      pillion/base-*) say "the stand-in $image is not there any more" ;;
      *)
        say "pulling $image (at most $pull_timeout_s s)"
        timeout "$pull_timeout_s" docker pull -q "$image" >/dev/null 2>&1 && continue
        say "$image cannot be pulled"
        ;;
    esac
    say "making stand-ins of Debian packages with scripts/base-images; this takes some minutes, once"
    # shellcheck disable=SC2086 # none or one word
    scripts/base-images $option || fail "without base images nothing can be built. Either load them (docker load), or run scripts/base-images as root on Debian, or use: scripts/up --native"
    return
  done
}

# containers_up - builds and starts everything, and returns once it is healthy.
containers_up() {
  say "with containers: $($compose_command version --short 2>/dev/null | sed "s/^/$compose_command /")"
  if [ -n "$(compose ps -q 2>/dev/null)" ]; then
    say "it is running already; what has changed is brought up to date"
  else
    demand_ports
  fi
  ensure_base_images
  if [ "$compose_command" = "docker compose" ]; then
    say "docker compose -f $compose_file up --build --wait"
    compose up --build --wait --wait-timeout "$healthy_timeout_s" \
      || fail "not everything became healthy. Look at: docker compose -f $compose_file ps --all; docker compose -f $compose_file logs"
  else
    say "docker-compose -f $compose_file build && docker-compose -f $compose_file up --detach"
    compose build
    compose up --detach
    wait_healthy
  fi
}

# wait_healthy - what `up --wait` does, for the old tool.
wait_healthy() {
  local end=$((SECONDS + healthy_timeout_s)) waiting
  while :; do
    waiting=$(compose ps -q | xargs docker inspect \
      --format '{{if .State.Health}}{{if ne .State.Health.Status "healthy"}}{{.Name}} {{end}}{{end}}')
    waiting=${waiting//$'\n'/}
    [ -n "$waiting" ] || return 0
    [ $SECONDS -lt $end ] || fail "not healthy after $healthy_timeout_s s: $waiting. Look at: docker-compose -f $compose_file logs"
    sleep 1
  done
}

# containers_follow - shows the logs until Ctrl-C, then stops everything, as `docker compose up` does.
containers_follow() {
  say "Ctrl-C stops it"
  # shellcheck disable=SC2086 # two words
  $compose_command -f "$compose_file" logs --follow --tail 5 &
  follow $!
  say "stopping"
  compose stop
  say "stopped; scripts/up starts it again, scripts/down removes it"
}

# containers_down - removes containers, networks, volumes and images of the compose file, and says which.
containers_down() {
  local containers images
  containers=$(compose ps --all -q 2>/dev/null | wc -l)
  images=$(compose config | sed -n 's/^ *image: //p' | sort -u | while read -r image; do docker image ls -q "$image"; done | wc -l)
  compose down --volumes --rmi all >/dev/null 2>&1 \
    || fail "could not remove everything. Look at: $compose_command -f $compose_file down --volumes --rmi all"
  if [ "$containers" -gt 0 ]; then removed+=("$containers containers with their network and volumes"); fi
  if [ "$images" -gt 0 ]; then removed+=("$images images"); fi
}

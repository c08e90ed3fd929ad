# shellcheck shell=bash
# What scripts/up and scripts/down both know: messages, the user's settings, and who listens where.
# The calling script sets `program`, its name in messages.
# shellcheck disable=SC2034 # what is unused here is used there

readonly env_file=compose/.env

say() { echo "${program:?}: $*"; }
fail() { echo "$program: $*" >&2; exit 1; }

# usage - the comment at the top of the calling script, up to its first command.
usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d'; }

# setting NAME DEFAULT - from the environment, else from compose/.env, else the default: as compose itself reads them.
setting() {
  local from_file=
  if [ -f "$env_file" ]; then from_file=$(sed -n "s/^$1=//p" "$env_file" | tail -n 1); fi
  local value=${!1:-$from_file}
  echo "${value:-$2}"
}

registry_port=$(setting PILLION_REGISTRY_PORT 3000)
log_port=$(setting PILLION_LOG_PORT 4000)
portal_port=$(setting PILLION_PORTAL_PORT 5000)
grading_port=$(setting PILLION_GRADING_PORT 6000)
sidecar_port=$(setting PILLION_SIDECAR_PORT 7070) # the first of the sidecars' ports where they run as local processes

# port_taken PORT - true if something on this machine accepts connections there.
port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# demand_port PORT SETTING - fails, with what to do, if the port is taken.
demand_port() {
  port_taken "$1" || return 0
  fail "port $1 is taken by another program. Stop it (an earlier start: scripts/down), or choose another: $2=PORT scripts/up"
}

demand_ports() {
  demand_port "$registry_port" PILLION_REGISTRY_PORT
  demand_port "$log_port" PILLION_LOG_PORT
  demand_port "$portal_port" PILLION_PORTAL_PORT
  demand_port "$grading_port" PILLION_GRADING_PORT
}

# follow PID - waits for a process that shows logs; Ctrl-C or SIGTERM ends it and goes on here.
follow() {
  trap 'kill "$1" 2>/dev/null || true' INT TERM
  wait "$1" || true
  trap - INT TERM
}

absent= # names of demo apps that this machine cannot run

# show_where - what to open now.
show_where() {
  echo
  local name
  for name in Portald GradingService registry log; do
    case " $absent " in *" $name "*) continue ;; esac
    case $name in
      Portald) echo "  Portald          http://127.0.0.1:$portal_port     a page that asks its sidecar where GradingService is" ;;
      GradingService) echo "  GradingService   http://127.0.0.1:$grading_port     curl http://127.0.0.1:$grading_port/students (browsers refuse port 6000)" ;;
      registry) echo "  registry         http://127.0.0.1:$registry_port     who is there: curl http://127.0.0.1:$registry_port/services" ;;
      log) echo "  log service      http://127.0.0.1:$log_port     all lines:    curl -H 'Accept: text/plain' http://127.0.0.1:$log_port/logs" ;;
    esac
  done
  echo
}

# shellcheck shell=bash
# The same system as local processes, for a machine without a container engine. Sourced by scripts/up and scripts/down.
#
# Everything is in .pillion: token, stores, spools, bin/, logs/NAME.log, run/NAME.pid (process id and start time).
# shellcheck disable=SC2154 # the ports are in settings.sh

readonly home=$PWD/.pillion
readonly pillion=.venv/bin/pillion
readonly ready_timeout_s=30
readonly stop_timeout_s=10

# started_at PID - a text that no later process with the same id has; empty if there is no such process.
started_at() {
  if [ -d /proc/self ]; then
    # The name in field 2 may have spaces; the start time is the 20th field after it. Z: it has ended, but nobody looked yet.
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'
  else
    ps -o lstart= -p "$1" 2>/dev/null || true
  fi
}

# alive NAME - true if the process that we started under this name still runs; sets `pid`.
alive() {
  local since
  [ -f "$home/run/$1.pid" ] || return 1
  read -r pid since <"$home/run/$1.pid" || return 1
  [ -n "$since" ] && [ "$(started_at "$pid")" = "$since" ]
}

# launch NAME COMMAND... - starts a process of our own group (Ctrl-C must not reach it before its turn) with its own log.
launch() {
  local name=$1; shift
  .venv/bin/python -c 'import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])' \
    "$@" </dev/null >"$home/logs/$name.log" 2>&1 &
  echo "$! $(started_at $!)" >"$home/run/$name.pid"
  running+=("$name")
}

# wait_ready NAME PORT - waits until /readyz there answers 200.
wait_ready() {
  local end=$((SECONDS + ready_timeout_s)) reason
  until reason=$("$pillion" healthcheck "http://127.0.0.1:$2/readyz" 2>&1); do
    if ! alive "$1" || [ $SECONDS -ge $end ]; then
      say "$1 is not ready: ${reason:-no reason given}. The end of .pillion/logs/$1.log:" >&2
      tail -n 20 "$home/logs/$1.log" >&2
      native_stop
      exit 1
    fi
    sleep 0.2
  done
}

# native_names - what was started, in the order of its start.
native_names() {
  local name
  for name in registry log log-sidecar grading portal; do
    if [ -f "$home/run/$name.pid" ]; then echo "$name"; fi
  done
}

# native_running - true if anything of an earlier start still runs.
native_running() {
  local name pid
  for name in $(native_names); do alive "$name" && return; done
  return 1
}

# sidecar_options NUMBER NAME PORT REQUIRES - the flags of the NUMBERth sidecar; each has two ports of its own.
sidecar_options() {
  local peers=$((sidecar_port + 2 * $1))
  demand_port "$peers" PILLION_SIDECAR_PORT
  demand_port "$((peers + 1))" PILLION_SIDECAR_PORT
  options=(--name "$2" --port "$3" --registry "http://127.0.0.1:$registry_port" --token-file "$home/token"
    --listen "127.0.0.1:$peers" --local "127.0.0.1:$((peers + 1))" --state-dir "$home/$2")
  if [ -n "$4" ]; then options+=(--requires "$4"); fi
}

native_up() {
  local options running=() left_out=()
  demand_ports
  command -v python3 >/dev/null || fail "Python 3.11 or newer is needed to run without containers. Install python3 and python3-venv."
  say "without containers: local processes, everything on 127.0.0.1, files in .pillion"
  scripts/venv
  mkdir -p "$home"/{run,logs,bin,registry,log,LogService,GradingService,Portald}
  "$pillion" token "$home/token" >/dev/null
  unset "${!PILLION_@}" # each process is told what it needs below; the user's settings are read already

  launch registry "$pillion" registry --listen "127.0.0.1:$registry_port" --store "sqlite:$home/registry/registry.db" --token-file "$home/token"
  launch log "$pillion" log --listen "127.0.0.1:$log_port" --store "files:$home/log" --token-file "$home/token"
  wait_ready registry "$registry_port"
  wait_ready log "$log_port"

  sidecar_options 0 LogService "$log_port" ""
  launch log-sidecar "$pillion" sidecar "${options[@]}"

  if build_grading; then
    sidecar_options 1 GradingService "$grading_port" LogService
    launch grading env HOST=127.0.0.1 PORT="$grading_port" "$pillion" run "${options[@]}" -- "$home/bin/grading"
  else
    absent+=" GradingService"
    left_out+=("GradingService (Go is not installed: apt-get install golang-go)")
  fi
  if command -v node >/dev/null; then
    sidecar_options 2 Portald "$portal_port" LogService,GradingService
    launch portal env HOST=127.0.0.1 PORT="$portal_port" "$pillion" run "${options[@]}" -- node images/demo/portal/server.js
  else
    absent+=" Portald"
    left_out+=("Portald (Node.js is not installed: apt-get install nodejs)")
  fi

  wait_ready log-sidecar $((sidecar_port + 1))
  if [ -f "$home/run/grading.pid" ]; then wait_ready grading $((sidecar_port + 3)); fi
  if [ -f "$home/run/portal.pid" ]; then wait_ready portal $((sidecar_port + 5)); fi
  say "running: ${running[*]}"
  local what
  for what in "${left_out[@]}"; do say "left out: $what"; done
}

# build_grading - true if there is a binary afterwards.
build_grading() {
  if command -v go >/dev/null; then
    say "building GradingService"
    (cd images/demo/grading && CGO_ENABLED=0 GOTOOLCHAIN=local go build -buildvcs=false -o "$home/bin/grading" .) \
      || fail "GradingService does not build; see above."
  fi
  [ -x "$home/bin/grading" ]
}

# native_follow - shows the logs until Ctrl-C, then stops everything in order.
native_follow() {
  say "Ctrl-C stops it"
  tail -n 5 -F "$home"/logs/*.log 2>/dev/null &
  follow $!
  native_stop
  say "stopped; scripts/up --native starts it again, scripts/down removes its files"
}

# native_stop - ends what we started, the last first, so that each can still say goodbye to the ones before it.
native_stop() {
  local name pid end
  for name in $(native_names | sed '1!G;h;$!d'); do
    if alive "$name"; then
      kill "$pid"
      end=$((SECONDS + stop_timeout_s))
      while alive "$name" && [ $SECONDS -lt $end ]; do sleep 0.1; done
      if alive "$name"; then
        say "$name did not stop within $stop_timeout_s s and is killed"
        kill -KILL "$pid"
      fi
    fi
    rm -f "$home/run/$name.pid"
  done
}

# native_down - stops the processes and removes their files.
native_down() {
  local name pid count=0
  [ -d "$home" ] || return 0
  for name in $(native_names); do if alive "$name"; then count=$((count + 1)); fi; done
  native_stop
  rm -rf "$home"
  if [ "$count" -gt 0 ]; then removed+=("$count local processes"); fi
  removed+=(.pillion)
}

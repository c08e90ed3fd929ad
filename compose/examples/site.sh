# Runs nginx, and lets it read its upstreams again when the sidecar has written others; that is worth a log line, too.
upstreams=/providers/nginx/GradingService.conf
: >/tmp/seen

follow() {
  while sleep 1; do
    cmp -s $upstreams /tmp/seen && continue
    cp $upstreams /tmp/seen 2>/dev/null || continue # the sidecar has not written it yet
    kill -HUP "$1"
    line="nginx passes /students on to: $(tr '\n' ' ' </providers/providers/GradingService)"
    wget -q -T 3 -O /dev/null --post-data "$line" http://127.0.0.1:7071/log
  done
}

follow $$ &
exec nginx -e stderr -c /site/nginx.conf

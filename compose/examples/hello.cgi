#!/bin/busybox sh
# A page that says where GradingService is.
sidecar=http://127.0.0.1:7071

url=$(busybox timeout 3 busybox wget -q -O - "$sidecar/providers/GradingService?format=text") || url="nowhere: none is up, or no sidecar answers"
text="A shell finds GradingService at $url"
busybox timeout 3 busybox wget -q -O - --post-data "$text" "$sidecar/log"
printf 'Content-Type: text/plain\r\n\r\n%s\n' "$text"

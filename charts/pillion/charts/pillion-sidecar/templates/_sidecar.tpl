{{/*
pillion.sidecar: a pod's spec, with a Pillion sidecar in it.

    spec:
      {{- include "pillion.sidecar" (dict "root" $ "sidecar" .Values.pillion "spec" (include "shop.podSpec" .)) | nindent 6 }}

  root     the chart's root context ($)
  sidecar  how the sidecar is to be; pillion.sidecar.defaults below has every key
  spec     the pod's spec as text (YAML), for example of a named template

What it adds: the sidecar's container (a native sidecar where the server knows such), two or three volumes, to the app's container
PILLION_URL, the folder with the providers and a preStop hook, and terminationGracePeriodSeconds. What the spec has already is kept.
The parts can be had one by one too: pillion.sidecar.container, .volumes, .appEnv, .appMounts, .lifecycle, .native.
*/}}
{{- define "pillion.sidecar" -}}
{{- $s := include "pillion.sidecar.read" . | fromYaml -}}
{{- $spec := fromYaml .spec -}}
{{- if or (not (kindIs "map" $spec)) (hasKey $spec "Error") -}}
{{- fail (printf "pillion.sidecar: the spec is not YAML: %v" (get $spec "Error")) -}}
{{- end -}}
{{- if $spec.hostNetwork -}}
{{- fail "pillion.sidecar: the pod is on the host's network, where sidecars would take each other's ports; leave hostNetwork out" -}}
{{- end -}}
{{- $names := list -}}
{{- range concat ($spec.containers | default list) ($spec.initContainers | default list) -}}{{- $names = append $names .name -}}{{- end -}}
{{- if has "pillion" $names -}}
{{- fail "pillion.sidecar: the pod has a container named pillion already; rename it" -}}
{{- end -}}
{{- if not $spec.containers -}}
{{- fail "pillion.sidecar: the spec has no containers" -}}
{{- end -}}
{{- $wanted := $s.container | default (first $spec.containers).name -}}
{{- $containers := list -}}
{{- $found := false -}}
{{- range $spec.containers -}}
{{- $container := . -}}
{{- if eq .name $wanted -}}
{{- $found = true -}}
{{- $container = merge (dict "env" (concat (.env | default list) (include "pillion.sidecar.appEnv" $ | fromYamlArray))) $container -}}
{{- $container = merge (dict "volumeMounts" (concat (.volumeMounts | default list) (include "pillion.sidecar.appMounts" $ | fromYamlArray))) $container -}}
{{- if and (not $s.job) (not (hasKey (.lifecycle | default dict) "preStop")) -}}
{{- $container = merge (dict "lifecycle" (merge (include "pillion.sidecar.lifecycle" $ | fromYaml) (.lifecycle | default dict))) $container -}}
{{- end -}}
{{- end -}}
{{- $containers = append $containers $container -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "pillion.sidecar: the pod has no container named %q" $wanted) -}}
{{- end -}}
{{- $sidecar := list (include "pillion.sidecar.container" . | fromYaml) -}}
{{- if include "pillion.sidecar.native" . -}}
{{- $_ := set $spec "initContainers" (concat $sidecar ($spec.initContainers | default list)) -}}
{{- else -}}
{{- $containers = concat $containers $sidecar -}}
{{- end -}}
{{- $_ := set $spec "containers" $containers -}}
{{- $_ := set $spec "volumes" (concat ($spec.volumes | default list) (include "pillion.sidecar.volumes" . | fromYamlArray)) -}}
{{- if not (hasKey $spec "terminationGracePeriodSeconds") -}}
{{- $_ := set $spec "terminationGracePeriodSeconds" (int $s.terminationGracePeriodSeconds) -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end -}}

{{/* Every key of `sidecar`, with its default. */}}
{{- define "pillion.sidecar.defaults" -}}
# The app's service name, by which others find it. Needed.
name: ""
# The port that the app listens on. Needed.
port: 0
# Services that the app requires; Db:2 means two of it.
requires: []
# How to tell whether the app is well: tcp, http:/path, exec:COMMAND or none.
check: tcp
# The registry's URL, or several.
registry: http://pillion-registry:3000
# Any other option of the sidecar (docs/sidecar.md) by its key in a configuration file, e.g. zone: eu-1.
options: {}
# The app's container; the pod's first one when empty.
container: ""
# The sidecar's image; a digest wins over the tag. An empty registry is global.imageRegistry, if the chart has that.
image: {registry: "", repository: pillion/sidecar, tag: "0.1.0", digest: "", pullPolicy: IfNotPresent}
# The Secret with the shared token, in the pod's own namespace; no token when secretName is empty.
token: {secretName: pillion-token, key: token}
# true: a native sidecar; false: an ordinary container; auto: native where the server is 1.29 or newer.
native: auto
# The pod is a Job's: the sidecar ends after the app, and the app has no preStop hook.
job: false
# Whether the app's container gets the folder with the providers (files), read-only.
files: true
# Seconds that the app goes on serving at least after the pod's deletion: what kube-proxy and an ingress need to learn of it.
drainAtLeast: 3
# The time from a pod's deletion to its kill, in seconds, where the spec does not say it.
terminationGracePeriodSeconds: 30
# Most room for log lines on their way.
spoolSize: 64M
resources:
  requests: {cpu: 5m, memory: 24Mi}
  limits: {memory: 64Mi}
# More environment of the sidecar's container, as Kubernetes has it.
extraEnv: []
{{- end -}}

{{/* The defaults with what is given over them, checked. */}}
{{- define "pillion.sidecar.read" -}}
{{- include "pillion.sidecar.refuseOddBreaks" (list .sidecar (.spec | default "")) -}}
{{- $given := .sidecar | default dict -}}
{{- $s := include "pillion.sidecar.defaults" . | fromYaml -}}
{{- range $key, $value := $given -}}
{{- if not (hasKey $s $key) -}}
{{- fail (printf "pillion.sidecar: %q is no key of a sidecar; it may have %s" $key (keys $s | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if and (has $key (list "image" "token")) (kindIs "map" $value) -}}
{{- $part := get $s $key -}}
{{- range $inner, $text := $value -}}
{{- if not (hasKey $part $inner) -}}
{{- fail (printf "pillion.sidecar: %q is no key of %s; it may have %s" $inner $key (keys $part | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $_ := set $part $inner $text -}}
{{- end -}}
{{- else if ne nil $value -}}
{{- $_ := set $s $key $value -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$" (toString $s.name)) -}}
{{- fail (printf "pillion.sidecar: name %q is no service name; write the name that others are to find the app by, such as Shop" $s.name) -}}
{{- end -}}
{{- if or (not (regexMatch "^[0-9]{1,5}$" (toString (int $s.port)))) (lt (int $s.port) 1) (gt (int $s.port) 65535) -}}
{{- fail (printf "pillion.sidecar: port %v is none; write the port that the app %s listens on" $s.port $s.name) -}}
{{- end -}}
{{- $known := include "pillion.sidecar.options" . | splitList " " -}}
{{- range $key, $value := $s.options -}}
{{- if not (has $key $known) -}}
{{- fail (printf "pillion.sidecar: %q is no option to be set here; it may be %s" $key (join ", " $known)) -}}
{{- end -}}
{{- end -}}
{{- if lt (int $s.terminationGracePeriodSeconds) 10 -}}
{{- fail "pillion.sidecar: terminationGracePeriodSeconds must be 10 or more: a drain takes up to 5 s and the app's own end needs time" -}}
{{- end -}}
{{- toYaml $s -}}
{{- end -}}

{{/* The options that `options` may have; the template itself sees to the others. */}}
{{- define "pillion.sidecar.options" -}}
check_status check_interval check_timeout check_rise check_fall check_grace dns dns_zone spool_sync log_to log_gzip log_files log_join syslog version zone weight tags strategy wait drain_timeout drain_grace outlive end_with_app log_level
{{- end -}}

{{/* "true" where the sidecar is a native one, else nothing. */}}
{{- define "pillion.sidecar.native" -}}
{{- $s := include "pillion.sidecar.read" . | fromYaml -}}
{{- if or (eq (toString $s.native) "true") (and (eq (toString $s.native) "auto") (semverCompare ">=1.29.0-0" .root.Capabilities.KubeVersion.Version)) -}}
true
{{- end -}}
{{- end -}}

{{/* The sidecar's container. */}}
{{- define "pillion.sidecar.container" -}}
{{- $s := include "pillion.sidecar.read" . | fromYaml -}}
{{- $native := include "pillion.sidecar.native" . -}}
name: pillion
image: {{ include "pillion.sidecar.image" (dict "root" .root "image" $s.image) | quote }}
imagePullPolicy: {{ $s.image.pullPolicy | quote }}
{{- if $native }}
restartPolicy: Always
{{- end }}
env:
  # Others reach the app at the pod's address.
  - name: PILLION_ADVERTISE
    valueFrom: {fieldRef: {apiVersion: v1, fieldPath: status.podIP}}
  - {name: PILLION_NAME, value: {{ $s.name | quote }}}
  - {name: PILLION_PORT, value: {{ int $s.port | toString | quote }}}
  - {name: PILLION_REGISTRY, value: {{ kindIs "slice" $s.registry | ternary ($s.registry | join ",") $s.registry | quote }}}
  - {name: PILLION_CHECK, value: {{ $s.check | quote }}}
  {{- with $s.requires }}
  - {name: PILLION_REQUIRES, value: {{ join "," . | quote }}}
  {{- end }}
  {{- if $s.token.secretName }}
  - {name: PILLION_TOKEN_FILE, value: {{ printf "/run/secrets/pillion/%s" $s.token.key | quote }}}
  {{- end }}
  - {name: PILLION_SPOOL_SIZE, value: {{ $s.spoolSize | quote }}}
  {{- if and $s.job (not $native) (not (hasKey $s.options "end_with_app")) }}
  # An ordinary container has to end by itself, or the Job would never complete.
  - {name: PILLION_END_WITH_APP, value: "2s"}
  {{- end }}
  {{- if and (not $s.job) (not $native) (not (hasKey $s.options "outlive")) }}
  # Both containers are told to end at once: the sidecar stays while the app still serves. 10 s less than the pod has, for the drain.
  - {name: PILLION_OUTLIVE, value: {{ printf "%ds" (sub (int $s.terminationGracePeriodSeconds) 10) | quote }}}
  {{- end }}
  {{- range $key, $value := $s.options }}
  - {name: {{ printf "PILLION_%s" (upper $key) | quote }}, value: {{ include "pillion.sidecar.optionText" $value | quote }}}
  {{- end }}
  {{- with $s.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: pillion, containerPort: 7070, protocol: TCP}
# kubelet asks the peer listener; the app's own listener is on 127.0.0.1 only.
startupProbe: # a native sidecar's app starts once this passed: it can ask at once
  httpGet: {path: /livez, port: pillion}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: pillion}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- if not $s.job }}
readinessProbe: # registered, and the app is well: a rolling update waits for it
  httpGet: {path: /readyz, port: pillion}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}
{{- if and $native (not $s.job) }}
lifecycle:
  preStop: # a native sidecar gets its SIGTERM after the app has ended: the drain has to begin before
    exec: {command: [pillion, drain]}
{{- end }}
{{- with $s.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "pillion.sidecar.securityContext" . | nindent 2 }}
volumeMounts:
  - {name: pillion-spool, mountPath: /var/lib/pillion}
  - {name: pillion-files, mountPath: /run/pillion}
  {{- if $s.token.secretName }}
  - {name: pillion-token, mountPath: /run/secrets/pillion, readOnly: true}
  {{- end }}
{{- end -}}

{{/* What every container of Pillion's may do: nothing but its work. */}}
{{- define "pillion.sidecar.securityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
runAsGroup: 10001
runAsNonRoot: true
runAsUser: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* The volumes that the sidecar needs, as a list. */}}
{{- define "pillion.sidecar.volumes" -}}
{{- $s := include "pillion.sidecar.read" . | fromYaml -}}
- name: pillion-spool # log lines on their way; lost with the pod
  emptyDir: {sizeLimit: 256Mi}
- name: pillion-files # the providers, as files
  emptyDir: {medium: Memory, sizeLimit: 4Mi}
{{- if $s.token.secretName }}
- name: pillion-token
  secret:
    secretName: {{ $s.token.secretName | quote }}
    defaultMode: 0444 # only the sidecar mounts it, and it may have another group than the pod's volumes
    items: [{key: {{ $s.token.key | quote }}, path: {{ $s.token.key | quote }}}]
{{- end }}
{{- end -}}

{{/* Environment for the app's container, as a list. */}}
{{- define "pillion.sidecar.appEnv" -}}
- {name: PILLION_URL, value: "http://127.0.0.1:7071"}
{{- end -}}

{{/* Mounts for the app's container, as a list. */}}
{{- define "pillion.sidecar.appMounts" -}}
{{- $s := include "pillion.sidecar.read" . | fromYaml -}}
{{- if $s.files -}}
- {name: pillion-files, mountPath: /run/pillion, readOnly: true}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* The app's lifecycle: it is told to end when nobody comes any more. Works in any image: kubelet asks the sidecar (ADR 11). */}}
{{- define "pillion.sidecar.lifecycle" -}}
{{- $s := include "pillion.sidecar.read" . | fromYaml -}}
preStop:
  # Without a slash in front: a kubelet before 1.26 puts one there by itself, a newer one where there is none.
  httpGet: {path: "drained?least={{ int $s.drainAtLeast }}", port: 7070, scheme: HTTP}
{{- end -}}

{{/* REGISTRY/REPOSITORY:TAG or REPOSITORY@DIGEST of {root, image}. global.imageRegistry, where the chart has it, is for sites without the public ones. */}}
{{- define "pillion.sidecar.image" -}}
{{- $global := .root.Values.global | default dict -}}
{{- $registry := .image.registry | default $global.imageRegistry | default "" -}}
{{- $name := .image.repository -}}
{{- if $registry -}}{{- $name = printf "%s/%s" (trimSuffix "/" $registry) $name -}}{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion | toString) -}}
{{- end -}}
{{- end -}}

{{/* An option's value as the environment has it. */}}
{{- define "pillion.sidecar.optionText" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if kindIs "float64" . -}}
{{- if eq . (floor .) -}}{{- int64 . -}}{{- else -}}{{- . -}}{{- end -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* Refuses characters that YAML takes for the end of a line where Helm's indentation does not: what follows them could pass for keys. */}}
{{- define "pillion.sidecar.refuseOddBreaks" -}}
{{- if regexMatch "\\\\u202[89]|[\u0085\u2028\u2029\ufeff]" (toJson .) -}}
{{- fail "a value has one of the characters U+0085, U+2028, U+2029 and U+FEFF, which do not pass through YAML unharmed; leave it out" -}}
{{- end -}}
{{- end -}}

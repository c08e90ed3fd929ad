{{/* What every pod has, of (list $ $values account). */}}
{{- define "pillion.podCommon" -}}
{{- $root := first . -}}
{{- $values := index . 1 -}}
serviceAccountName: {{ index . 2 | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  runAsGroup: 10001
  runAsNonRoot: true
  runAsUser: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.terminationGracePeriodSeconds }}
terminationGracePeriodSeconds: {{ int . }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with get $values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The values of (list $ component), with several replicas spread over nodes where they say nothing of it. */}}
{{- define "pillion.spread" -}}
{{- $values := get (first .).Values (last .) -}}
{{- $own := dict -}}
{{- if and (gt (int $values.replicas) 1) (not $values.topologySpreadConstraints) -}}
{{- $selector := dict "matchLabels" (include "pillion.selector" . | fromYaml) -}}
{{- $_ := set $own "topologySpreadConstraints" (list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway" "labelSelector" $selector)) -}}
{{- end -}}
{{- toYaml (merge $own $values) -}}
{{- end -}}

{{/* The image of (list $ $image): an empty tag is the chart's appVersion. */}}
{{- define "pillion.image" -}}
{{- $image := last . -}}
{{- include "pillion.sidecar.image" (dict "root" (first .) "image" (merge (dict "tag" ($image.tag | default (first .).Chart.AppVersion)) $image)) -}}
{{- end -}}

{{/* How the sidecar of one of this chart's pods is, of (list $ name port requires check grace). */}}
{{- define "pillion.ownSidecar" -}}
{{- $root := first . -}}
{{- $values := $root.Values.sidecar -}}
{{- $image := merge (dict "tag" ($values.image.tag | default $root.Chart.AppVersion)) $values.image -}}
{{- $token := dict "secretName" (include "pillion.tokenSecret" $root) "key" $root.Values.token.key -}}
{{- $registry := printf "http://%s:%d" (include "pillion.name" (list $root "registry")) (int $root.Values.registry.service.port) -}}
{{- dict "name" (index . 1) "port" (index . 2) "requires" (index . 3) "check" (index . 4) "terminationGracePeriodSeconds" (index . 5) "registry" $registry "image" $image "token" $token "native" $values.native "options" $values.options "resources" $values.resources | toYaml -}}
{{- end -}}

{{/* The container of registry or log service, of (list $ component port). */}}
{{- define "pillion.server" -}}
{{- $root := first . -}}
{{- $values := get $root.Values (index . 1) -}}
name: {{ index . 1 }}
image: {{ include "pillion.image" (list $root $values.image) | quote }}
imagePullPolicy: {{ $values.image.pullPolicy | quote }}
env:
  - {name: PILLION_CONFIG, value: /etc/pillion/config.yaml}
  {{- with $values.config.store }}
  - {name: PILLION_STORE, value: {{ . | quote }}} # the image's environment names another, and goes before the file
  {{- end }}
  - {name: PILLION_TOKEN_FILE, value: {{ printf "/run/secrets/pillion/%s" $root.Values.token.key | quote }}}
  {{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: http, containerPort: {{ index . 2 }}, protocol: TCP}
startupProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 3
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "pillion.sidecar.securityContext" $root | nindent 2 }}
volumeMounts:
  {{- if not (include "pillion.onNats" (list $root (index . 1))) }}
  - {name: data, mountPath: /data}
  {{- end }}
  - {name: config, mountPath: /etc/pillion, readOnly: true}
  - {name: token, mountPath: /run/secrets/pillion, readOnly: true}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The volumes of registry or log service, of (list $ component). */}}
{{- define "pillion.serverVolumes" -}}
{{- $root := first . -}}
{{- $values := get $root.Values (last .) -}}
- name: config
  configMap: {name: {{ include "pillion.name" . | quote }}}
- name: token
  secret:
    secretName: {{ include "pillion.tokenSecret" $root | quote }}
    defaultMode: 0440
    items: [{key: {{ $root.Values.token.key | quote }}, path: {{ $root.Values.token.key | quote }}}]
{{- if not (or $values.persistence.enabled (include "pillion.onNats" .)) }}
- name: data
  emptyDir: {}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The pod's spec of an app of the demo, without its sidecar, of (list $ component port). */}}
{{- define "pillion.demoPod" -}}
{{- $root := first . -}}
{{- $values := get $root.Values.demo (index . 1) -}}
{{ include "pillion.podCommon" (list $root $values "default") }}
containers:
  - name: {{ index . 1 }}
    image: {{ include "pillion.image" (list $root $values.image) | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy | quote }}
    {{- with $values.extraEnv }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      - {name: http, containerPort: {{ index . 2 }}, protocol: TCP}
    livenessProbe:
      httpGet: {path: /livez, port: http}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 3
    readinessProbe:
      httpGet: {path: /livez, port: http}
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: 3
    {{- with $values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "pillion.sidecar.securityContext" $root | nindent 6 }}
    {{- with $values.extraVolumeMounts }}
    volumeMounts:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- with $values.extraVolumes }}
volumes:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

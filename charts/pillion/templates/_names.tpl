{{/* The first part of every object's name. Room is left for the longest ending. */}}
{{- define "pillion.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $full := .Values.fullnameOverride | default (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) -}}
{{- $full | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* A component's name, of (list $ "registry"). */}}
{{- define "pillion.name" -}}
{{- printf "%s-%s" (include "pillion.fullname" (first .)) (last .) -}}
{{- end -}}

{{/* What never changes in a component's labels, of (list $ "registry"). */}}
{{- define "pillion.selector" -}}
app.kubernetes.io/name: {{ (first .).Values.nameOverride | default (first .).Chart.Name | quote }}
app.kubernetes.io/instance: {{ (first .).Release.Name | quote }}
app.kubernetes.io/component: {{ last . | quote }}
{{- end -}}

{{/* An object's labels, of (list $ "registry"). */}}
{{- define "pillion.labels" -}}
{{- $own := include "pillion.selector" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" (first .).Chart.Name (first .).Chart.Version | replace "+" "_") -}}
{{- $_ := set $own "app.kubernetes.io/version" (first .).Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" (first .).Release.Service -}}
{{- toYaml (merge $own (first .).Values.commonLabels) -}}
{{- end -}}

{{/* A pod's labels, of (list $ "registry" $values more): without versions, so that a new chart restarts nothing. */}}
{{- define "pillion.podLabels" -}}
{{- $own := include "pillion.selector" (list (first .) (index . 1)) | fromYaml -}}
{{- toYaml (merge $own (index . 3) (index . 2).podLabels) -}}
{{- end -}}

{{/* "yes" where replicas of (list $ "registry") share a store in NATS; else nothing, and it has one of its own on its volume. */}}
{{- define "pillion.onNats" -}}
{{- if hasPrefix "nats://" ((get (first .).Values (last .)).config.store | default "") -}}yes{{- end -}}
{{- end -}}

{{- define "pillion.tokenSecret" -}}
{{- .Values.token.existingSecret | default (include "pillion.name" (list . "token")) -}}
{{- end -}}

{{/* The ServiceAccount of (list $ "registry"). */}}
{{- define "pillion.serviceAccount" -}}
{{- $account := (get (first .).Values (last .)).serviceAccount -}}
{{- $account.name | default ($account.create | ternary (include "pillion.name" .) "default") -}}
{{- end -}}

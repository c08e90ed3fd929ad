{{/* What registry and log service have alike; each takes (list $ component). */}}

{{- define "pillion.object.configMap" -}}
{{- $root := first . -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "pillion.name" . | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "pillion.labels" . | nindent 4 }}
data:
  config.yaml: {{ printf "%s\n" (toYaml (get $root.Values (last .)).config) | quote }}
{{- end -}}

{{- define "pillion.object.serviceAccount" -}}
{{- $root := first . -}}
{{- $account := (get $root.Values (last .)).serviceAccount -}}
{{- if $account.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "pillion.serviceAccount" . | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "pillion.labels" . | nindent 4 }}
  {{- with $account.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}

{{- define "pillion.object.pdb" -}}
{{- $root := first . -}}
{{- $pdb := (get $root.Values (last .)).pdb -}}
{{- if $pdb.enabled -}}
apiVersion: {{ semverCompare ">=1.21.0-0" $root.Capabilities.KubeVersion.Version | ternary "policy/v1" "policy/v1beta1" }}
kind: PodDisruptionBudget
metadata:
  name: {{ include "pillion.name" . | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "pillion.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ int $pdb.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "pillion.selector" . | nindent 6 }}
{{- end -}}
{{- end -}}

{{/* (list $ component $service targetPort headless) */}}
{{- define "pillion.object.service" -}}
{{- $root := first . -}}
{{- $part := list $root (index . 1) -}}
{{- $service := index . 2 -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ printf "%s%s" (include "pillion.name" $part) (index . 4 | ternary "-headless" "") | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "pillion.labels" $part | nindent 4 }}
  {{- with $service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if index . 4 }}
  clusterIP: None
  publishNotReadyAddresses: true
  {{- else }}
  type: {{ $service.type | quote }}
  {{- end }}
  ports:
    - {name: http, port: {{ index . 4 | ternary (index . 3) (int $service.port) }}, targetPort: {{ index . 3 }}, protocol: TCP}
  selector:
    {{- include "pillion.selector" $part | nindent 4 }}
{{- end -}}

{{/* (list $ component $ingress port) */}}
{{- define "pillion.object.ingress" -}}
{{- $root := first . -}}
{{- $part := list $root (index . 1) -}}
{{- $ingress := index . 2 -}}
{{- $port := index . 3 -}}
{{- if $ingress.enabled -}}
{{- if not $ingress.hosts -}}{{- fail (printf "the ingress of %s is enabled but has no hosts; name one at least" (index . 1)) -}}{{- end -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ include "pillion.name" $part | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "pillion.labels" $part | nindent 4 }}
  {{- with $ingress.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with $ingress.className }}
  ingressClassName: {{ . | quote }}
  {{- end }}
  {{- with $ingress.tls }}
  tls:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    {{- range $ingress.hosts }}
    - host: {{ . | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend: {service: {name: {{ include "pillion.name" $part | quote }}, port: {number: {{ int $port }}}}}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* How the replicas of a StatefulSet are kept. Those on NATS wait for it, not for each other, and need no volume. */}}
{{- define "pillion.replicas" -}}
replicas: {{ int (get (first .).Values (last .)).replicas }}
{{- if include "pillion.onNats" . }}
podManagementPolicy: Parallel
{{- end }}
{{- end -}}

{{/* The data volume's claim. */}}
{{- define "pillion.claims" -}}
{{- $root := first . -}}
{{- $disk := (get $root.Values (last .)).persistence -}}
{{- if and $disk.enabled (not (include "pillion.onNats" .)) -}}
volumeClaimTemplates:
  - metadata:
      name: data
      labels:
        {{- include "pillion.selector" . | nindent 8 }}
      {{- with $disk.annotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $disk.storageClass }}
      storageClassName: {{ . | quote }}
      {{- end }}
      resources: {requests: {storage: {{ $disk.size | quote }}}}
{{- end -}}
{{- end -}}

{{- define "pillion.dns" -}}
- ports: # names
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}

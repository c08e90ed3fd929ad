{{- define "nginx.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}{{ .Release.Name | trunc 63 }}{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "nginx.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nginx.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "nginx.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "nginx.podSpec" -}}
serviceAccountName: {{ include "nginx.fullname" . }}
automountServiceAccountToken: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
initContainers:
  - name: preserve-logs-symlinks
    image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [sh, -c, "mkdir -p /work/body /work/proxy"]
    securityContext:
      {{- toYaml .Values.containerSecurityContext | nindent 6 }}
    volumeMounts:
      - {name: work, mountPath: /work}
containers:
  - name: nginx
    image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [nginx, -c, /etc/site/nginx.conf, -g, "daemon off;"]
    securityContext:
      {{- toYaml .Values.containerSecurityContext | nindent 6 }}
    {{- with .Values.extraEnvVars }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      - name: http
        containerPort: 8080
    livenessProbe:
      tcpSocket: {port: http}
      {{- toYaml .Values.livenessProbe | nindent 6 }}
    readinessProbe:
      httpGet: {path: /healthz, port: http}
      {{- toYaml .Values.readinessProbe | nindent 6 }}
    resources:
      {{- toYaml .Values.resources | nindent 6 }}
    volumeMounts:
      - {name: site, mountPath: /etc/site}
      - {name: work, mountPath: /work}
volumes:
  - name: site
    configMap:
      name: {{ include "nginx.fullname" . }}
  - name: work
    emptyDir: {}
{{- end -}}

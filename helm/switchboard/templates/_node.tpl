{{/* Environment and files of a node; `helm test` gets the same. */}}

{{/* A value as text for the environment. Helm reads numbers as floats: without this, a million would be 1e+06. */}}
{{- define "switchboard.text" -}}
{{- if kindIs "float64" . }}{{ int64 . | toString | quote }}{{ else }}{{ toString . | quote }}{{ end }}
{{- end }}

{{/* The migration mode with auto resolved: job, start or none. */}}
{{- define "switchboard.migration" -}}
{{- if ne .Values.migration.mode "auto" }}{{ .Values.migration.mode }}
{{- else }}{{ ternary "start" "job" (ne .Values.database.url "") }}{{ end }}
{{- end }}

{{- define "switchboard.gracePeriod" -}}
{{- with .Values.drain }}
{{- if kindIs "invalid" .gracePeriod }}{{ add .shutdownDelay .window 15 }}{{ else }}{{ int64 .gracePeriod }}{{ end }}
{{- end }}
{{- end }}

{{/* The settings under `config`; (dict "root" $ "only" "a pattern") selects a part of them. */}}
{{- define "switchboard.configEnv" -}}
{{- range $name, $value := .root.Values.config }}
{{- if and (not (kindIs "invalid" $value)) (regexMatch ($.only | default ".") $name) }}
- name: {{ $name }}
  value: {{ include "switchboard.text" $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* The variables that the chart sets itself. */}}
{{- define "switchboard.env" -}}
- name: LISTEN
  value: "{{ .Values.listenAddress }}:8000"
- name: ADMIN_LISTEN
  value: "{{ .Values.listenAddress }}:8001"
- name: NODE_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: SHUTDOWN_DELAY
  value: "{{ int64 .Values.drain.shutdownDelay }}s"
- name: DRAIN_WINDOW
  value: "{{ int64 .Values.drain.window }}s"
- name: MIGRATE
  value: {{ eq (include "switchboard.migration" .) "start" | quote }}
{{- if eq .Values.auth.method "jwks" }}
- name: JWT_JWKS_URL
  value: {{ .Values.auth.jwksUrl | quote }}
{{- end }}
{{- include "switchboard.secretEnv" (include "switchboard.secretFiles" . | fromJsonArray) }}
{{- include "switchboard.configEnv" (dict "root" .) }}
{{- end }}

{{/* The environment of a container, with the user's additions. */}}
{{- define "switchboard.containerEnv" -}}
env:
  {{- include "switchboard.env" . | nindent 2 }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The common part of every pod of this chart. */}}
{{- define "switchboard.podDefaults" -}}
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "switchboard.containerDefaults" -}}
image: {{ include "switchboard.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Environment and files of a node; `helm test` gets the same. */}}

{{/* A value as text for the environment. Helm reads numbers as floats: without this, a million would be 1e+06. */}}
{{- define "switchboard.text" -}}
{{- if kindIs "float64" . }}{{ int64 . | toString | quote }}{{ else }}{{ toString . | quote }}{{ end }}
{{- end }}

{{/* The migration mode with auto resolved: job, start or none. */}}
{{- define "switchboard.migration" -}}
{{- if ne .Values.migration.mode "auto" }}{{ .Values.migration.mode }}
{{- else if or .Values.migration.existingSecret (not .Values.database.url) }}job
{{- else }}start
{{- end }}
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

{{/* The address that nodes listen on; an IPv6 address in brackets, as a port follows. */}}
{{- define "switchboard.listenAddress" -}}
{{- with .Values.listenAddress }}{{ if and (contains ":" .) (not (hasPrefix "[" .)) }}[{{ . }}]{{ else }}{{ . }}{{ end }}{{ end }}
{{- end }}

{{/* The variables that the chart sets itself. */}}
{{- define "switchboard.env" -}}
- name: LISTEN
  value: "{{ include "switchboard.listenAddress" . }}:8000"
- name: ADMIN_LISTEN
  value: "{{ include "switchboard.listenAddress" . }}:8001"
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

{{/* The environment of a node, with the user's additions; (dict "root" $ "more" …) adds those of `helm test`. */}}
{{- define "switchboard.containerEnv" -}}
env:
  {{- include "switchboard.env" .root | nindent 2 }}
  {{- with concat .root.Values.extraEnv (dig "extraEnv" list .more) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with concat .root.Values.extraEnvFrom (dig "extraEnvFrom" list .more) }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

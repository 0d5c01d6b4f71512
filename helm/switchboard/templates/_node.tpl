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

{{/* Seconds that the container's preStop hook takes before the node is told to end; those of a request are not known. */}}
{{- define "switchboard.preStopSeconds" -}}
{{- $stop := (.Values.lifecycle | default dict).preStop | default dict }}
{{- ($stop.sleep | default dict).seconds | default 0 | int64 }}
{{- end }}

{{/* Seconds that a shutdown takes: the hook, both parts of the drain, and the end of the tasks. */}}
{{- define "switchboard.shutdownSeconds" -}}
{{- add .Values.drain.shutdownDelay .Values.drain.window (include "switchboard.preStopSeconds" . | int64) 15 }}
{{- end }}

{{- define "switchboard.gracePeriod" -}}
{{- with .Values.drain }}
{{- if kindIs "invalid" .gracePeriod }}{{ include "switchboard.shutdownSeconds" $ }}{{ else }}{{ int64 .gracePeriod }}{{ end }}
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

{{/* "true" if nodes expect PROXY headers, as far as the values tell. */}}
{{- define "switchboard.proxyProtocol" -}}
{{- $set := (.Values.config | default dict).PROXY_PROTOCOL | toString }}
{{- range .Values.extraEnv }}{{ if eq .name "PROXY_PROTOCOL" }}{{ $set = .value | toString }}{{ end }}{{ end }}
{{- has (lower $set) (list "true" "1" "yes" "on") }}
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
  {{- with concat (.root.Values.extraEnv | default list) (.more.extraEnv | default list) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with concat (.root.Values.extraEnvFrom | default list) (.more.extraEnvFrom | default list) }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
The files of the migration Job: those of the database, with its own URL if it has one. A password or a URL for migrations beside
the nodes' URL is not for that of the Job.
*/}}
{{- define "switchboard.jobFiles" -}}
{{- $rows := list }}
{{- $job := .Values.migration }}
{{- $theirs := .Values.database.existingSecret | default .Values.existingSecret }}
{{- if and .Values.database.migrateUrlKey $theirs (not $job.existingSecret) }}
{{- $rows = append $rows (dict "name" "DATABASE_MIGRATE_URL" "env" "DATABASE_MIGRATE_URL_FILE" "kind" "secret" "from" $theirs "key" .Values.database.migrateUrlKey) }}
{{- end }}
{{- range include "switchboard.secretFiles" . | fromJsonArray }}
{{- if and (eq .name "DATABASE_URL") $job.existingSecret }}
{{- $rows = append $rows (mergeOverwrite . (dict "from" $job.existingSecret "key" $job.key)) }}
{{- else if and (eq .name "DATABASE_PASSWORD") $job.existingSecret }}
{{- else if and (hasPrefix "DATABASE_" .name) (ne .name "DATABASE_MIGRATE_URL") }}
{{- $rows = append $rows . }}
{{- end }}
{{- end }}
{{- toJson $rows }}
{{- end }}

{{/*
The variables of the migration Job. It gives up waiting for PostgreSQL half a minute before Kubernetes ends it, since Kubernetes
then removes the pod that could say why.
*/}}
{{- define "switchboard.jobEnv" -}}
{{- include "switchboard.secretEnv" (include "switchboard.jobFiles" . | fromJsonArray) }}
{{- /* The Job's own URL leads to PostgreSQL itself. */}}
{{- $only := ternary "^(DATABASE_[^P]|DATABASE_POOL_|LOG)" "^(DATABASE_|LOG)" (not (empty .Values.migration.existingSecret)) }}
{{- include "switchboard.configEnv" (dict "root" . "only" $only) }}
{{- if not (get (.Values.config | default dict) "DATABASE_START_TIMEOUT") }}
- name: DATABASE_START_TIMEOUT
  value: "{{ max 1 (sub .Values.migration.activeDeadlineSeconds 30) }}s"
{{- end }}
{{- end }}

{{/*
Sources of secrets, and their files in the container. Files are named like the settings, and NAME_FILE holds the path. Only
the container sees its mounted file; a variable is also seen by tools that list environments or dump processes.
*/}}

{{- define "switchboard.secretsFolder" -}}
/run/secrets/switchboard
{{- end }}

{{/* Content of the chart's own Secret, by setting; empty if all secrets are in the user's Secrets. */}}
{{- define "switchboard.ownSecrets" -}}
{{- $own := dict "REDIS_URL" .Values.redis.url "DATABASE_URL" .Values.database.url }}
{{- with .Values.auth }}
{{- if eq .method "secret" }}{{ $_ := set $own "JWT_SECRET" .secret }}{{ end }}
{{- if eq .method "publicKey" }}{{ $_ := set $own "JWT_PUBLIC_KEY" .publicKey }}{{ end }}
{{- end }}
{{- range $name, $hook := .Values.webhooks }}
{{- if $hook.enabled }}
{{- $_ := set $own (printf "%s_WEBHOOK_URL" (upper $name)) $hook.url }}
{{- $_ := set $own (printf "%s_WEBHOOK_SECRET" (upper $name)) $hook.secret }}
{{- end }}
{{- end }}
{{- if .Values.console.enabled }}{{ $_ := set $own "ADMIN_TOKEN" .Values.console.token }}{{ end }}
{{- range $name, $value := $own }}
{{- if not $value }}{{ $_ := unset $own $name }}{{ end }}
{{- end }}
{{- toJson $own }}
{{- end }}

{{/* Every secret that a node needs: its setting, the values that name its source, and its key there. */}}
{{- define "switchboard.neededSecrets" -}}
{{- $needed := list }}
{{- range $name, $from := dict "REDIS_URL" .Values.redis "DATABASE_URL" .Values.database }}
{{- $needed = append $needed (dict "name" $name "from" $from "key" $from.key) }}
{{- end }}
{{- range $name, $key := dict "REDIS_PASSWORD" .Values.redis.passwordKey "REDIS_SENTINEL_PASSWORD" .Values.redis.sentinelPasswordKey }}
{{- if $key }}{{ $needed = append $needed (dict "name" $name "from" $.Values.redis "key" $key) }}{{ end }}
{{- end }}
{{- $direct := ternary .Values.database.migrateUrlKey "" (eq (include "switchboard.migration" .) "start") }}
{{- range $name, $key := dict "DATABASE_PASSWORD" .Values.database.passwordKey "DATABASE_MIGRATE_URL" $direct }}
{{- if $key }}{{ $needed = append $needed (dict "name" $name "from" $.Values.database "key" $key) }}{{ end }}
{{- end }}
{{- with .Values.auth }}
{{- if ne .method "jwks" }}
{{- $name := ternary "JWT_SECRET" "JWT_PUBLIC_KEY" (eq .method "secret") }}
{{- $needed = append $needed (dict "name" $name "from" . "key" (.key | default $name)) }}
{{- end }}
{{- with .previousKey }}
{{- $needed = append $needed (dict "name" "JWT_PREVIOUS_SECRET" "from" $.Values.auth "key" .) }}
{{- end }}
{{- end }}
{{- range $name, $hook := .Values.webhooks }}
{{- if $hook.enabled }}
{{- $prefix := printf "%s_WEBHOOK" (upper $name) }}
{{- $needed = append $needed (dict "name" (printf "%s_URL" $prefix) "from" $hook "key" $hook.urlKey) }}
{{- /* Beside a URL among the values, a chart-wide Secret need not have the signing secret: a missing key stops every pod. */}}
{{- $signed := or (not $hook.url) $hook.secret $hook.existingSecret }}
{{- $needed = append $needed (dict "name" (printf "%s_SECRET" $prefix) "from" $hook "key" (ternary $hook.secretKey "" (not (empty $signed)))) }}
{{- end }}
{{- end }}
{{- with .Values.console }}
{{- if .enabled }}{{ $needed = append $needed (dict "name" "ADMIN_TOKEN" "from" . "key" .tokenKey) }}{{ end }}
{{- end }}
{{- toJson $needed }}
{{- end }}

{{/* Every file: its name, the variable with its path, and the kind, name and key of its source. */}}
{{- define "switchboard.secretFiles" -}}
{{- $rows := list }}
{{- $own := include "switchboard.ownSecrets" . | fromJson }}
{{- range include "switchboard.neededSecrets" . | fromJsonArray }}
{{- $row := dict "name" .name "env" (printf "%s_FILE" .name) "kind" "secret" }}
{{- $theirs := .from.existingSecret | default $.Values.existingSecret }}
{{- if hasKey $own .name }}
{{- $rows = append $rows (merge $row (dict "from" (include "switchboard.fullname" $) "key" .name)) }}
{{- else if and $theirs .key }}
{{- $rows = append $rows (merge $row (dict "from" $theirs "key" .key)) }}
{{- end }}
{{- end }}
{{- range $name, $ca := dict "REDIS_CA_FILE" .Values.redis.ca "REDIS_SENTINEL_CA_FILE" .Values.redis.sentinelCa "DATABASE_CA_FILE" .Values.database.ca }}
{{- $row := dict "name" $name "env" $name "key" $ca.key }}
{{- with $ca.existingSecret }}
{{- $rows = append $rows (merge $row (dict "kind" "secret" "from" .)) }}
{{- end }}
{{- with $ca.existingConfigMap }}
{{- $rows = append $rows (merge $row (dict "kind" "configMap" "from" .)) }}
{{- end }}
{{- end }}
{{- range $prefix, $shown := dict "REDIS_" .Values.redis.clientCertificate "REDIS_SENTINEL_" .Values.redis.sentinelClientCertificate
  "DATABASE_" .Values.database.clientCertificate }}
{{- if $shown.existingSecret }}
{{- range $kind, $key := dict "CERT" $shown.certificateKey "KEY" $shown.privateKeyKey }}
{{- $name := printf "%sCLIENT_%s_FILE" $prefix $kind }}
{{- $rows = append $rows (dict "name" $name "env" $name "kind" "secret" "from" $shown.existingSecret "key" $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $rows }}
{{- end }}

{{/* The variables with the paths of these files. */}}
{{- define "switchboard.secretEnv" -}}
{{- range . }}
- name: {{ .env }}
  value: {{ include "switchboard.secretsFolder" $ }}/{{ .name }}
{{- end }}
{{- end }}

{{/* The volume with these files. */}}
{{- define "switchboard.secretVolume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - {{ .kind }}:
          name: {{ .from | quote }}
          items:
            - key: {{ .key | quote }}
              path: {{ .name }}
      {{- end }}
{{- end }}

{{- define "switchboard.secretMount" -}}
- name: secrets
  mountPath: {{ include "switchboard.secretsFolder" . }}
  readOnly: true
{{- end }}

{{/* Annotations that replace the nodes when their secrets change. */}}
{{- define "switchboard.revisions" -}}
{{- with include "switchboard.ownSecrets" . | fromJson }}
checksum/secret: {{ toJson . | sha256sum | quote }}
{{- end }}
{{- with .Values.secretRevision }}
switchboard/secret-revision: {{ include "switchboard.text" . }}
{{- end }}
{{- end }}

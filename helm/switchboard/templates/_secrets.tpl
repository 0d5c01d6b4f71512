{{/*
Where secrets come from, and how programs get them: as files, named like the settings, whose paths are in NAME_FILE. A
file is seen by the one container it is mounted in; a variable also by whatever lists environments or dumps processes.
*/}}

{{- define "switchboard.secretsFolder" -}}
/run/secrets/switchboard
{{- end }}

{{/* Whether Redis, PostgreSQL or a key is in the chart's own Secret: what it holds, by setting. */}}
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
{{- range $name, $value := $own }}
{{- if not $value }}{{ $_ := unset $own $name }}{{ end }}
{{- end }}
{{- toJson $own }}
{{- end }}

{{/* A row of the list below: (dict "root" $ "name" "REDIS_URL" "from" .Values.redis "key" …). */}}
{{- define "switchboard.secretRow" -}}
{{- if hasKey (include "switchboard.ownSecrets" .root | fromJson) .name }}
{{- dict "name" .name "env" (printf "%s_FILE" .name) "kind" "secret" "from" (include "switchboard.fullname" .root) "key" .name | toJson }}
{{- else }}
{{- dict "name" .name "env" (printf "%s_FILE" .name) "kind" "secret" "from" (.from.existingSecret | default .root.Values.existingSecret) "key" .key | toJson }}
{{- end }}
{{- end }}

{{/* A row for certificates: the setting itself is a path. */}}
{{- define "switchboard.caRow" -}}
{{- $kind := ternary "secret" "configMap" (ne .ca.existingSecret "") }}
{{- dict "name" .name "env" .name "kind" $kind "from" (.ca.existingSecret | default .ca.existingConfigMap) "key" .ca.key | toJson }}
{{- end }}

{{/* Every secret file: its name, the variable that says its path, and what it is taken from. */}}
{{- define "switchboard.secretFiles" -}}
{{- $rows := list }}
{{- range $name, $from := dict "REDIS" .Values.redis "DATABASE" .Values.database }}
{{- $rows = append $rows (include "switchboard.secretRow" (dict "root" $ "name" (printf "%s_URL" $name) "from" $from "key" $from.key) | fromJson) }}
{{- if or $from.ca.existingSecret $from.ca.existingConfigMap }}
{{- $rows = append $rows (include "switchboard.caRow" (dict "name" (printf "%s_CA_FILE" $name) "ca" $from.ca) | fromJson) }}
{{- end }}
{{- end }}
{{- with .Values.auth }}
{{- if ne .method "jwks" }}
{{- $name := ternary "JWT_SECRET" "JWT_PUBLIC_KEY" (eq .method "secret") }}
{{- $rows = append $rows (include "switchboard.secretRow" (dict "root" $ "name" $name "from" . "key" (.key | default $name)) | fromJson) }}
{{- end }}
{{- end }}
{{- range $name, $hook := .Values.webhooks }}
{{- if $hook.enabled }}
{{- $rows = append $rows (include "switchboard.secretRow" (dict "root" $ "name" (printf "%s_WEBHOOK_URL" (upper $name)) "from" $hook "key" $hook.urlKey) | fromJson) }}
{{- $signed := include "switchboard.secretRow" (dict "root" $ "name" (printf "%s_WEBHOOK_SECRET" (upper $name)) "from" $hook "key" $hook.secretKey) | fromJson }}
{{- if and $signed.from $signed.key }}{{ $rows = append $rows $signed }}{{ end }}
{{- end }}
{{- end }}
{{- toJson $rows }}
{{- end }}

{{/* The variables that say where the files are: (dict "rows" …). */}}
{{- define "switchboard.secretEnv" -}}
{{- range .rows }}
- name: {{ .env }}
  value: {{ include "switchboard.secretsFolder" $ }}/{{ .name }}
{{- end }}
{{- end }}

{{/* The volume that holds the files: (dict "rows" …). */}}
{{- define "switchboard.secretVolume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range .rows }}
      - {{ .kind }}:
          name: {{ .from }}
          items:
            - key: {{ .key }}
              path: {{ .name }}
      {{- end }}
{{- end }}

{{- define "switchboard.secretMount" -}}
- name: secrets
  mountPath: {{ include "switchboard.secretsFolder" . }}
  readOnly: true
{{- end }}

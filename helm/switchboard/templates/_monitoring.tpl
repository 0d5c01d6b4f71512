{{/* Alerts and scrapes. */}}

{{/* The groups of alerts/rules.yaml without the disabled alerts. They are data: braces in them belong to Prometheus. */}}
{{- define "switchboard.alerts" -}}
{{- $groups := list }}
{{- $runbook := include "switchboard.runbook" . }}
{{- $names := list }}
{{- $wanted := .Values.prometheusRule }}
{{- $file := .Files.Get "files/alerts.yaml" | fromYaml }}
{{- if not $file.groups }}
{{- fail "prometheusRule is enabled, but files/alerts.yaml of the chart is missing or empty: the copy of the chart is incomplete. Take the whole folder or a package of it." }}
{{- end }}
{{- range $file.groups }}
{{- $rules := list }}
{{- range .rules }}
{{- $names = append $names (.alert | default "") }}
{{- if and .alert $runbook }}
{{- $heading := regexFind "#.*" .annotations.runbook }}
{{- $_ := set . "annotations" (merge (dict "runbook_url" (printf "%s%s" $runbook $heading)) (omit .annotations "runbook")) }}
{{- end }}
{{- if and .alert $wanted.alertLabels }}
{{- $_ := set . "labels" (merge (dict) $wanted.alertLabels (.labels | default dict)) }}
{{- end }}
{{- if not (has .alert ($wanted.disabled | default list)) }}{{ $rules = append $rules . }}{{ end }}
{{- end }}
{{- if $rules }}{{ $groups = append $groups (merge (dict "rules" $rules) .) }}{{ end }}
{{- end }}
{{- range $wanted.disabled }}
{{- if not (has . $names) }}{{ fail (printf "prometheusRule.disabled has %s, but there is no such alert: see alerts/rules.yaml for the names." .) }}{{ end }}
{{- end }}
{{- toYaml $groups }}
{{- end }}

{{/* The URL of the runbook; empty in a chart that does not know its address. */}}
{{- define "switchboard.runbook" -}}
{{- $home := "" }}
{{- with .Chart.Home }}{{ $home = printf "%s/blob/v%s/docs/operations/runbook.md" . $.Chart.Version }}{{ end }}
{{- .Values.prometheusRule.runbookUrl | default $home | trimSuffix "#" }}
{{- end }}

{{/*
A dashboard under a name of this release: (dict "root" $ "json" …). Grafana has one dashboard for each uid, and its sidecar one file
for each key. A name in brackets tells them apart in lists.
*/}}
{{- define "switchboard.dashboard" -}}
{{- $release := printf "%s/%s" .root.Release.Namespace (include "switchboard.fullname" .root) }}
{{- $suffix := $release | sha256sum | trunc 8 }}
{{- $board := fromJson .json }}
{{- $json := .json | replace (printf "\"uid\": \"%s\"" $board.uid) (printf "\"uid\": \"%s-%s\"" $board.uid $suffix) }}
{{- $json | replace (printf "\n  \"title\": \"%s\"" $board.title) (printf "\n  \"title\": \"%s (%s)\"" $board.title $release) }}
{{- end }}

{{/* How a monitor scrapes a port: its own values. */}}
{{- define "switchboard.scrape" -}}
path: /metrics
interval: {{ .interval | quote }}
scrapeTimeout: {{ .scrapeTimeout | quote }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

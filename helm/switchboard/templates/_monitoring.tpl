{{/* Alerts and scrapes. */}}

{{/* The groups of alerts/rules.yaml without the disabled alerts. They are data: braces in them belong to Prometheus. */}}
{{- define "switchboard.alerts" -}}
{{- $groups := list }}
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
{{- if and .alert $wanted.alertLabels }}
{{- $_ := set . "labels" (merge (dict) $wanted.alertLabels (.labels | default dict)) }}
{{- end }}
{{- if not (has .alert $wanted.disabled) }}{{ $rules = append $rules . }}{{ end }}
{{- end }}
{{- if $rules }}{{ $groups = append $groups (merge (dict "rules" $rules) .) }}{{ end }}
{{- end }}
{{- range $wanted.disabled }}
{{- if not (has . $names) }}{{ fail (printf "prometheusRule.disabled has %s, but there is no such alert: see alerts/rules.yaml for the names." .) }}{{ end }}
{{- end }}
{{- toYaml $groups }}
{{- end }}

{{/* How a monitor scrapes a port: its own values. */}}
{{- define "switchboard.scrape" -}}
path: /metrics
interval: {{ .interval }}
scrapeTimeout: {{ .scrapeTimeout }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

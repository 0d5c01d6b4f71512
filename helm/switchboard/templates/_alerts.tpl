{{/* The groups of alerts/rules.yaml without the disabled alerts. They are data: braces in them belong to Prometheus. */}}
{{- define "switchboard.alerts" -}}
{{- $groups := list }}
{{- $names := list }}
{{- $wanted := .Values.prometheusRule }}
{{- range (.Files.Get "files/alerts.yaml" | fromYaml).groups }}
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

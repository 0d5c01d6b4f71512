{{/* Rules of network policies for what pods reach. */}}

{{/* Rules for name servers, these servers, and the user's own: (dict "root" $ "servers" (list "redis" "database")). */}}
{{- define "switchboard.egress" -}}
{{- $egress := .root.Values.networkPolicy.egress }}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
  {{- with $egress.dns }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- range .servers }}
{{- with get $egress . }}
- ports:
    - port: {{ .port }}
    {{- with .sentinelPort }}
    - port: {{ . }}
    {{- end }}
    {{- range .morePorts }}
    - port: {{ . }}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- with $egress.extra }}
{{ toYaml . }}
{{- end }}
{{- end }}

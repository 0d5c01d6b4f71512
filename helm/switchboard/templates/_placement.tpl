{{/* Placement of nodes on machines. */}}

{{- define "switchboard.topologySpread" -}}
{{- $spread := .Values.topologySpread }}
{{- range $key, $rule := dict "kubernetes.io/hostname" $spread.hosts "topology.kubernetes.io/zone" $spread.zones }}
{{- if $rule }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: {{ $rule }}
  # Spread each revision separately; otherwise a rollout would put its pods where the old pods are not.
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "switchboard.nodeSelector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "switchboard.affinity" -}}
{{- $affinity := deepCopy .Values.affinity }}
{{- if and .Values.podAntiAffinity (not (hasKey $affinity "podAntiAffinity")) }}
{{- $labels := include "switchboard.nodeSelector" . | fromYaml }}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $labels) }}
{{- if eq .Values.podAntiAffinity "hard" }}
{{- $_ := set $affinity "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term)) }}
{{- else }}
{{- $weighted := dict "weight" 100 "podAffinityTerm" $term }}
{{- $_ := set $affinity "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list $weighted)) }}
{{- end }}
{{- end }}
{{- with $affinity }}{{ toYaml . }}{{ end }}
{{- end }}

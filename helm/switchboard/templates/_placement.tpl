{{/* Placement of nodes on machines. */}}

{{/*
Each revision is spread separately (matchLabelKeys), and pods that end don't count. A new node can therefore start on the
machine of one that drains, and the placement of an old revision never holds up a new one. A required podAntiAffinity
would do both: it counts pods until they are gone, and those of the old revision keep new ones off, whatever these ask for.
*/}}
{{- define "switchboard.topologySpread" -}}
{{- $hard := eq .Values.podAntiAffinity "hard" }}
{{- $hosts := ternary "DoNotSchedule" .Values.topologySpread.hosts $hard }}
{{- range $key, $rule := dict "kubernetes.io/hostname" $hosts "topology.kubernetes.io/zone" .Values.topologySpread.zones }}
{{- if $rule }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: {{ $rule }}
  {{- if and $hard (eq $key "kubernetes.io/hostname") }}
  # More machines than a cluster has. While there are fewer, each takes at most maxSkew nodes.
  minDomains: 5000
  {{- end }}
  # Machines whose taints keep nodes off take no part.
  nodeTaintsPolicy: Honor
  # Spread each revision separately; otherwise a rollout would put its pods where the old pods are not.
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "switchboard.nodeSelector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "switchboard.affinity" -}}
{{- $affinity := deepCopy (.Values.affinity | default dict) }}
{{- if and (eq .Values.podAntiAffinity "soft") (not (hasKey $affinity "podAntiAffinity")) }}
{{- $labels := include "switchboard.nodeSelector" . | fromYaml }}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $labels) }}
{{- $weighted := dict "weight" 100 "podAffinityTerm" $term }}
{{- $_ := set $affinity "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list $weighted)) }}
{{- end }}
{{- with $affinity }}{{ toYaml . }}{{ end }}
{{- end }}

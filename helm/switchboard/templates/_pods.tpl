{{/* What every pod of this chart has: nodes, the migration Job, the pods of `helm test`. */}}

{{/*
The common part of a pod: (dict "root" $ "pod" .Values.migration). Placement that `pod` leaves null is that of the nodes.
*/}}
{{- define "switchboard.podDefaults" -}}
{{- $values := .root.Values }}
{{- $own := .pod | default dict }}
{{- $chosen := dict }}
{{- range list "nodeSelector" "tolerations" "priorityClassName" }}
{{- $inherits := or (not (hasKey $own .)) (kindIs "invalid" (get $own .)) }}
{{- $_ := set $chosen . (ternary (get $values .) (get $own .) $inherits) }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "switchboard.pullSecrets" .root }}
imagePullSecrets:
  {{- . | trim | nindent 2 }}
{{- end }}
{{- range $field, $value := dict "securityContext" $values.podSecurityContext "nodeSelector" $chosen.nodeSelector
  "tolerations" $chosen.tolerations "hostAliases" $values.hostAliases "dnsConfig" $values.dnsConfig }}
{{- with $value }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- range $field, $value := dict "priorityClassName" $chosen.priorityClassName "dnsPolicy" $values.dnsPolicy
  "runtimeClassName" $values.runtimeClassName }}
{{- with $value }}
{{ $field }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The common part of the pods that run once. Of the nodes' affinity they inherit only the choice of machines. */}}
{{- define "switchboard.hookPod" -}}
restartPolicy: Never
{{ include "switchboard.podDefaults" . | trim }}
{{- $affinity := .pod.affinity }}
{{- if kindIs "invalid" $affinity }}{{ $affinity = pick (.root.Values.affinity | default dict) "nodeAffinity" }}{{ end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "switchboard.containerDefaults" -}}
image: {{ include "switchboard.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Names and labels. */}}

{{- define "switchboard.name" -}}
{{- regexReplaceAll "[-_.]+$" (.Values.nameOverride | default .Chart.Name | trunc 50) "" }}
{{- end }}

{{/*
At most 50 characters: suffixes follow, and names of Services and labels have a limit of 63. A Service's name has no dots, which
a release's may have.
*/}}
{{- define "switchboard.fullname" -}}
{{- $name := include "switchboard.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- regexReplaceAll "-+$" (.Values.fullnameOverride | default $full | replace "." "-" | trunc 50) "" }}
{{- end }}

{{- define "switchboard.serviceAccountName" -}}
{{- $ours := ternary (include "switchboard.fullname" .) "default" .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default $ours }}
{{- end }}

{{/* The image; `global.imageRegistry` takes the place of the registry in its name. */}}
{{- define "switchboard.image" -}}
{{- $repository := .Values.image.repository }}
{{- with (.Values.global | default dict).imageRegistry }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" $repository "") }}
{{- end }}
{{- with .Values.image -}}
{{- $repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Secrets for pulling the image, as a list of their names; umbrella charts give names or `{name: …}`. */}}
{{- define "switchboard.pullSecrets" -}}
{{- $names := list }}
{{- range concat ((.Values.global | default dict).imagePullSecrets | default list) (.Values.imagePullSecrets | default list) }}
{{- $names = append $names (kindIs "string" . | ternary . (get (kindIs "map" . | ternary . dict) "name")) }}
{{- end }}
{{- range uniq $names }}
- name: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Maps as one, in JSON: of equal keys the last counts, and null removes a key. */}}
{{- define "switchboard.merged" -}}
{{- $all := dict }}
{{- range . }}
{{- range $key, $value := . }}
{{- if kindIs "invalid" $value }}{{ $_ := unset $all $key }}{{ else }}{{ $_ := set $all $key $value }}{{ end }}
{{- end }}
{{- end }}
{{- toJson $all }}
{{- end }}

{{/* Labels that select every pod of this release. */}}
{{- define "switchboard.selector" -}}
app.kubernetes.io/name: {{ include "switchboard.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels that select only the nodes, not the pods of the Job and the test. */}}
{{- define "switchboard.nodeSelector" -}}
{{ include "switchboard.selector" . }}
app.kubernetes.io/component: node
{{- end }}

{{/*
Labels of a pod: (dict "root" $ "component" "node" "labels" …). Without the chart's version, which would replace the nodes. The
labels that select pods win over the user's.
*/}}
{{- define "switchboard.podLabels" -}}
{{- $ours := include "switchboard.selector" .root | fromYaml }}
{{- $all := list .root.Values.commonLabels .labels $ours (dict "app.kubernetes.io/component" .component) }}
{{- include "switchboard.merged" $all | fromJson | toYaml }}
{{- end }}

{{/* Labels of a resource: (dict "root" $ "labels" …). Those by which Kubernetes and Helm find it win over the user's. */}}
{{- define "switchboard.labelsWith" -}}
{{- with .root }}
{{- $chart := printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- $version := dict "helm.sh/chart" $chart "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $ours := include "switchboard.selector" . | fromYaml }}
{{- $_ := set $ours "app.kubernetes.io/managed-by" .Release.Service }}
{{- include "switchboard.merged" (list $version .Values.commonLabels $.labels $ours) | fromJson | toYaml }}
{{- end }}
{{- end }}

{{/* The same without labels of its own, for templates in extraManifests. */}}
{{- define "switchboard.labels" -}}
{{- include "switchboard.labelsWith" (dict "root" .) }}
{{- end }}

{{/* Metadata of a resource: (dict "root" $ "name" … "suffix" … "component" … "namespace" … "labels" … "annotations" …). */}}
{{- define "switchboard.metadata" -}}
{{- $name := .name | default (include "switchboard.fullname" .root) }}
{{- $labels := include "switchboard.labelsWith" . | fromYaml }}
{{- with .component }}{{ $_ := set $labels "app.kubernetes.io/component" . }}{{ end -}}
name: {{ printf "%s%s" $name (ternary (printf "-%s" .suffix) "" (not (empty .suffix))) | quote }}
namespace: {{ .namespace | default .root.Release.Namespace | quote }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with include "switchboard.merged" (list .root.Values.commonAnnotations .annotations) | fromJson }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

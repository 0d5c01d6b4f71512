{{/* Names and labels. */}}

{{- define "switchboard.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* At most 50 characters: suffixes follow, and names of Services and labels have a limit of 63. */}}
{{- define "switchboard.fullname" -}}
{{- $name := include "switchboard.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "switchboard.serviceAccountName" -}}
{{- $ours := ternary (include "switchboard.fullname" .) "default" .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default $ours }}
{{- end }}

{{/* The image; `global.imageRegistry` takes the place of the registry in its name. */}}
{{- define "switchboard.image" -}}
{{- $repository := .Values.image.repository }}
{{- with dig "imageRegistry" "" .Values.global }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" $repository "") }}
{{- end }}
{{- with .Values.image -}}
{{- $repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Secrets for pulling the image, as a list of their names; umbrella charts give names or `{name: …}`. */}}
{{- define "switchboard.pullSecrets" -}}
{{- $names := list }}
{{- range concat (dig "imagePullSecrets" list .Values.global) .Values.imagePullSecrets }}
{{- $names = append $names (kindIs "string" . | ternary . (get (kindIs "map" . | ternary . dict) "name")) }}
{{- end }}
{{- range uniq $names }}
- name: {{ . }}
{{- end }}
{{- end }}

{{/* Labels that select every pod of this release. */}}
{{- define "switchboard.selector" -}}
app.kubernetes.io/name: {{ include "switchboard.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels that select only the nodes, not the pods of the Job and the test. */}}
{{- define "switchboard.nodeSelector" -}}
{{ include "switchboard.selector" . }}
app.kubernetes.io/component: node
{{- end }}

{{/* Labels of a pod: (dict "root" $ "component" "node"). Without the chart's version, which would replace the nodes. */}}
{{- define "switchboard.podLabels" -}}
{{ include "switchboard.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "switchboard.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "switchboard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of a resource: (dict "root" $ "name" … "suffix" … "component" … "namespace" … "labels" … "annotations" …). */}}
{{- define "switchboard.metadata" -}}
name: {{ .name | default (include "switchboard.fullname" .root) }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "switchboard.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with mergeOverwrite (deepCopy .root.Values.commonAnnotations) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Checks of names and labels. */}}

{{/* Refuses a name that a list has twice, or that the chart has: (dict "value" "sidecars" "given" … "taken" (list …)). */}}
{{- define "switchboard.checkTwice" -}}
{{- $seen := .taken }}
{{- $check := . }}
{{- range .given }}
{{- if has .name $seen }}{{ fail (printf "%s has the name %s, which is taken: choose another one." $check.value .name) }}{{ end }}
{{- $seen = append $seen .name }}
{{- end }}
{{- end }}

{{- define "switchboard.checkNames" -}}
{{- $full := include "switchboard.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $full) }}
{{- fail (printf "The names of the resources would begin with %q, which can't be the name of a Service: set fullnameOverride to a name of lower-case letters, digits and dashes that begins with a letter." $full) }}
{{- end }}
{{- with .Values }}
{{- $all := dict "commonLabels" .commonLabels "podLabels" .podLabels "migration.podLabels" .migration.podLabels "test.labels" .test.labels
  "serviceMonitor.labels" .serviceMonitor.labels "podMonitor.labels" .podMonitor.labels "prometheusRule.labels" .prometheusRule.labels
  "dashboards.labels" .dashboards.labels }}
{{- $remedies := dict "name" "nameOverride changes it" "instance" "it is the release's name" "component" "it tells nodes, Job and tests apart"
  "managed-by" "it tells Helm its own resources" }}
{{- range $value, $labels := $all }}
{{- range $part, $remedy := $remedies }}
{{- if hasKey ($labels | default dict) (printf "app.kubernetes.io/%s" $part) }}
{{- fail (printf "%s has app.kubernetes.io/%s, which the chart sets itself to find its resources: remove it (%s)." $value $part $remedy) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $_ := .commonAnnotations }}
{{- if hasPrefix "helm.sh/hook" $name }}
{{- fail (printf "commonAnnotations has %s, which would make every resource a hook: remove it." $name) }}
{{- end }}
{{- end }}
{{- range $name, $_ := (include "switchboard.revisions" $ | fromYaml) }}
{{- if hasKey ($.Values.podAnnotations | default dict) $name }}
{{- fail (printf "podAnnotations has %s, which the chart sets itself to replace nodes whose secrets change: give yours another name." $name) }}
{{- end }}
{{- end }}
{{- include "switchboard.checkTwice" (dict "value" "initContainers" "given" .initContainers "taken" (list "switchboard")) }}
{{- $inits := list "switchboard" }}
{{- range .initContainers }}{{ $inits = append $inits .name }}{{ end }}
{{- include "switchboard.checkTwice" (dict "value" "sidecars" "given" .sidecars "taken" $inits) }}
{{- include "switchboard.checkTwice" (dict "value" "extraVolumes" "given" .extraVolumes "taken" (list "secrets")) }}
{{- include "switchboard.checkTwice" (dict "value" "migration.extraVolumes" "given" .migration.extraVolumes "taken" (list "secrets")) }}
{{- $volumes := list "secrets" }}
{{- range .extraVolumes }}{{ $volumes = append $volumes .name }}{{ end }}
{{- include "switchboard.checkTwice" (dict "value" "test.extraVolumes" "given" .test.extraVolumes "taken" $volumes) }}
{{- include "switchboard.checkTwice" (dict "value" "service.extraPorts" "given" .service.extraPorts "taken" (list "http")) }}
{{- end }}
{{- end }}

{{/* Refuses what Kubernetes refuses of a Service. */}}
{{- define "switchboard.checkService" -}}
{{- with .Values.service }}
{{- if and (eq .type "ClusterIP") (or .nodePort .externalTrafficPolicy) }}
{{- fail "service.nodePort or service.externalTrafficPolicy is set, but service.type is ClusterIP: set it to NodePort or LoadBalancer, or remove them." }}
{{- end }}
{{- if and (ne .type "LoadBalancer") (or .loadBalancerClass .loadBalancerSourceRanges) }}
{{- fail (printf "service.loadBalancerClass or service.loadBalancerSourceRanges is set, but service.type is %s: set it to LoadBalancer, or remove them." .type) }}
{{- end }}
{{- if and (eq (toString .clusterIP) "None") (ne .type "ClusterIP") }}
{{- fail (printf "service.clusterIP is None, but service.type is %s: only a Service of the type ClusterIP can be headless." .type) }}
{{- end }}
{{- if and .sessionAffinityConfig (ne (toString .sessionAffinity) "ClientIP") }}
{{- fail "service.sessionAffinityConfig is set, but service.sessionAffinity is not ClientIP: set it, or remove the former." }}
{{- end }}
{{- range .extraPorts }}
{{- if eq (toString .port) (toString $.Values.service.port) }}
{{- fail (printf "service.extraPorts has the port %v, which is service.port: choose another one." .port) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq (toString .Values.dnsPolicy) "None") (not (.Values.dnsConfig | default dict).nameservers) }}
{{- fail "dnsPolicy is None, but no name server is named: list them in dnsConfig.nameservers." }}
{{- end }}
{{- end }}

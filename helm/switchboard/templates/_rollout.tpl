{{/* How long a rollout takes, and how much memory a node needs: for NOTES, checks and documents. */}}

{{/* A number or percentage of nodes: (dict "amount" "25%" "nodes" 12 "up" true). */}}
{{- define "switchboard.share" -}}
{{- if kindIs "string" .amount }}
{{- div (add (mul .nodes (trimSuffix "%" .amount | int)) (ternary 99 0 .up)) 100 }}
{{- else }}
{{- int64 .amount }}
{{- end }}
{{- end }}

{{/* The number of nodes that a rollout replaces at once, of so many: (dict "root" $ "nodes" 12). */}}
{{- define "switchboard.atOnce" -}}
{{- $surge := include "switchboard.share" (dict "amount" .root.Values.rollout.maxSurge "nodes" .nodes "up" true) }}
{{- $less := include "switchboard.share" (dict "amount" .root.Values.rollout.maxUnavailable "nodes" .nodes "up" false) }}
{{- max 1 (add $surge $less) }}
{{- end }}

{{/* The maximum number of nodes. */}}
{{- define "switchboard.maxNodes" -}}
{{- ternary .Values.autoscaling.maxReplicas .Values.replicaCount .Values.autoscaling.enabled | int }}
{{- end }}

{{/* The maximum number of steps of a rollout, for any number of nodes that the release may have. */}}
{{- define "switchboard.steps" -}}
{{- $most := include "switchboard.maxNodes" . | int }}
{{- $least := ternary (int .Values.autoscaling.minReplicas) $most .Values.autoscaling.enabled }}
{{- $steps := 1 }}
{{- range $nodes := untilStep $least (int (add1 $most)) 1 }}
{{- $atOnce := include "switchboard.atOnce" (dict "root" $ "nodes" $nodes) | int }}
{{- $steps = max $steps (div (sub (add $nodes $atOnce) 1) $atOnce) }}
{{- end }}
{{- $steps }}
{{- end }}

{{/*
Minutes that Helm must have for a rollout at most (--timeout). In each step new nodes wait for old ones to leave their
machines, start as late as the startup probe allows, become ready, and stay so for minReadySeconds. The migration Job has a
time of its own. Helm's default of 5 minutes is the minimum.
*/}}
{{- define "switchboard.timeoutMinutes" -}}
{{- with .Values }}
{{- $start := add (.probes.startup.initialDelaySeconds | default 0) (mul .probes.startup.periodSeconds .probes.startup.failureThreshold) }}
{{- $step := add (include "switchboard.gracePeriod" $) $start .probes.readiness.periodSeconds .rollout.minReadySeconds }}
{{- $rollout := mul (include "switchboard.steps" $) $step }}
{{- $job := ternary (add .migration.activeDeadlineSeconds 60) 0 (eq (include "switchboard.migration" $) "job") }}
{{- max 5 (div (add $rollout 59) 60) (div (add $job 59) 60) }}
{{- end }}
{{- end }}

{{/* Kibibytes of an idle connection, with the kernel's share: docs/operations/scaling.md. */}}
{{- define "switchboard.connectionKiB" }}10{{ end }}

{{/* A quantity of memory in MiB (768Mi, 1Gi, 1.5G, 1048576); 0 if it can't be read. */}}
{{- define "switchboard.mebibytes" -}}
{{- $text := toString . }}
{{- $number := regexFind "^[0-9.]+" $text | float64 }}
{{- $unit := regexReplaceAll "^[0-9.]+ *" $text "" | trimSuffix "B" }}
{{- $sizes := dict "" 0.00000095367 "Ki" 0.0009765625 "KiB" 0.0009765625 "Mi" 1.0 "Gi" 1024.0 "Ti" 1048576.0 "k" 0.00095367 "M" 0.95367 "G" 953.67 }}
{{- mulf $number (get $sizes $unit | default 0.0) | floor | int64 }}
{{- end }}

{{/* MiB that a node with all its connections may take: its own, the connections, and what slow readers leave unread. */}}
{{- define "switchboard.neededMiB" -}}
{{- $config := .Values.config | default dict }}
{{- $connections := $config.MAX_CONNECTIONS | default 100000 | int64 }}
{{- $outboxes := include "switchboard.mebibytes" ($config.OUTBOX_TOTAL_BYTES | default "256MiB") | int64 }}
{{- add 64 (div (mul $connections (include "switchboard.connectionKiB" .)) 1024) $outboxes }}
{{- end }}

{{/*
The number of nodes that a release with autoscaling must set, in JSON; none if it need not. The autoscaler owns the number. But if
the release had a fixed one, Helm would take it back, which Kubernetes reads as 1: such a release keeps the current number, in the
upgrade that turns autoscaling on and, as an annotation tells, in those after it. With server-side apply (Helm 4) that ends once the
autoscaler has changed the number: taking it back then changes nothing, while a number that is set would be in the way of a rollback.
*/}}
{{- define "switchboard.keptReplicas" -}}
{{- $name := include "switchboard.fullname" . }}
{{- $kept := dict }}
{{- with lookup "apps/v1" "Deployment" .Release.Namespace $name }}
{{- $applied := not (hasPrefix "v3." $.Capabilities.HelmVersion.Version) }}
{{- $scaled := false }}
{{- range dig "metadata" "managedFields" list . }}
{{- $fields := dig "fieldsV1" "f:spec" dict . }}
{{- if eq (.subresource | default "") "scale" }}
{{- $scaled = or $scaled (hasKey $fields "f:replicas") }}
{{- else if and (not .subresource) (ne .operation "Apply") $fields }}
{{- /* Somebody updates it from the client's side, maybe an older Helm: taking the number back might be read as 1. */}}
{{- $applied = false }}
{{- end }}
{{- end }}
{{- $marked := dig "metadata" "annotations" "switchboard/keeps-replicas" "" . }}
{{- $fixed := not (lookup "autoscaling/v2" "HorizontalPodAutoscaler" $.Release.Namespace $name) }}
{{- if and (or $marked $fixed) (not (and $applied $scaled)) }}
{{- $_ := set $kept "replicas" (toString .spec.replicas) }}
{{- end }}
{{- end }}
{{- toJson $kept }}
{{- end }}

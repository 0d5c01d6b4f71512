{{/* Checks of settings and of the user's own environment variables. */}}

{{/* Refuses durations and sizes out of their range; of numbers, values.schema.json has the range. */}}
{{- define "switchboard.checkSettings" -}}
{{- $settings := include "switchboard.settings" . | fromJson }}
{{- $factors := dict "number" (dict "" 1) "duration" (dict "ms" 1 "" 1000 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000)
  "bytes" (dict "" 1 "B" 1 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824) }}
{{- range $name, $value := .Values.config }}
{{- $range := get $settings.ranges $name }}
{{- if and $range (not (kindIs "invalid" $value)) }}
{{- $text := include "switchboard.text" $value | trimAll "\"" }}
{{- $unit := regexReplaceAll "^[0-9]+ *" $text "" }}
{{- $amount := mulf (regexFind "^[0-9]+" $text | float64) (get (get $factors $range.unit) $unit) }}
{{- if or (lt $amount (float64 $range.least)) (gt $amount (float64 $range.most)) }}
{{- fail (printf "config.%s is %s, which nodes refuse: it may be from %s." $name $text $range.text) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The names of variables in a YAML list of them, in JSON. */}}
{{- define "switchboard.variables" -}}
{{- $names := list }}
{{- range . }}{{ $names = append $names .name }}{{ end }}
{{- toJson $names }}
{{- end }}

{{/*
Refuses variables that can't be as given: (dict "root" $ "value" "extraEnv" "given" … "taken" (list of names) "by" "…"). A secret
beside its file, and a second name of a setting, would end the node.
*/}}
{{- define "switchboard.checkVariables" -}}
{{- $settings := include "switchboard.settings" .root | fromJson }}
{{- $check := . }}
{{- $seen := list }}
{{- range .given }}
{{- $name := .name }}
{{- if has $name $seen }}{{ fail (printf "%s has %s twice: remove one of them." $check.value $name) }}{{ end }}
{{- $seen = append $seen $name }}
{{- $plain := trimSuffix "_FILE" $name }}
{{- $setting := get $settings.aliases $plain | default $plain }}
{{- range list $name $setting }}
{{- with get $settings.elsewhere . }}
{{- fail (printf "%s has %s, which the chart sets itself: use its value for it, %s." $check.value $name .) }}
{{- end }}
{{- end }}
{{- range list $name $setting (printf "%s_FILE" $setting) }}
{{- if has . $check.taken }}{{ fail (printf "%s has %s, and %s has it too: remove one of them." $check.value $name $check.by) }}{{ end }}
{{- end }}
{{- if and (hasKey . "value") (not (kindIs "string" .value)) (not (kindIs "invalid" .value)) }}
{{- fail (printf "%s: the value of %s is not a text: put it in quotes." $check.value $name) }}
{{- end }}
{{- if and .value .valueFrom }}
{{- fail (printf "%s: %s has a value and a valueFrom: remove one of them." $check.value $name) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "switchboard.checkEnv" -}}
{{- $ours := include "switchboard.variables" (include "switchboard.env" . | fromYamlArray) | fromJsonArray }}
{{- $job := include "switchboard.variables" (include "switchboard.jobEnv" . | fromYamlArray) | fromJsonArray }}
{{- $own := include "switchboard.variables" .Values.extraEnv | fromJsonArray }}
{{- include "switchboard.checkVariables" (dict "root" . "value" "extraEnv" "given" .Values.extraEnv "taken" $ours "by" "config") }}
{{- include "switchboard.checkVariables" (dict "root" . "value" "test.extraEnv" "given" .Values.test.extraEnv "taken" (concat $ours $own)
  "by" "config or extraEnv, which the test takes from the nodes,") }}
{{- include "switchboard.checkVariables" (dict "root" . "value" "migration.extraEnv" "given" .Values.migration.extraEnv "taken" $job
  "by" "the Job, from config or its own values,") }}
{{- end }}

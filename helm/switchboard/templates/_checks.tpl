{{/* What values.schema.json can't say: refuses values that can't work, and says what to do. */}}

{{- define "switchboard.checks" -}}
{{- include "switchboard.checkSecrets" . }}
{{- include "switchboard.checkAuth" . }}
{{- include "switchboard.checkNumbers" . }}
{{- include "switchboard.checkEnv" . }}
{{- if and .Values.database.url (eq .Values.migration.mode "job") }}
{{- fail "migration.mode is job, but database.url is kept in the chart's own Secret, which doesn't exist yet when the Job runs. Put the URL into a Secret of yours and name it in database.existingSecret, or set migration.mode to start." }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute is enabled, but belongs to no gateway: name one in httpRoute.parentRefs." }}
{{- end }}
{{- end }}

{{- define "switchboard.checkSecrets" -}}
{{- range $name, $from := dict "redis" .Values.redis "database" .Values.database }}
{{- if and $from.url $from.existingSecret }}
{{- fail (printf "%s.url and %s.existingSecret are both set: which one?" $name $name) }}
{{- end }}
{{- if not (or $from.url $from.existingSecret $.Values.existingSecret) }}
{{- fail (printf "Where is %s? Name a Secret that holds its URL in %s.existingSecret (or one for all in existingSecret); to try things out, %s.url takes the URL itself." (ternary "Redis" "PostgreSQL" (eq $name "redis")) $name $name) }}
{{- end }}
{{- if and $from.ca.existingSecret $from.ca.existingConfigMap }}
{{- fail (printf "%s.ca.existingSecret and %s.ca.existingConfigMap are both set: which one?" $name $name) }}
{{- end }}
{{- end }}
{{- range $name, $hook := .Values.webhooks }}
{{- if and $hook.enabled (not (or $hook.url $hook.existingSecret $.Values.existingSecret)) }}
{{- fail (printf "webhooks.%s is enabled, but has no URL: name a Secret that holds it in webhooks.%s.existingSecret, or set webhooks.%s.url." $name $name $name) }}
{{- end }}
{{- if and (not $hook.enabled) (or $hook.url $hook.secret $hook.existingSecret) }}
{{- fail (printf "webhooks.%s is described, but not used: set webhooks.%s.enabled to true." $name $name) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "switchboard.checkAuth" -}}
{{- $auth := .Values.auth }}
{{- if eq $auth.method "jwks" }}
{{- if not $auth.jwksUrl }}{{ fail "auth.method is jwks: auth.jwksUrl must say where the keys are published." }}{{ end }}
{{- else if not (or (get $auth $auth.method) $auth.existingSecret .Values.existingSecret) }}
{{- fail (printf "What are tokens checked with? Name a Secret that holds the key in auth.existingSecret (or one for all in existingSecret), set auth.method to jwks, or, to try things out, auth.%s." $auth.method) }}
{{- end }}
{{- if and (get $auth $auth.method) $auth.existingSecret }}
{{- fail (printf "auth.%s and auth.existingSecret are both set: which one?" $auth.method) }}
{{- end }}
{{- range $method, $value := dict "secret" "secret" "publicKey" "publicKey" "jwks" "jwksUrl" }}
{{- if and (ne $method $auth.method) (get $auth $value) }}
{{- fail (printf "auth.%s is set, but auth.method is %s: set it to %s, or take auth.%s away." $value $auth.method $method $value) }}
{{- end }}
{{- end }}
{{- if and (eq $auth.method "publicKey") (not .Values.config.JWT_ALGORITHM) }}
{{- fail "auth.method is publicKey: config.JWT_ALGORITHM must say which algorithm the key is for (RS256, ES256, EdDSA, …)." }}
{{- end }}
{{- end }}

{{- define "switchboard.checkNumbers" -}}
{{- with .Values.drain }}
{{- $needed := add .shutdownDelay .window 15 }}
{{- if and (not (kindIs "invalid" .gracePeriod)) (lt (int64 .gracePeriod) $needed) }}
{{- fail (printf "drain.gracePeriod is %d s, but going away takes drain.shutdownDelay + drain.window + 15 = %d s: Kubernetes would kill nodes that still hold connections. Leave it null, or shorten the others." (int64 .gracePeriod) $needed) }}
{{- end }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if .enabled }}
{{- if gt (int64 .minReplicas) (int64 .maxReplicas) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas." }}
{{- end }}
{{- $limit := int64 ($.Values.config.MAX_CONNECTIONS | default 100000) }}
{{- if ge (int64 .connectionsPerPod) $limit }}
{{- fail (printf "autoscaling.connectionsPerPod is %d, but a node takes no more than config.MAX_CONNECTIONS = %d: nodes would be full before there are more of them." (int64 .connectionsPerPod) $limit) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "switchboard.checkEnv" -}}
{{- $taken := list }}
{{- range include "switchboard.env" . | fromYamlArray }}{{ $taken = append $taken .name }}{{ end }}
{{- range .Values.extraEnv }}
{{- if has .name $taken }}
{{- fail (printf "extraEnv has %s, which the chart sets already: use the value meant for it (see the chart's README)." .name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Checks that values.schema.json can't express: refuse values that can't work, with an error that names the remedy. */}}

{{- define "switchboard.checks" -}}
{{- include "switchboard.checkImage" . }}
{{- include "switchboard.checkNames" . }}
{{- include "switchboard.checkSecrets" . }}
{{- include "switchboard.checkAuth" . }}
{{- include "switchboard.checkNumbers" . }}
{{- include "switchboard.checkSettings" . }}
{{- include "switchboard.checkEnv" . }}
{{- include "switchboard.checkWebhooks" . }}
{{- include "switchboard.checkEgress" . }}
{{- include "switchboard.checkService" . }}
{{- if and .Values.database.url (eq .Values.migration.mode "job") (not .Values.migration.existingSecret) }}
{{- fail "migration.mode is job, but database.url is kept in the chart's own Secret, which doesn't exist yet when the Job runs. Put the URL into a Secret of yours and name it in database.existingSecret, or set migration.mode to start." }}
{{- end }}
{{- if and .Values.migration.existingSecret (ne (include "switchboard.migration" .) "job") }}
{{- fail (printf "migration.existingSecret is set, but migration.mode is %s, so there is no Job that would use it: set migration.mode to job, or remove migration.existingSecret." .Values.migration.mode) }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
{{- fail "serviceMonitor and podMonitor are both enabled: Prometheus would scrape each node twice. Disable one of them." }}
{{- end }}
{{- if and .Values.webhooks.persona.enabled (not (.Values.config | default dict).PERSONA_IDS) }}
{{- fail "webhooks.persona is enabled, but no persona is named: list their ids in config.PERSONA_IDS." }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute is enabled, but has no gateway: name one in httpRoute.parentRefs." }}
{{- end }}
{{- end }}

{{- define "switchboard.checkImage" -}}
{{- if not .Values.image.repository }}
{{- fail (printf "image.repository is empty, and this chart has no published image. In the repository, run `docker build -t images.example.com/switchboard:%s .` with your registry's name and `docker push` with the same, then set image.repository to images.example.com/switchboard. For a trial with kind, build switchboard:%s, run `kind load docker-image switchboard:%s`, and set image.repository to switchboard." .Chart.AppVersion .Chart.AppVersion .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "switchboard.checkSecrets" -}}
{{- if include "switchboard.ownSecrets" . | fromJson }}
{{- $ours := include "switchboard.fullname" . }}
{{- with .Values }}
{{- $theirs := dict "existingSecret" .existingSecret "redis.existingSecret" .redis.existingSecret "database.existingSecret" .database.existingSecret
  "redis.ca.existingSecret" .redis.ca.existingSecret "redis.sentinelCa.existingSecret" .redis.sentinelCa.existingSecret
  "redis.clientCertificate.existingSecret" .redis.clientCertificate.existingSecret
  "redis.sentinelClientCertificate.existingSecret" .redis.sentinelClientCertificate.existingSecret
  "database.clientCertificate.existingSecret" .database.clientCertificate.existingSecret
  "database.ca.existingSecret" .database.ca.existingSecret "auth.existingSecret" .auth.existingSecret "migration.existingSecret" .migration.existingSecret
  "webhooks.persona.existingSecret" .webhooks.persona.existingSecret "webhooks.notification.existingSecret" .webhooks.notification.existingSecret }}
{{- range $value, $name := $theirs }}
{{- if eq (toString $name) $ours }}
{{- fail (printf "%s is %s, which is also the name of the chart's own Secret, with the secrets among the values: name yours otherwise, or put those secrets into it." $value $ours) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $from := dict "redis" .Values.redis "database" .Values.database }}
{{- if and $from.url $from.existingSecret }}
{{- fail (printf "%s.url and %s.existingSecret are both set: remove one of them." $name $name) }}
{{- end }}
{{- if not (or $from.url $from.existingSecret $.Values.existingSecret) }}
{{- fail (printf "%s has no URL: name a Secret that holds it in %s.existingSecret (or one for all in existingSecret); for trials, set %s.url to the URL itself." (ternary "Redis" "PostgreSQL" (eq $name "redis")) $name $name) }}
{{- end }}
{{- if and $from.ca.existingSecret $from.ca.existingConfigMap }}
{{- fail (printf "%s.ca.existingSecret and %s.ca.existingConfigMap are both set: remove one of them." $name $name) }}
{{- end }}
{{- end }}
{{- with .Values.redis }}
{{- if and .sentinelCa.existingSecret .sentinelCa.existingConfigMap }}
{{- fail "redis.sentinelCa.existingSecret and redis.sentinelCa.existingConfigMap are both set: remove one of them." }}
{{- end }}
{{- if and (or .passwordKey .sentinelPasswordKey) (not (or .existingSecret $.Values.existingSecret)) }}
{{- fail "redis.passwordKey or redis.sentinelPasswordKey is set, but there is no Secret of yours that has it: set redis.existingSecret." }}
{{- end }}
{{- end }}
{{- range $name, $hook := .Values.webhooks }}
{{- if and $hook.enabled (not (or $hook.url $hook.existingSecret $.Values.existingSecret)) }}
{{- fail (printf "webhooks.%s is enabled, but has no URL: name a Secret that holds it in webhooks.%s.existingSecret, or set webhooks.%s.url." $name $name $name) }}
{{- end }}
{{- if and (not $hook.enabled) (or $hook.url $hook.secret $hook.existingSecret) }}
{{- fail (printf "webhooks.%s has values, but is not enabled: set webhooks.%s.enabled to true, or remove them." $name $name) }}
{{- end }}
{{- end }}
{{- with .Values.console }}
{{- if and .enabled (not (or .token (and .tokenKey (or .existingSecret $.Values.existingSecret)))) }}
{{- fail "console.enabled is true, but there is no token: name a Secret that holds it in console.existingSecret (or one for all in existingSecret), or, for trials, set console.token." }}
{{- end }}
{{- if and .token .existingSecret }}
{{- fail "console.token and console.existingSecret are both set: remove one of them." }}
{{- end }}
{{- if and (not .enabled) (or .token .existingSecret $.Values.networkPolicy.console) }}
{{- fail "console.token, console.existingSecret or networkPolicy.console is set, but the console is off: set console.enabled to true, or remove them." }}
{{- end }}
{{- end }}
{{- end }}

{{- define "switchboard.checkAuth" -}}
{{- $auth := .Values.auth }}
{{- if eq $auth.method "jwks" }}
{{- if not $auth.jwksUrl }}{{ fail "auth.method is jwks, but auth.jwksUrl is empty: set it to the URL of the published keys." }}{{ end }}
{{- else if not (or (get $auth $auth.method) $auth.existingSecret .Values.existingSecret) }}
{{- fail (printf "There is no key to verify tokens with: name a Secret that holds it in auth.existingSecret (or one for all in existingSecret), set auth.method to jwks, or, for trials, set auth.%s." $auth.method) }}
{{- end }}
{{- if and (get $auth $auth.method) $auth.existingSecret }}
{{- fail (printf "auth.%s and auth.existingSecret are both set: remove one of them." $auth.method) }}
{{- end }}
{{- range $method, $value := dict "secret" "secret" "publicKey" "publicKey" "jwks" "jwksUrl" }}
{{- if and (ne $method $auth.method) (get $auth $value) }}
{{- fail (printf "auth.%s is set, but auth.method is %s: set it to %s, or remove auth.%s." $value $auth.method $method $value) }}
{{- end }}
{{- end }}
{{- if and $auth.previousKey (or (ne $auth.method "secret") (not (or $auth.existingSecret .Values.existingSecret))) }}
{{- fail "auth.previousKey is set, but there is no Secret of yours with shared secrets: set auth.method to secret and auth.existingSecret, or remove it." }}
{{- end }}
{{- if and (eq $auth.method "publicKey") (not (.Values.config | default dict).JWT_ALGORITHM) }}
{{- fail "auth.method is publicKey, but config.JWT_ALGORITHM is empty: set it to the algorithm of the key (RS256, ES256, EdDSA, …)." }}
{{- end }}
{{- end }}

{{- define "switchboard.checkNumbers" -}}
{{- $moves := false }}
{{- with .Values.drain }}
{{- $needed := include "switchboard.shutdownSeconds" $ | int64 }}
{{- if and (not (kindIs "invalid" .gracePeriod)) (lt (int64 .gracePeriod) $needed) }}
{{- $hook := include "switchboard.preStopSeconds" $ | int64 }}
{{- fail (printf "drain.gracePeriod is %d s, but the shutdown takes drain.shutdownDelay + drain.window + 15%s = %d s: Kubernetes would kill nodes that still hold connections. Leave it null, or shorten the others." (int64 .gracePeriod) (ternary (printf " + %d of lifecycle.preStop" $hook) "" (gt $hook 0)) $needed) }}
{{- end }}
{{- $stop := ($.Values.lifecycle | default dict).preStop | default dict }}
{{- if and (kindIs "invalid" .gracePeriod) $stop (not (hasKey $stop "sleep")) }}
{{- fail (printf "lifecycle.preStop runs before a node is told to end, and the chart does not know how long it takes: set drain.gracePeriod to that time and %d s more, or use lifecycle.preStop.sleep." $needed) }}
{{- end }}
{{- end }}
{{- with .Values.rollout }}
{{- if le (int64 .progressDeadlineSeconds) (int64 .minReadySeconds) }}
{{- fail (printf "rollout.progressDeadlineSeconds is %d, but new nodes must be ready for rollout.minReadySeconds = %d before a rollout has made progress: raise the former." (int64 .progressDeadlineSeconds) (int64 .minReadySeconds)) }}
{{- end }}
{{- end }}
{{- range list "maxSurge" "maxUnavailable" }}
{{- if not (regexMatch "^0%?$" (toString (get $.Values.rollout .))) }}{{ $moves = true }}{{ end }}
{{- end }}
{{- if not $moves }}
{{- fail "rollout.maxSurge and rollout.maxUnavailable are both 0: no node could be replaced. Set rollout.maxSurge to 25%." }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if .enabled }}
{{- if gt (int64 .minReplicas) (int64 .maxReplicas) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas: lower the former or raise the latter." }}
{{- end }}
{{- $limit := int64 (($.Values.config | default dict).MAX_CONNECTIONS | default 100000) }}
{{- if ge (int64 .connectionsPerPod) $limit }}
{{- fail (printf "autoscaling.connectionsPerPod is %d, but a node accepts at most config.MAX_CONNECTIONS = %d: nodes would be full before new ones start. Lower connectionsPerPod." (int64 .connectionsPerPod) $limit) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

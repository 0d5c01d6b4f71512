{{/* Checks of the addresses among the values: what nodes must reach, the network policy must allow. */}}

{{/* The place in a URL, between scheme or credentials and path. */}}
{{- define "switchboard.authority" -}}
{{- regexReplaceAll "[/?#].*$" (regexReplaceAll "^[a-z+]+://" . "") "" | regexFind "[^@]*$" }}
{{- end }}

{{/* The values of a parameter in a URL's query, one a line: (dict "url" … "name" "addr"). */}}
{{- define "switchboard.parameters" -}}
{{- $name := .name }}
{{- range splitList "&" (regexReplaceAll "^[^?]*[?]?" .url "") }}
{{- if hasPrefix (printf "%s=" $name) . }}{{ printf "%s\n" (trimPrefix (printf "%s=" $name) . | replace "%3A" ":" | replace "%2C" "," | replace "%2F" "/") }}{{ end }}
{{- end }}
{{- end }}

{{/* The ports of addresses, as texts in JSON: (dict "places" (list "one:1" "two") "usual" "5432"). */}}
{{- define "switchboard.portsOf" -}}
{{- $usual := .usual }}
{{- $ports := list }}
{{- range .places }}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default $usual) }}
{{- end }}
{{- uniq $ports | toJson }}
{{- end }}

{{/* The ports that a URL of PostgreSQL names, for all of its hosts; none for a socket of the machine. */}}
{{- define "switchboard.databasePorts" -}}
{{- $places := splitList "," (include "switchboard.authority" .) }}
{{- $hosts := include "switchboard.parameters" (dict "url" . "name" "host") | trim }}
{{- $ports := include "switchboard.parameters" (dict "url" . "name" "port") | trim }}
{{- if hasPrefix "/" $hosts }}[]
{{- else if $ports }}{{ splitList "," $ports | toJson }}
{{- else }}{{ include "switchboard.portsOf" (dict "places" $places "usual" "5432") }}
{{- end }}
{{- end }}

{{/* The ports that a URL of Redis names, for all of its sentinels. */}}
{{- define "switchboard.redisPorts" -}}
{{- $places := list (include "switchboard.authority" .) }}
{{- range splitList "\n" (include "switchboard.parameters" (dict "url" . "name" "addr")) }}
{{- if . }}{{ $places = append $places . }}{{ end }}
{{- end }}
{{- include "switchboard.portsOf" (dict "places" $places "usual" (ternary "26379" "6379" (contains "+sentinel://" .))) }}
{{- end }}

{{/* The port of a URL of the web. */}}
{{- define "switchboard.webPort" -}}
{{- $port := regexFind ":[0-9]+$" (include "switchboard.authority" .) | trimPrefix ":" }}
{{- $port | default (ternary "443" "80" (hasPrefix "https:" (lower .))) }}
{{- end }}

{{/* Ports that rules of the user's own allow besides, as texts in JSON; "any" if a rule allows all, a range or a name. */}}
{{- define "switchboard.extraPorts" -}}
{{- $ports := list }}
{{- range .Values.networkPolicy.egress.extra }}
{{- if not .ports }}{{ $ports = append $ports "any" }}{{ end }}
{{- range .ports }}
{{- $open := or (hasKey . "endPort") (not (hasKey . "port")) (kindIs "string" .port) }}
{{- $ports = append $ports (ternary "any" (toString .port) $open) }}
{{- end }}
{{- end }}
{{- toJson $ports }}
{{- end }}

{{/* Refuses a port that the policy does not allow: (dict "root" $ "value" … "needs" (list …) "allowed" (list …) "one" … "more" …). */}}
{{- define "switchboard.checkPorts" -}}
{{- $given := . }}
{{- $allowed := list }}
{{- range .allowed }}{{ if . }}{{ $allowed = append $allowed (toString (int64 .)) }}{{ end }}{{ end }}
{{- $extra := include "switchboard.extraPorts" .root | fromJsonArray }}
{{- range .needs }}
{{- if not (or (has . $allowed) (has . $extra) (has "any" $extra)) }}
{{- $is := ternary "not set" (join ", " $allowed) (empty $allowed) }}
{{- $remedy := printf "add it to %s" $given.more }}
{{- if and $given.one (eq 1 (len $given.needs)) }}{{ $remedy = printf "set %s to %s" $given.one . }}{{ end }}
{{- fail (printf "%s names port %s, but %s is %s: nodes could not reach it. To allow it, %s." $given.value . ($given.one | default $given.more) $is $remedy) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "switchboard.checkEgress" -}}
{{- $egress := .Values.networkPolicy.egress }}
{{- if and .Values.networkPolicy.enabled $egress.enabled }}
{{- $place := "networkPolicy.egress" }}
{{- with .Values.database.url }}
{{- $allowed := concat (list $egress.database.port) ($egress.database.morePorts | default list) }}
{{- $needs := include "switchboard.databasePorts" . | fromJsonArray }}
{{- include "switchboard.checkPorts" (dict "root" $ "value" "database.url" "needs" $needs "allowed" $allowed
  "one" (printf "%s.database.port" $place) "more" (printf "%s.database.morePorts" $place)) }}
{{- end }}
{{- with .Values.redis.url }}
{{- $which := ternary "sentinelPort" "port" (contains "+sentinel://" .) }}
{{- $allowed := concat (list (get $egress.redis $which)) ($egress.redis.morePorts | default list) }}
{{- $needs := include "switchboard.redisPorts" . | fromJsonArray }}
{{- include "switchboard.checkPorts" (dict "root" $ "value" "redis.url" "needs" $needs "allowed" $allowed
  "one" (printf "%s.redis.%s" $place $which) "more" (printf "%s.redis.morePorts" $place)) }}
{{- end }}
{{- $urls := dict "auth.jwksUrl" .Values.auth.jwksUrl }}
{{- range $name, $hook := .Values.webhooks }}{{ $_ := set $urls (printf "webhooks.%s.url" $name) $hook.url }}{{ end }}
{{- range $value, $url := $urls }}
{{- if $url }}
{{- include "switchboard.checkPorts" (dict "root" $ "value" $value "needs" (list (include "switchboard.webPort" $url))
  "allowed" $egress.web.ports "more" (printf "%s.web.ports" $place)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Nodes send messages over http only to this machine and to private addresses; a name could lead anywhere. */}}
{{- define "switchboard.checkWebhooks" -}}
{{- $private := "^(localhost|[^:]*[.]localhost|127[.][0-9.]+|10[.][0-9.]+|192[.]168[.][0-9.]+|172[.](1[6-9]|2[0-9]|3[01])[.][0-9.]+|\\[(::1|[fF][cCdD][0-9a-fA-F:]+)\\])(:[0-9]+)?$" }}
{{- range $name, $hook := .Values.webhooks }}
{{- if and $hook.url (hasPrefix "http:" (lower $hook.url)) }}
{{- $place := include "switchboard.authority" $hook.url }}
{{- if not (regexMatch $private (lower $place)) }}
{{- fail (printf "webhooks.%s.url is http to %s, which nodes refuse, because the requests hold messages: use https, or the private IP address of the receiver; a Service keeps one that is set in its clusterIP." $name $place) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

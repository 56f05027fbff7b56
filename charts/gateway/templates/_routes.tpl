{{- define "gateway.routes" -}}
{{- $values := .Values -}}
name: public
# The names that carry identity between filters, and the key itself, end here.
request_headers_to_remove: [x-api-key, x-slipway-subject, x-slipway-key, x-envoy-external-address, x-envoy-original-path]
virtual_hosts:
  - name: public
    domains: ["*"]
    include_request_attempt_count: false
    typed_per_filter_config:
      envoy.filters.http.cors:
        "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
        allow_origin_string_match:
          {{- range $values.cors.origins }}
          {{- if contains "*" . }}
          - safe_regex: {regex: {{ regexQuoteMeta . | replace "\\*" "[A-Za-z0-9-]+" | quote }}}
          {{- else }}
          - exact: {{ . | quote }}
          {{- end }}
          {{- end }}
        allow_methods: {{ join ", " $values.cors.methods | quote }}
        allow_headers: {{ join ", " $values.cors.headers | quote }}
        expose_headers: {{ join ", " $values.cors.expose | quote }}
        max_age: {{ $values.cors.maxAgeSeconds | int64 | quote }}
        forward_not_matching_preflights: false
    routes:
      {{- $sorted := dict }}
      {{- /* What is let in where, whichever routes and services share the path. */ -}}
      {{- $allowed := dict }}
      {{- $last := dict }}
      {{- range $name, $service := $values.services }}
      {{- range $route := $service.routes }}
      {{- /* The longest path first; at one path, the exact and the narrower route first. */ -}}
      {{- $path := trimSuffix "/" $route.path }}
      {{- $order := printf "%04d%d%d%s%s" (sub 9999 (len $path)) (ternary 0 1 (default false $route.exact)) (ternary 0 1 (not (empty $route.methods))) $path (join "" $route.methods) }}
      {{- $match := include "gateway.match" $route }}
      {{- $methods := default (include "gateway.methods" $ | fromJsonArray) $route.methods }}
      {{- $_ := set $sorted $order (dict "service" $name "route" $route "match" $match "methods" $methods) }}
      {{- $_ := set $allowed $match (concat (default list (get $allowed $match)) $methods | uniq) }}
      {{- if gt $order (default "" (get $last $match)) }}{{ $_ := set $last $match $order }}{{ end }}
      {{- end }}
      {{- end }}
      {{- range $order := keys $sorted | sortAlpha }}
      {{- $entry := get $sorted $order }}
      {{- include "gateway.route" (dict "entry" $entry "root" $) | nindent 6 }}
      {{- if eq $order (get $last $entry.match) }}
      {{- include "gateway.refusal" (dict "entry" $entry "allowed" (get $allowed $entry.match)) | trim | nindent 6 }}
      {{- end }}
      {{- end }}
{{- end }}

{{- define "gateway.methods" -}}
["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
{{- end }}

{{- /* A route is two: safe methods may be sent again, others only when nothing was sent. */ -}}
{{- define "gateway.route" -}}
{{- $values := .root.Values -}}
{{- $service := .entry.service -}}
{{- $route := .entry.route -}}
{{- $match := .entry.match -}}
{{- $timeout := $values.timeouts.routeSeconds -}}
{{- if hasKey $route "timeoutSeconds" -}}{{- $timeout = $route.timeoutSeconds -}}{{- end -}}
{{- if $route.websocket -}}{{- $timeout = 0 -}}{{- end -}}
{{- range $class := list "safe" "other" }}
{{- $methods := list }}
{{- range $.entry.methods }}
{{- if eq (has . (list "GET" "HEAD" "OPTIONS")) (eq $class "safe") }}{{ $methods = append $methods . }}{{ end }}
{{- end }}
{{- if $methods }}
- name: {{ printf "%s:%s" $service $route.path | quote }}
  match:
    {{- $match | nindent 4 }}
    headers:
      - name: ":method"
        string_match: {safe_regex: {regex: {{ join "|" $methods | quote }}}}
  route:
    cluster: {{ $service }}
    timeout: {{ include "gateway.seconds" $timeout }}
    {{- if eq (float64 $timeout) 0.0 }}
    idle_timeout: {{ include "gateway.seconds" $values.timeouts.upgradeIdleSeconds }}
    {{- end }}
    {{- if $route.websocket }}
    upgrade_configs: [{upgrade_type: websocket, enabled: true}]
    {{- end }}
    retry_policy:
      retry_on: {{ ternary "connect-failure,refused-stream,reset-before-request,reset" "connect-failure,refused-stream,reset-before-request" (eq $class "safe") }}
      num_retries: {{ $values.upstream.retries.attempts }}
      retry_back_off: {base_interval: 0.025s, max_interval: 0.25s}
      retry_host_predicate:
        - name: envoy.retry_host_predicates.previous_hosts
          typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}
      # A dead host has the fewest requests: of two, each look picks it again with 3/4.
      host_selection_retry_max_attempts: 20
  {{- if gt (float64 $timeout) 0.0 }}
  request_headers_to_add:
    - header: {key: x-request-timeout-ms, value: {{ max 1 (sub (mulf 1000.0 (float64 $timeout) | int64) (int64 $values.timeouts.budgetSlackMilliseconds)) | quote }}}
      append_action: OVERWRITE_IF_EXISTS_OR_ADD
  {{- end }}
  typed_per_filter_config:
    envoy.filters.http.jwt_authn:
      "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig
      {{- if eq $route.auth "none" }}
      disabled: true
      {{- else }}
      requirement_name: {{ $route.auth }}
      {{- end }}
    {{- if $route.websocket }}
    envoy.filters.http.buffer:
      "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute
      disabled: true
    {{- end }}
    {{- if and $values.rateLimits.enabled $route.rateLimit }}
    envoy.filters.http.local_ratelimit:
      {{- $prefix := printf "%s_%s" $service ($route.path | replace "/" "_" | replace "." "_") }}
      {{- include "gateway.ratelimit" (dict "prefix" $prefix "limit" $route.rateLimit "by" (default "client" $route.rateLimit.by) "root" $.root) | nindent 6 }}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* After the last route of a path: what none of them takes is 405. */ -}}
{{- define "gateway.refusal" -}}
- name: {{ printf "%s:%s:405" .entry.service .entry.route.path | quote }}
  match:
    {{- .entry.match | nindent 4 }}
  direct_response: {status: 405}
  response_headers_to_add:
    - header: {key: allow, value: {{ join ", " .allowed | quote }}}
{{- end }}

{{- /* Whole segments only: /items is not /itemsfoo. A version may stand before a versioned path, and
       must before /events: without one that is the event sink, which is not for the outside. */ -}}
{{- define "gateway.match" -}}
{{- $path := trimSuffix "/" .path -}}
{{- if .versioned -}}
safe_regex: {regex: {{ printf "(?:/v[1-9][0-9]{0,3})%s%s%s" (ternary "" "?" (eq $path "/events")) (regexQuoteMeta $path) (ternary "" "(?:/.*)?" (default false .exact)) | quote }}}
{{- else if .exact -}}
path: {{ .path | quote }}
{{- else -}}
path_separated_prefix: {{ $path | quote }}
{{- end -}}
{{- end }}

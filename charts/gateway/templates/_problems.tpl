{{- /* Every answer that Envoy makes itself is a problem (RFC 9457); upstream answers are not touched. */ -}}
{{- define "gateway.problems" -}}
{{- $problems := list
  (list 400 "Bad Request" "The request is malformed or its path is written in a way that is not accepted.")
  (list 401 "Unauthorized" "A valid access token or API key is needed.")
  (list 403 "Forbidden" "These credentials do not allow this request.")
  (list 404 "Not Found" "No service has this path; most begin with a version, as in /v1.")
  (list 405 "Method Not Allowed" "This path does not take this method; the Allow header lists those it takes.")
  (list 408 "Request Timeout" "The request did not arrive in time.")
  (list 413 "Content Too Large" (printf "The body is larger than %d bytes." (int64 .Values.limits.bodyBytes)))
  (list 426 "Upgrade Required" "This protocol version is not supported.")
  (list 429 "Too Many Requests" "This client asks too often; the Retry-After header says when to come back.")
  (list 431 "Request Header Fields Too Large" "The headers are too many or too large.")
  (list 500 "Internal Server Error" "The gateway could not handle the request.")
  (list 501 "Not Implemented" "The request uses a transfer encoding that is not supported.")
  (list 502 "Bad Gateway" "The service answered in a way that the gateway does not understand.")
  (list 503 "Service Unavailable" "The service is away or busy; try again.")
  (list 504 "Gateway Timeout" "The service did not answer in time.")
-}}
body_format:
  content_type: application/problem+json
  omit_empty_values: true
  json_format:
    type: about:blank
    title: Request Failed
    status: "%RESPONSE_CODE%"
    instance: "%PATH(NQ:PATH)%"
    request_id: "%REQ(X-REQUEST-ID)%"
    trace_id: {{ include "gateway.traceid" . | quote }}
mappers:
  # The keys never came: that is our fault, not the token's.
  - filter:
      extension_filter:
        name: envoy.access_loggers.extension_filters.cel
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter
          expression: "response.code_details.contains('Jwks_remote_fetch')"
    status_code: 503
    headers_to_add:
      - {header: {key: retry-after, value: "1"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
    {{- include "gateway.problem" (list . 503 "Service Unavailable" "Tokens cannot be verified at the moment; try again.") | nindent 4 }}
  # Envoy says 403 to a token for another audience; it is an invalid token (RFC 6750, 3.1).
  - filter:
      extension_filter:
        name: envoy.access_loggers.extension_filters.cel
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter
          expression: "response.code == 403 && response.code_details.contains('jwt_authn')"
    status_code: 401
    headers_to_add:
      - {header: {key: www-authenticate, value: 'Bearer realm="slipway", error="invalid_token"'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
    {{- include "gateway.problem" (list . 401 "Unauthorized" "The access token is not for this audience.") | nindent 4 }}
  {{- range $problems }}
  {{- $status := index . 0 }}
  - filter:
      status_code_filter:
        comparison: {op: EQ, value: {default_value: {{ $status }}, runtime_key: {{ printf "problem_%d" (int $status) }}}}
    {{- if eq $status 503 }}
    headers_to_add:
      - {header: {key: retry-after, value: "1"}, append_action: ADD_IF_ABSENT}
    {{- end }}
    {{- include "gateway.problem" (prepend . $) | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "gateway.problem" -}}
body_format_override:
  content_type: application/problem+json
  omit_empty_values: true
  json_format:
    type: about:blank
    title: {{ index . 2 | quote }}
    status: "%RESPONSE_CODE%"
    detail: {{ index . 3 | quote }}
    instance: "%PATH(NQ:PATH)%"
    request_id: "%REQ(X-REQUEST-ID)%"
    trace_id: {{ include "gateway.traceid" (index . 0) | quote }}
{{- end }}

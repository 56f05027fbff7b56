{{- /* A YAML scalar as an environment variable holds it; toString would write 1048576 as 1.048576e+06. */ -}}
{{- define "service.plain" -}}
{{- if kindIs "string" . -}}{{ . }}{{- else -}}{{ toJson . }}{{- end -}}
{{- end }}

{{- /* The variables that the chart sets by itself, as JSON. */ -}}
{{- define "service.ownEnvironment" -}}
{{- $values := .Values -}}
{{- $prefix := include "service.ownPrefix" . -}}
{{- $found := dict
  (printf "%sENVIRONMENT" $prefix) $values.environment
  (printf "%sHOST" $prefix) "0.0.0.0"
  (printf "%sPORT" $prefix) (toString $values.port)
  (printf "%sDRAIN_SECONDS" $prefix) (toString $values.rollout.drainSeconds)
  (printf "%sAUTH_URL" $prefix) "http://auth"
  (printf "%sISSUER" $prefix) $values.issuer
  "SLIPWAY_VERSION" (include "service.version" .)
-}}
{{- if ne ($values.package | default $values.name) $values.name }}{{ $_ := set $found (printf "%sSERVICE_NAME" $prefix) $values.name }}{{ end -}}
{{- with $values.revision }}{{ $_ := set $found "SLIPWAY_REVISION" . }}{{ end -}}
{{- with $values.tracing.endpoint -}}
{{- $_ := set $found (printf "%sOTLP_ENDPOINT" $prefix) . -}}
{{- $_ := set $found (printf "%sTRACE_SAMPLE_RATIO" $prefix) (toJson $values.tracing.sampleRatio) -}}
{{- end -}}
{{- range $peer, $_ := $values.dependsOn -}}
{{- $_ := set $found (printf "%s%sURL" $prefix (include "service.prefix" $peer)) (printf "http://%s" $peer) -}}
{{- end -}}
{{- if $values.events.publishes -}}
{{- $subscribers := dict -}}
{{- range $event, $peers := $values.events.publishes -}}
{{- $urls := list -}}
{{- range $peers }}{{ $urls = append $urls (printf "http://%s/events" .) }}{{ end -}}
{{- $_ := set $subscribers $event $urls -}}
{{- end -}}
{{- $_ := set $found (printf "%sSUBSCRIBERS" $prefix) (toJson $subscribers) -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}

{{- /* All plain variables, as JSON: the chart's own and `env`. */ -}}
{{- define "service.environment" -}}
{{- $found := include "service.ownEnvironment" . | fromJson -}}
{{- range $name, $value := .Values.env -}}
{{- $_ := set $found $name (include "service.plain" $value) -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}

{{- /* The variables of a container. A hook runs before the ConfigMap exists and has them inline. */ -}}
{{- define "service.containerEnvironment" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $prefix := include "service.ownPrefix" $root -}}
{{- if not .inline }}
envFrom:
  - configMapRef: {name: {{ $values.name }}}
{{- end }}
{{- if or .inline $values.database.enabled $values.valkey.enabled $values.secrets $values.extraEnv }}
env:
  {{- if .inline }}
  {{- range $name, $value := include "service.environment" $root | fromJson }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
  {{- end }}
  {{- if $values.database.enabled }}
  - name: {{ $prefix }}DATABASE_URL
    valueFrom: {secretKeyRef: {name: {{ include "service.databaseSecret" $root }}, key: {{ $values.database.secretKey }}}}
  {{- end }}
  {{- if $values.valkey.enabled }}
  - name: {{ $prefix }}VALKEY_URL
    valueFrom: {secretKeyRef: {name: {{ include "service.valkeySecret" $root }}, key: {{ $values.valkey.secretKey }}}}
  {{- end }}
  {{- range $name, $_ := $values.secrets }}
  - name: {{ $name }}
    valueFrom: {secretKeyRef: {name: {{ include "service.secret" $root }}, key: {{ $name }}}}
  {{- end }}
  {{- range $name, $source := $values.extraEnv }}
  - name: {{ $name }}
    {{- toYaml $source | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Changes when a Secret in use changes, so that an upgrade starts new pods. The version, not the
      content, because annotations are read by more people than secrets. Empty without a cluster. */ -}}
{{- define "service.secretsChecksum" -}}
{{- $found := list -}}
{{- $names := list -}}
{{- if .Values.database.enabled }}{{ $names = append $names (include "service.databaseSecret" .) }}{{ end -}}
{{- if .Values.valkey.enabled }}{{ $names = append $names (include "service.valkeySecret" .) }}{{ end -}}
{{- if .Values.secrets }}{{ $names = append $names (include "service.secret" .) }}{{ end -}}
{{- range $names -}}
{{- with lookup "v1" "Secret" $.Release.Namespace . -}}
{{- $found = append $found (printf "%s %s" .metadata.uid .metadata.resourceVersion) -}}
{{- end -}}
{{- end -}}
{{- if $found }}{{ join "\n" $found | sha256sum }}{{ end -}}
{{- end }}

{{- /* What this release runs, as a JSON list. */ -}}
{{- define "observability.components" -}}
{{- $found := list -}}
{{- $stack := .Values.kubePrometheusStack -}}
{{- range list "prometheus" "alertmanager" "grafana" "jaeger" -}}
{{- if $stack.enabled -}}
{{- if and (eq . "jaeger") $stack.jaeger -}}{{- $found = append $found . -}}{{- end -}}
{{- else if (get $.Values .).enabled -}}
{{- $found = append $found . -}}
{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end }}

{{- /* "yes" when this release runs the component: (list . "jaeger"). */ -}}
{{- define "observability.runs" -}}
{{- if has (index . 1) (include "observability.components" (index . 0) | fromJsonArray) -}}yes{{- end -}}
{{- end }}

{{- /* Labels of one component: (list . "prometheus"). */ -}}
{{- define "observability.labels" -}}
{{- $root := index . 0 -}}
{{- $own := get $root.Values (index . 1) | default dict -}}
{{ include "observability.selector" . }}
app.kubernetes.io/version: {{ dig "image" "tag" $root.Chart.AppVersion $own | quote }}
app.kubernetes.io/part-of: slipway
app.kubernetes.io/component: observability
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{- define "observability.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "observability.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end }}

{{- define "observability.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "observability.container" -}}
image: {{ include "observability.image" .image | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* The volume `data`: (list "prometheus" storage). */ -}}
{{- define "observability.data" -}}
{{- $storage := index . 1 -}}
name: data
{{- if eq $storage.type "pvc" }}
persistentVolumeClaim: {claimName: {{ index . 0 }}}
{{- else }}
emptyDir: {sizeLimit: {{ $storage.mebibytes }}Mi}
{{- end }}
{{- end }}

{{- /* "yes" when the component has a claim: (list . "jaeger"). Jaeger's memory needs none. */ -}}
{{- define "observability.claims" -}}
{{- $own := get (index . 0).Values (index . 1) -}}
{{- if and (eq $own.storage.type "pvc") (ne ($own.backend | default "") "memory") -}}yes{{- end -}}
{{- end }}

{{- /* What a Secret of the cluster holds today, else the given new value: (list . secret key new). */ -}}
{{- define "observability.kept" -}}
{{- $old := lookup "v1" "Secret" (index . 0).Release.Namespace (index . 1) | default dict -}}
{{- $data := get $old "data" | default dict -}}
{{- if get $data (index . 2) -}}
{{- get $data (index . 2) | b64dec -}}
{{- else -}}
{{- index . 3 -}}
{{- end -}}
{{- end }}

{{- /* One rule file, with whole addresses of runbooks where it is known where the tree can be read. */ -}}
{{- define "observability.rules" -}}
{{- $text := (index . 0).Files.Get (index . 1) -}}
{{- with (index . 0).Values.prometheus.runbookBaseUrl -}}
{{- $text = $text | replace "runbook_url: docs/" (printf "runbook_url: %s/docs/" (trimSuffix "/" .)) -}}
{{- end -}}
{{- $text -}}
{{- end }}

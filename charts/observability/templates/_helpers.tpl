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
{{- /* Only our Prometheus would ask it, and not if it is told of another. */ -}}
{{- if and (has "prometheus" $found) .Values.kubeStateMetrics.enabled (not .Values.prometheus.kubeStateMetrics) -}}
{{- $found = append $found "kube-state-metrics" -}}
{{- end -}}
{{- $found | toJson -}}
{{- end }}

{{- /* The field of the values that a component's name stands for. */ -}}
{{- define "observability.key" -}}
{{- ternary "kubeStateMetrics" . (eq . "kube-state-metrics") -}}
{{- end }}

{{- /* "yes" when this release runs the component: (list . "jaeger"). */ -}}
{{- define "observability.runs" -}}
{{- if has (index . 1) (include "observability.components" (index . 0) | fromJsonArray) -}}yes{{- end -}}
{{- end }}

{{- /* Labels of one component: (list . "prometheus"). */ -}}
{{- define "observability.labels" -}}
{{- $root := index . 0 -}}
{{- $own := get $root.Values (include "observability.key" (index . 1)) | default dict -}}
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

{{- /* The volume `token`: of the API server, for the one container that mounts it, and for an hour. */ -}}
{{- define "observability.token" -}}
name: token
projected:
  sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3600}
    - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
    - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}

{{- /* Where a client of the API server looks for it. */ -}}
{{- define "observability.token.mount" -}}
{name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
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
{{- $own := get (index . 0).Values (include "observability.key" (index . 1)) -}}
{{- if and (eq (dig "storage" "type" "" $own) "pvc") (ne ($own.backend | default "") "memory") -}}yes{{- end -}}
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

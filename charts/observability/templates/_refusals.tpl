{{- /* What the schema cannot say; each sentence names the field and the change. */ -}}
{{- define "observability.refusals" -}}
{{- $values := .Values -}}
{{- $stack := $values.kubePrometheusStack -}}
{{- if not (.Files.Glob "files/rules/*.yaml") -}}
{{- fail "files/rules: there are no rules; it is a link to observability/rules, which this checkout does not follow (git config core.symlinks true)" -}}
{{- end -}}
{{- if not (.Files.Glob "files/dashboards/*.json") -}}
{{- fail "files/dashboards: there are no dashboards; it is a link to observability/dashboards, which this checkout does not follow (git config core.symlinks true)" -}}
{{- end -}}
{{- if and $stack.enabled (not (or (has "monitoring.coreos.com/v1" $values.assumeApis) (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1"))) -}}
{{- fail "kubePrometheusStack.enabled: the cluster has no monitoring.coreos.com/v1; install kube-prometheus-stack or set it to false (without a cluster: assumeApis: [monitoring.coreos.com/v1])" -}}
{{- end -}}
{{- range $severity, $name := $values.alertmanager.routes -}}
{{- if and $name (not (hasKey $values.alertmanager.receivers $name)) -}}
{{- fail (printf "alertmanager.routes.%s: there is no receiver %q; add it to alertmanager.receivers" $severity $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $receiver := $values.alertmanager.receivers -}}
{{- if not (has $name (values $values.alertmanager.routes)) -}}
{{- fail (printf "alertmanager.receivers.%s: no route leads there; name it in alertmanager.routes.page or .ticket" $name) -}}
{{- end -}}
{{- end -}}
{{- if has "prometheus" (include "observability.components" . | fromJsonArray) -}}
{{- if and $values.prometheus.clusterWide $values.prometheus.namespaces -}}
{{- fail "prometheus.namespaces: clusterWide finds the pods of all; remove one of the two" -}}
{{- end -}}
{{- if and $values.prometheus.clusterWide $values.prometheus.cadvisor -}}
{{- fail "prometheus.cadvisor: clusterWide asks cAdvisor as well; remove one of the two" -}}
{{- end -}}
{{- if has .Release.Namespace $values.prometheus.namespaces -}}
{{- fail (printf "prometheus.namespaces: its own, %s, is always one; remove it" .Release.Namespace) -}}
{{- end -}}
{{- range $i, $config := $values.prometheus.scrapeConfigs -}}
{{- if has $config.job_name (list "slipway" "kube-state-metrics" "cadvisor") -}}
{{- fail (printf "prometheus.scrapeConfigs[%d].job_name: %s is a job of this chart; give it another name" $i $config.job_name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.grafana.anonymous.enabled (ne $values.environment "development") -}}
{{- fail (printf "grafana.anonymous.enabled: everybody would see everything, refused in %s; set it to false" $values.environment) -}}
{{- end -}}
{{- if eq $values.environment "production" -}}
{{- include "observability.production" . -}}
{{- end -}}
{{- end }}

{{- /* Production: images by digest, data that stays, alerts that somebody hears. */ -}}
{{- define "observability.production" -}}
{{- $values := .Values -}}
{{- range $name := include "observability.components" . | fromJsonArray -}}
{{- $field := include "observability.key" $name -}}
{{- $own := get $values $field -}}
{{- if not $own.image.digest -}}
{{- fail (printf "%s.image.digest: production runs images by digest; set it to the sha256:... of the image that staging ran" $field) -}}
{{- end -}}
{{- if not (include "observability.claims" (list $ $name)) -}}
{{- if eq $name "jaeger" -}}
{{- fail "jaeger.backend: production keeps its traces; set it to badger and storage.type to pvc, or bring your own Jaeger" -}}
{{- end -}}
{{- if has $name (list "prometheus" "alertmanager") -}}
{{- fail (printf "%s.storage.type: production keeps its data over a restart; set it to pvc" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $name "alertmanager") (not $values.alertmanager.routes.page) -}}
{{- fail "alertmanager.routes.page: nobody would hear of a page; name a receiver" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /*
What the schema cannot say of the Kubernetes part. Each sentence names the field and the change.
Rendered with the Deployment, so that a wrong value installs nothing.
*/ -}}
{{- define "gateway.refusals" -}}
{{- $values := .Values -}}
{{- $scaling := $values.autoscaling -}}
{{- if eq $scaling.mode "hpa" -}}
{{- if $values.replicas -}}
{{- fail "replicas: the autoscaler chooses the number; remove replicas, or set autoscaling.mode to none" -}}
{{- end -}}
{{- if not (dig "requests" "cpu" "" $values.resources) -}}
{{- fail "resources.requests.cpu: the autoscaler aims at a percentage of it; set it, or set autoscaling.mode to none" -}}
{{- end -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas: %d is more than maxReplicas; make it %d or less" (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $values.noticeSeconds) (int $values.drainSeconds) -}}
{{- fail (printf "noticeSeconds: is part of drainSeconds; make it %d or less" (int $values.drainSeconds)) -}}
{{- end -}}
{{- $needed := include "gateway.draining" . | int -}}
{{- $grace := int $values.terminationGracePeriodSeconds -}}
{{- if and $grace (lt $grace $needed) -}}
{{- fail (printf "terminationGracePeriodSeconds: %d is shorter than draining (drainSeconds + timeouts.routeSeconds + 5); make it %d or more, or 0" $grace $needed) -}}
{{- end -}}
{{- if and $values.httpRoute.enabled $values.ingress.enabled -}}
{{- fail "httpRoute.enabled: there is an ingress too; the gateway stands behind one of them, disable the other" -}}
{{- end -}}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: name the Gateway that leads here, for example [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- if and $values.ingress.tls.secretName (not $values.ingress.host) -}}
{{- fail "ingress.host: a certificate is for a name; set the host that ingress.tls.secretName is for" -}}
{{- end -}}
{{- if and $values.podMonitor.enabled (not $values.status.enabled) -}}
{{- fail "podMonitor.enabled: the metrics are on the status listener; set status.enabled" -}}
{{- end -}}
{{- if $values.httpRoute.enabled -}}
{{- include "gateway.kind" (list . "gateway.networking.k8s.io/v1/HTTPRoute" "httpRoute.enabled" "the Gateway API") -}}
{{- end -}}
{{- if $values.podMonitor.enabled -}}
{{- include "gateway.kind" (list . "monitoring.coreos.com/v1/PodMonitor" "podMonitor.enabled" "the Prometheus Operator") -}}
{{- end -}}
{{- if ne $values.environment "development" -}}
{{- include "gateway.guarded" . -}}
{{- end -}}
{{- end }}

{{- /* A kind that the cluster lacks. Without a cluster (helm template) nothing is known, nothing is said. */ -}}
{{- define "gateway.kind" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 1 -}}
{{- if not ($root.Capabilities.APIVersions.Has $kind) -}}
{{- if lookup "v1" "ServiceAccount" $root.Release.Namespace "default" -}}
{{- fail (printf "%s: this cluster has no %s; install %s first, or disable it" (index . 2) $kind (index . 3)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* Staging and production: nothing of a laptop, nothing left to fill in. */ -}}
{{- define "gateway.guarded" -}}
{{- $values := .Values -}}
{{- $where := $values.environment -}}
{{- $fields := list (list "jwt.issuer" $values.jwt.issuer) (list "ingress.host" $values.ingress.host) -}}
{{- range $i, $origin := $values.cors.origins -}}
{{- $fields = append $fields (list (printf "cors.origins[%d]" $i) $origin) -}}
{{- end -}}
{{- range $i, $name := $values.httpRoute.hostnames -}}
{{- $fields = append $fields (list (printf "httpRoute.hostnames[%d]" $i) $name) -}}
{{- end -}}
{{- range $fields -}}
{{- if regexMatch "(?i)(^|[/.@*-])(localhost|127\\.0\\.0\\.1|example\\.(com|org|net)|change-?me|replace-?me)|\\.(example|invalid|test|local|localhost)(:|/|$)" (index . 1) -}}
{{- fail (printf "%s: %q is a placeholder, refused in %s; give it the real name" (index . 0) (index . 1) $where) -}}
{{- end -}}
{{- if hasPrefix "http://" (index . 1) -}}
{{- fail (printf "%s: %q is not encrypted, refused in %s; use https" (index . 0) (index . 1) $where) -}}
{{- end -}}
{{- end -}}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.hostnames) -}}
{{- fail (printf "httpRoute.hostnames: %s needs the names that clients use" $where) -}}
{{- end -}}
{{- if and $values.ingress.enabled (not $values.ingress.tls.secretName) -}}
{{- fail (printf "ingress.tls.secretName: %s needs TLS; name the Secret with the certificate of ingress.host" $where) -}}
{{- end -}}
{{- if eq $where "production" -}}
{{- if not $values.image.digest -}}
{{- fail "image.digest: production runs images by digest; set it to the sha256:... of the image that staging ran" -}}
{{- end -}}
{{- if lt (include "gateway.replicas" . | int) 2 -}}
{{- fail "autoscaling.minReplicas: one pod is no production; make it 2 or more" -}}
{{- end -}}
{{- if not (or $values.httpRoute.enabled $values.ingress.enabled (eq $values.service.type "LoadBalancer")) -}}
{{- fail "httpRoute.enabled: nothing leads to this gateway; enable httpRoute or ingress" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* The pods there are at least. */ -}}
{{- define "gateway.replicas" -}}
{{- if eq .Values.autoscaling.mode "none" -}}
{{- .Values.replicas | default .Values.autoscaling.minReplicas -}}
{{- else -}}
{{- .Values.autoscaling.minReplicas -}}
{{- end -}}
{{- end }}

{{- /* Seconds from the order to go until the last request may end, and 5 for Envoy's own end. */ -}}
{{- define "gateway.draining" -}}
{{- add (int .Values.drainSeconds) (ceil (float64 .Values.timeouts.routeSeconds) | int) 5 -}}
{{- end }}

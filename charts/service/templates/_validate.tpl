{{- /* What the schema cannot say. Every sentence names the field and what to change; all of them are
      shown at once. A problem is a line; the parts below print lines. */ -}}
{{- define "service.validate" -}}
{{- $problems := list -}}
{{- range list "environment" "secrets" "scaling" "rollout" "access" "apis" "kind" "production" -}}
{{- range splitList "\n" (include (printf "service.validate.%s" .) $) -}}
{{- with trim . }}{{ $problems = append $problems . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $problems }}{{ fail (printf "%s: %s" .Values.name (join "\n" $problems)) }}{{ end -}}
{{- end }}

{{- define "service.validate.environment" -}}
{{- $values := .Values }}
{{- $prefix := include "service.ownPrefix" . }}
{{- $own := include "service.ownEnvironment" . | fromJson }}
{{- $database := printf "%sDATABASE_URL" $prefix }}
{{- range $where, $names := dict "env" (keys $values.env | sortAlpha) "secrets" (keys $values.secrets | sortAlpha) }}
{{- range $names }}
{{- if not (hasPrefix $prefix .) }}
{{ $where }}.{{ . }}: does not start with {{ $prefix }}; rename it, or use extraEnv for a variable that is not the service's
{{- else if eq . (printf "%sVALKEY_URL" $prefix) }}
{{ $where }}.{{ . }}: is set from Secret {{ include "service.valkeySecret" $ }}; remove it and say valkey.enabled: true
{{- else if eq . $database }}
{{ $where }}.{{ . }}: is set from Secret {{ include "service.databaseSecret" $ }}; remove it and say database.enabled: true (a SQLite file would be lost with its pod)
{{- else if hasKey $own . }}
{{ $where }}.{{ . }}: is set by the chart; remove it and change the value that it follows from
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $_ := $values.secrets }}
{{- if hasKey $values.env $name }}
env.{{ $name }}: is in secrets too; keep one of them
{{- end }}
{{- end }}
{{- range $name, $_ := $values.extraEnv }}
{{- if or (hasKey $own $name) (hasKey $values.env $name) (hasKey $values.secrets $name) (has $name (list $database (printf "%sVALKEY_URL" $prefix))) }}
extraEnv.{{ $name }}: is set elsewhere already; remove it
{{- end }}
{{- end }}
{{- $secret := printf "%sCLIENT_SECRET" $prefix }}
{{- if and $values.client (not (hasKey $values.secrets $secret)) }}
client: its tokens need a secret; add {{ $secret }}: {} to secrets
{{- end }}
{{- range $event, $peers := $values.events.publishes }}
{{- range $peers }}
{{- if not (hasKey $values.dependsOn .) }}
events.publishes.{{ $event }}: {{ . }} is not in dependsOn, so the network policy keeps the event in; add it
{{- end }}
{{- end }}
{{- end }}
{{- if and $values.database.of (not $values.database.enabled) }}
database.of: the database is not enabled; set database.enabled: true
{{- end }}
{{- if eq ($values.database.of | default "") $values.name }}
database.of: {{ $values.name }} is this release; remove it, and the database is its own
{{- end }}
{{- if hasKey $values.dependsOn $values.name }}
dependsOn.{{ $values.name }}: a service does not depend on itself; remove it
{{- end }}
{{- if has "tmp" (keys $values.volumes) }}
volumes.tmp: is the chart's own; choose another name, or set tmp.sizeLimit
{{- end }}
{{- range $name, $volume := $values.volumes }}
{{- if eq (clean $volume.mountPath) "/tmp" }}
volumes.{{ $name }}.mountPath: /tmp is there already; set tmp.sizeLimit
{{- end }}
{{- end }}
{{- end }}

{{- /* Found out before the migration waits for a Secret that nobody made. */ -}}
{{- define "service.validate.secrets" -}}
{{- $namespace := .Release.Namespace }}
{{- if and .Values.checkSecrets (lookup "v1" "ServiceAccount" $namespace "default") }}
{{- $wanted := dict }}
{{- if .Values.database.enabled }}{{ $_ := set $wanted (include "service.databaseSecret" .) (list .Values.database.secretKey) }}{{ end }}
{{- if .Values.valkey.enabled }}
{{- $secret := include "service.valkeySecret" . }}
{{- $_ := set $wanted $secret (append (get $wanted $secret | default list) .Values.valkey.secretKey) }}
{{- end }}
{{- if .Values.secrets }}
{{- $secret := include "service.secret" . }}
{{- $_ := set $wanted $secret (concat (get $wanted $secret | default list) (keys .Values.secrets | sortAlpha)) }}
{{- end }}
{{- $development := ternary ", or install charts/datastores before" "" (eq .Values.environment "development") }}
{{- range $name, $keys := $wanted }}
{{- $found := lookup "v1" "Secret" $namespace $name }}
{{- range $keys }}
{{- if not (hasKey ($found.data | default dict) .) }}
Secret {{ $name }} in namespace {{ $namespace }} has no key {{ . }}; create it{{ $development }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "service.validate.scaling" -}}
{{- $scaling := .Values.autoscaling }}
{{- $automatic := ne $scaling.mode "none" }}
{{- $requests := .Values.resources.requests | default dict }}
{{- $limits := .Values.resources.limits | default dict }}
{{- if and (hasKey .Values "replicas") $automatic }}
replicas: autoscaling.mode is {{ $scaling.mode }}, which chooses the number itself; remove replicas or set autoscaling.mode: none
{{- end }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
autoscaling.minReplicas: {{ $scaling.minReplicas }} is more than maxReplicas {{ $scaling.maxReplicas }}; raise maxReplicas or lower minReplicas
{{- end }}
{{- if $automatic }}
{{- range $resource, $target := dict "cpu" "targetCPUUtilization" "memory" "targetMemoryUtilization" }}
{{- if and (get $scaling $target) (not (get $requests $resource)) }}
autoscaling.{{ $target }}: is a percentage of resources.requests.{{ $resource }}, which is not set; set it, or {{ $target }}: 0
{{- end }}
{{- end }}
{{- $triggers := and (eq $scaling.mode "keda") $scaling.keda.triggers }}
{{- if not (or $scaling.targetCPUUtilization $scaling.targetMemoryUtilization $scaling.requestsPerSecond $triggers) }}
autoscaling.mode: {{ $scaling.mode }} has nothing to aim at; set targetCPUUtilization, targetMemoryUtilization or requestsPerSecond, or mode: none
{{- end }}
{{- if and (eq $scaling.mode "keda") $scaling.requestsPerSecond (not $scaling.keda.prometheusAddress) }}
autoscaling.keda.prometheusAddress: requestsPerSecond is asked for there; set it, for example http://prometheus:9090
{{- end }}
{{- if and (eq $scaling.mode "hpa") $scaling.keda.triggers }}
autoscaling.keda.triggers: mode is hpa, which knows no triggers; remove them or set mode: keda
{{- end }}
{{- end }}
{{- range list "cpu" "memory" }}
{{- if not (get $requests .) }}
resources.requests.{{ . }}: is not set, so the scheduler places the pod anywhere; set it
{{- else if and (get $limits .) (gt (float64 (include "service.quantity" (get $requests .))) (float64 (include "service.quantity" (get $limits .)))) }}
resources.limits.{{ . }}: {{ get $limits . }} is less than the request of {{ get $requests . }}; raise the limit or lower the request
{{- end }}
{{- end }}
{{- $budget := .Values.disruptionBudget }}
{{- if $budget.enabled }}
{{- $pods := include "service.replicas" . | int }}
{{- if hasKey $budget "minAvailable" }}
{{- $stay := include "service.podsOf" (list $budget.minAvailable $pods true) | int }}
{{- if and $pods (ge $stay $pods) }}
disruptionBudget.minAvailable: {{ $budget.minAvailable }} of {{ $pods }} pods blocks every eviction, and no node can be drained; lower it, raise {{ ternary "minReplicas" "replicas or minReplicas" $automatic }}, or use maxUnavailable: 1
{{- end }}
{{- else if eq (include "service.podsOf" (list $budget.maxUnavailable $pods true) | int) 0 }}
disruptionBudget.maxUnavailable: {{ $budget.maxUnavailable }} blocks every eviction, and no node can be drained; use 1 or more
{{- end }}
{{- end }}
{{- end }}

{{- /* A count or percentage as pods: (count, of how many, rounded up). */ -}}
{{- define "service.podsOf" -}}
{{- $count := toString (index . 0) -}}
{{- if hasSuffix "%" $count -}}
{{- $share := divf (mulf (float64 (trimSuffix "%" $count)) (float64 (index . 1))) 100.0 -}}
{{- ternary (ceil $share) (floor $share) (index . 2) | int -}}
{{- else -}}
{{- $count | int -}}
{{- end -}}
{{- end }}

{{- define "service.validate.rollout" -}}
{{- $rollout := .Values.rollout }}
{{- $needed := include "service.graceNeeded" . | int }}
{{- $grace := include "service.grace" . | int }}
{{- if lt $grace $needed }}
rollout.terminationGracePeriodSeconds: {{ $grace }} s is shorter than preStopSeconds {{ $rollout.preStopSeconds }} + drainSeconds {{ $rollout.drainSeconds }} + shutdownSeconds {{ $rollout.shutdownSeconds }}, so requests would be cut off; give at least {{ $needed }}, or 0 for the sum
{{- end }}
{{- $pods := include "service.replicas" . | int }}
{{- $away := include "service.podsOf" (list $rollout.maxUnavailable $pods false) | int }}
{{- $more := include "service.podsOf" (list $rollout.maxSurge $pods true) | int }}
{{- if and (eq $away 0) (eq $more 0) $pods }}
rollout.maxSurge: with maxUnavailable {{ $rollout.maxUnavailable }} and maxSurge {{ $rollout.maxSurge }} no pod could ever be exchanged; use maxSurge: 1
{{- else if and $pods (ge $away $pods) }}
rollout.maxUnavailable: {{ $rollout.maxUnavailable }} of {{ $pods }} pods leaves nobody to serve during a rollout; use 0
{{- end }}
{{- $startup := .Values.probes.startup }}
{{- $warm := mul (int $startup.periodSeconds) (int $startup.failureThreshold) }}
{{- if ge (int $warm) (int $rollout.progressDeadlineSeconds) }}
rollout.progressDeadlineSeconds: {{ $rollout.progressDeadlineSeconds }} s is over before the startup probe gives up after {{ $warm }} s; raise it above that
{{- end }}
{{- if le (int $rollout.progressDeadlineSeconds) (int $rollout.minReadySeconds) }}
rollout.minReadySeconds: {{ $rollout.minReadySeconds }} s is not over before progressDeadlineSeconds {{ $rollout.progressDeadlineSeconds }}; lower it
{{- end }}
{{- with .Values.slo.latency }}
{{- if not (hasKey (include "service.buckets" $ | fromJson) (toString .milliseconds)) }}
slo.latency.milliseconds: {{ .milliseconds }} is no bound of the duration histogram, so nobody can tell; use one of 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000
{{- end }}
{{- end }}
{{- $owner := trim .Values.slo.owner }}
{{- if or (not $owner) (has (lower $owner) (list "todo" "tbd" "none" "nobody" "unknown" "me" "owner" "team")) }}
slo.owner: {{ .Values.slo.owner | quote }} is nobody who can be called; name the team
{{- end }}
{{- end }}

{{- define "service.validate.access" -}}
{{- range $kind, $door := dict "httpRoute" .Values.httpRoute "ingress" .Values.ingress }}
{{- if $door.enabled }}
{{- if not $door.paths }}
{{ $kind }}.paths: nothing is let in; list the paths, for example [/{{ $.Values.name }}]
{{- end }}
{{- if and $.Values.networkPolicy.enabled (not $.Values.networkPolicy.edge) (not $.Values.networkPolicy.extraIngress) }}
networkPolicy.edge: {{ $kind }} is on, but its controller may not reach the pods; add the controller, for example [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: envoy-gateway-system}}}]
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.httpRoute.enabled }}
{{- if not .Values.httpRoute.parentRefs }}
httpRoute.parentRefs: the route has no Gateway; add one, for example [{name: public, namespace: gateways}]
{{- end }}
{{- if not .Values.httpRoute.hostnames }}
httpRoute.hostnames: without a name the route takes every host of its Gateway; add one
{{- end }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
ingress.hosts: without a host the rule takes every host of its controller; add one
{{- end }}
{{- end }}

{{- define "service.validate.apis" -}}
{{- $asked := list
  (list (eq .Values.autoscaling.mode "keda") "autoscaling.mode" "keda.sh/v1alpha1" "KEDA" "set mode: hpa")
  (list .Values.httpRoute.enabled "httpRoute.enabled" "gateway.networking.k8s.io/v1" "the Gateway API" "use ingress")
  (list .Values.monitoring.serviceMonitor.enabled "monitoring.serviceMonitor.enabled" "monitoring.coreos.com/v1" "the Prometheus operator" "set it to false")
  (list .Values.monitoring.prometheusRule.enabled "monitoring.prometheusRule.enabled" "monitoring.coreos.com/v1" "the Prometheus operator" "set it to false")
}}
{{- range $asked }}
{{- if and (index . 0) (not (include "service.hasApi" (dict "root" $ "api" (index . 2)))) }}
{{ index . 1 }}: the cluster has no {{ index . 2 }}; install {{ index . 3 }} or {{ index . 4 }} (without a cluster: assumeApis: [{{ index . 2 }}])
{{- end }}
{{- end }}
{{- end }}

{{- define "service.validate.kind" -}}
{{- if eq .Values.kind "job" }}
{{- range $field, $used := dict "routes" .Values.routes "httpRoute.enabled" .Values.httpRoute.enabled "ingress.enabled" .Values.ingress.enabled "monitoring.serviceMonitor.enabled" .Values.monitoring.serviceMonitor.enabled "monitoring.prometheusRule.enabled" .Values.monitoring.prometheusRule.enabled }}
{{- if $used }}
{{ $field }}: a job serves nobody; remove it, or set kind: deployment
{{- end }}
{{- end }}
{{- if and (not .Values.job.args) (not .Values.command) }}
job.args: the job has nothing to run; give the arguments of python -m {{ include "service.package" . }}, or command
{{- end }}
{{- else if or .Values.job.args .Values.job.schedule }}
job: kind is deployment, which runs no job; remove it, or set kind: job
{{- end }}
{{- end }}

{{- define "service.validate.production" -}}
{{- $values := .Values }}
{{- $where := $values.environment }}
{{- if has $where (list "staging" "production") }}
{{- $tag := $values.image.tag }}
{{- if not $values.image.digest }}
{{- if or (not $tag) (has $tag (list "latest" "main" "master" "dev" "edge" "nightly" "stable" "local" "snapshot")) }}
image.tag: {{ $tag | default "none" | quote }} may be another image tomorrow; in {{ $where }} give the tag of one build, or image.digest
{{- end }}
{{- end }}
{{- if and $values.database.enabled $values.networkPolicy.enabled (not $values.networkPolicy.database.cidrs) (not $values.networkPolicy.extraEgress) }}
networkPolicy.database.cidrs: nothing says where the database of {{ $where }} is, and the policy would keep everybody from it; give its address range (or a rule in extraEgress)
{{- end }}
{{- if and $values.valkey.enabled $values.networkPolicy.enabled (not $values.networkPolicy.valkey.cidrs) (not $values.networkPolicy.extraEgress) }}
networkPolicy.valkey.cidrs: nothing says where the Valkey of {{ $where }} is, and the policy would keep everybody from it; give its address range (or a rule in extraEgress)
{{- end }}
{{- $host := (urlParse $values.issuer).hostname }}
{{- if or (has $host (list "localhost" "127.0.0.1" "0.0.0.0")) (hasSuffix ".localhost" $host) }}
issuer: {{ $values.issuer }} is nobody's public URL; in {{ $where }} give the gateway's
{{- end }}
{{- end }}
{{- if eq $where "production" }}
{{- if not (hasPrefix "https://" $values.issuer) }}
issuer: {{ $values.issuer }} is not https; in production clients send passwords and tokens there
{{- end }}
{{- if $values.seed.enabled }}
seed.enabled: example data has no place in production; set it to false
{{- end }}
{{- if and $values.database.enabled (not $values.checkSecrets) (not $values.database.secretName) }}
database.secretName: production with checkSecrets: false must name the Secret of its database; set it, or checkSecrets: true
{{- end }}
{{- if not $values.security.readOnlyRootFilesystem }}
security.readOnlyRootFilesystem: false is for the development loop; in production set it to true
{{- end }}
{{- if not $values.networkPolicy.enabled }}
networkPolicy.enabled: production does without no policy; set it to true
{{- end }}
{{- if and (eq $values.kind "deployment") (lt (include "service.replicas" . | int) 2) }}
{{ ternary "replicas" "autoscaling.minReplicas" (hasKey $values "replicas") }}: fewer than 2 pods leave nobody to serve while a node is drained; in production use at least 2
{{- end }}
{{- end }}
{{- end }}

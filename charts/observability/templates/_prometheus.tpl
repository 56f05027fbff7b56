{{- /*
prometheus.yml. A service is found by its pod's labels and port names, so that a new one needs nothing
here: every container port named http or metrics of a pod of this platform is asked for /metrics, the
gateway's port status for /stats/prometheus.
*/ -}}
{{- define "observability.prometheus" -}}
{{- $own := .Values.prometheus -}}
global:
  scrape_interval: {{ $own.scrapeIntervalSeconds }}s
  scrape_timeout: {{ min 10 $own.scrapeIntervalSeconds }}s
  evaluation_interval: 30s
  {{- with $own.externalLabels }}
  external_labels: {{- toYaml . | nindent 4 }}
  {{- end }}
rule_files: [/etc/prometheus/rules/*.yaml]
{{- if include "observability.runs" (list . "alertmanager") }}
alerting:
  alertmanagers:
    - static_configs: [{targets: ["alertmanager:9093"]}]
{{- end }}
storage:
  tsdb:
    out_of_order_time_window: {{ $own.outOfOrderMinutes }}m
    # Whichever comes first; the rest of the volume is for compaction.
    retention: {time: {{ $own.retentionDays }}d, size: {{ div (mul $own.storage.mebibytes 4) 5 }}MB}
  exemplars: {max_exemplars: {{ $own.maxExemplars | int64 }}}
otlp:
  # job and instance come from service.name and service.instance.id; these say where and which build.
  promote_resource_attributes: [k8s.namespace.name, k8s.pod.name, service.version, deployment.environment.name]
scrape_configs:
  - job_name: slipway
    kubernetes_sd_configs:
      - role: pod
        {{- if not $own.clusterWide }}
        namespaces: {names: {{ prepend $own.namespaces .Release.Namespace | toJson }}}
        {{- end }}
        selectors: [{role: pod, label: app.kubernetes.io/part-of=slipway}]
    relabel_configs:
      - {source_labels: [__meta_kubernetes_pod_phase], regex: Failed|Succeeded, action: drop}
      - {source_labels: [__meta_kubernetes_pod_container_init], regex: "true", action: drop}
      # The gateway's public port is for its clients.
      - source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_component, __meta_kubernetes_pod_container_port_name]
        regex: gateway;http
        action: drop
      - source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_component, __meta_kubernetes_pod_container_port_name]
        regex: gateway;status|[^;]*;(http|metrics|span-metrics)
        action: keep
      - source_labels: [__meta_kubernetes_pod_container_port_name]
        regex: status
        target_label: __metrics_path__
        replacement: /stats/prometheus
      - {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_name], target_label: job}
      - {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
      - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
  {{- with $own.kubeStateMetrics | default (ternary "kube-state-metrics:8080" "" (has "kube-state-metrics" (include "observability.components" . | fromJsonArray))) }}
  - job_name: kube-state-metrics
    honor_labels: true # namespace and pod are those of what it counts
    static_configs: [{targets: [{{ . | quote }}]}]
  {{- end }}
  {{- if or $own.clusterWide $own.cadvisor }}
  - job_name: cadvisor
    scheme: https
    metrics_path: /metrics/cadvisor
    authorization: {credentials_file: /var/run/secrets/kubernetes.io/serviceaccount/token}
    # A kubelet's certificate is its own as a rule; the token is for kubelets of this cluster only.
    tls_config: {ca_file: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt, insecure_skip_verify: true}
    kubernetes_sd_configs: [{role: node}]
    relabel_configs:
      - {source_labels: [__meta_kubernetes_node_name], target_label: node}
    metric_relabel_configs:
      - source_labels: [__name__, container]
        regex: container_(cpu_usage_seconds_total|cpu_cfs_periods_total|cpu_cfs_throttled_periods_total|memory_working_set_bytes);.+
        action: keep
      {{- if not $own.clusterWide }}
      - source_labels: [namespace]
        regex: {{ prepend $own.namespaces .Release.Namespace | join "|" }}
        action: keep
      {{- end }}
  {{- end }}
  {{- with $own.scrapeConfigs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

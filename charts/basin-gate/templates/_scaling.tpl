{{- /* Takes (root, component, budget). */ -}}
{{- define "basin-gate.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "basin-gate.fullname" .root }}-{{ .component }}
  labels: {{ include "basin-gate.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .budget.maxUnavailable }}
  # A pod that is not ready serves nobody: it does not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{ include "basin-gate.selector" . | nindent 6 }}
{{- end -}}

{{- /* Takes (root, component, autoscaling). */ -}}
{{- define "basin-gate.cpuAutoscaler" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "basin-gate.fullname" .root }}-{{ .component }}
  labels: {{ include "basin-gate.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "basin-gate.fullname" .root }}-{{ .component }}}
  minReplicas: {{ max 1 (int .autoscaling.minReplicas) }}
  maxReplicas: {{ .autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ .autoscaling.targetCpuUtilization }}}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 600}
{{- end -}}

{{- /* Scales a worker on the jobs that wait and run, as the API counts them: a running job holds its pod.
       Takes (root, component, queue, autoscaling). */ -}}
{{- define "basin-gate.scaledObject" -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ include "basin-gate.fullname" .root }}-{{ .component }}
  labels: {{ include "basin-gate.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {name: {{ include "basin-gate.fullname" .root }}-{{ .component }}}
  pollingInterval: 15
  cooldownPeriod: {{ .autoscaling.cooldownSeconds }}
  minReplicaCount: {{ .autoscaling.minReplicas }}
  maxReplicaCount: {{ .autoscaling.maxReplicas }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown:
          stabilizationWindowSeconds: {{ .autoscaling.cooldownSeconds }}
          policies:
            - {type: Pods, value: 1, periodSeconds: 60}
  {{- include "basin-gate.backlogTrigger" (merge (dict "metricType" "AverageValue") .) | nindent 2 }}
{{- end -}}

{{- /* The jobs that wait and run, as the API counts them. Takes (root, queue, autoscaling, metricType). */ -}}
{{- define "basin-gate.backlogTrigger" -}}
triggers:
  - type: metrics-api
    {{- with .metricType }}
    metricType: {{ . }}
    {{- end }}
    metadata:
      url: http://{{ include "basin-gate.fullname" .root }}-api.{{ .root.Release.Namespace }}.svc:{{ .root.Values.api.port }}/v1/backlog
      format: json
      valueLocation: {{ .queue }}.load
      targetValue: {{ .autoscaling.jobsPerReplica | quote }}
      {{- if .root.Values.access.existingSecret }}
      authMode: bearer
    authenticationRef: {name: {{ include "basin-gate.fullname" .root }}-backlog}
      {{- end }}
{{- end -}}

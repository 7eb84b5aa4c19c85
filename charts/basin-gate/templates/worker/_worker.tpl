{{- /* The pod of a worker. One that KEDA starts for work (kedaJob) ends by itself; the lease in the ledger tells whether it
       lives. Takes what basin-gate.worker takes. */ -}}
{{- define "basin-gate.workerPod" -}}
{{- $given := merge (dict "usesState" true) . -}}
{{- $gpus := int (dig "gpu" "count" 0 .values) -}}
{{- $job := eq .values.autoscaling.kind "kedaJob" -}}
metadata:
  labels: {{ include "basin-gate.podLabels" $given | nindent 4 }}
  annotations:
    {{- include "basin-gate.podAnnotations" .root | nindent 4 }}
    # A job is handed on when its pod has to go; it is not taken from its node to save a few cents.
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
spec:
  {{- include "basin-gate.podSpec" $given | nindent 2 }}
  # On SIGTERM the job may go on for stopGraceSeconds; then it is handed back, for which a minute is enough.
  terminationGracePeriodSeconds: {{ add 60 (int .root.Values.workers.stopGraceSeconds) }}
  {{- if $job }}
  restartPolicy: Never
  {{- end }}
  containers:
    - name: worker
      image: {{ include "basin-gate.image" (dict "root" .root "image" .values.image) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [worker, {{ .queues | quote }}{{ if $job }}, --until-idle, {{ .values.autoscaling.idleSeconds | quote }}{{ end }}]
      {{- include "basin-gate.env" .root | nindent 6 }}
        - name: GATE_DEVICE
          value: {{ include "basin-gate.devices" $gpus }}
        - name: GATE_STOP_GRACE_S
          value: {{ .root.Values.workers.stopGraceSeconds | quote }}
        {{- if not $job }}
        - name: GATE_METRICS_PORT
          value: {{ .root.Values.metrics.port | quote }}
        - name: GATE_HEARTBEAT_FILE
          value: /tmp/heartbeat
        {{- end }}
        {{- if has "signingKey" .keys }}
        - name: GATE_SIGNING_KEY_FILE
          value: /etc/basin-gate/keys/{{ .root.Values.keys.signingKey }}
        {{- end }}
      {{- if not $job }}
      ports:
        - {name: metrics, containerPort: {{ .root.Values.metrics.port }}}
      startupProbe:
        exec: {command: [test, -f, /tmp/heartbeat]}
        periodSeconds: 5
        timeoutSeconds: 10
        failureThreshold: 120
      livenessProbe: {{ include "basin-gate.heartbeatProbe" . | nindent 8 }}
      {{- end }}
      resources: {{ include "basin-gate.workerResources" . | nindent 8 }}
      {{- include "basin-gate.containerSecurity" . | nindent 6 }}
      volumeMounts: {{ include "basin-gate.mounts" $given | nindent 8 }}
        {{- with .values.shmSize }}
        - {name: shm, mountPath: /dev/shm}
        {{- end }}
  volumes: {{ include "basin-gate.volumes" $given | nindent 4 }}
    {{- with .values.shmSize }}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ . }}}
    {{- end }}
{{- end -}}

{{- /* One kind of workers and what scales it. Takes (root, component, queue: what it scales on, queues: what it serves,
       values, keys). */ -}}
{{- define "basin-gate.worker" -}}
{{- $given := merge (dict "usesState" true) . -}}
{{- if eq .values.autoscaling.kind "kedaJob" -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata:
  name: {{ include "basin-gate.fullname" .root }}-{{ .component }}
  labels: {{ include "basin-gate.labels" $given | nindent 4 }}
spec:
  jobTargetRef:
    # Whatever became of a pod: as long as there is work, KEDA starts another.
    backoffLimit: 0
    template: {{ include "basin-gate.workerPod" . | nindent 6 }}
  pollingInterval: 15
  minReplicaCount: {{ .values.autoscaling.minReplicas }}
  maxReplicaCount: {{ .values.autoscaling.maxReplicas }}
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 5
  # A pod at work is not ended by an upgrade.
  rollout: {strategy: gradual}
  scalingStrategy: {strategy: default}
  {{- include "basin-gate.backlogTrigger" (dict "root" .root "queue" .queue "autoscaling" .values.autoscaling) | nindent 2 }}
{{- else -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "basin-gate.fullname" .root }}-{{ .component }}
  labels: {{ include "basin-gate.labels" $given | nindent 4 }}
spec:
  {{- if eq .values.autoscaling.kind "none" }}
  replicas: {{ .values.replicas }}
  {{- end }}
  selector:
    matchLabels: {{ include "basin-gate.selector" $given | nindent 6 }}
  strategy:
    # Nobody has a spare GPU for a roll-out; the ledger keeps what waits meanwhile.
    rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
  template: {{ include "basin-gate.workerPod" . | nindent 4 }}
{{- end }}
{{- if eq .values.autoscaling.kind "hpa" }}
---
{{ include "basin-gate.cpuAutoscaler" (dict "root" .root "component" .component "autoscaling" .values.autoscaling) }}
{{- else if eq .values.autoscaling.kind "keda" }}
---
{{ include "basin-gate.scaledObject" (dict "root" .root "component" .component "queue" .queue "autoscaling" .values.autoscaling) }}
{{- end }}
{{- end -}}

{{- /* The devices of a pod with so many GPUs, as torch names them. */ -}}
{{- define "basin-gate.devices" -}}
{{- $names := list -}}
{{- range until . -}}{{- $names = append $names (printf "cuda:%d" .) -}}{{- end -}}
{{- default "cpu" (join "," $names) | quote -}}
{{- end -}}

{{- /* Requests and limits, the GPUs as a limit alone: they cannot be overcommitted. */ -}}
{{- define "basin-gate.workerResources" -}}
{{- $resources := deepCopy .values.resources -}}
{{- $gpus := int (dig "gpu" "count" 0 .values) -}}
{{- if gt $gpus 0 -}}
{{- $_ := set $resources "limits" (merge (dict .values.gpu.resource $gpus) (default dict $resources.limits)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

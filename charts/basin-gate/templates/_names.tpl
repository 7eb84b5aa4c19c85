{{- define "basin-gate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What selects pods never changes; the rest of the labels may. Takes (root, component). */ -}}
{{- define "basin-gate.selector" -}}
app.kubernetes.io/name: basin-gate
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "basin-gate.labels" -}}
{{ include "basin-gate.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "basin-gate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "basin-gate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* Takes (root, image). */ -}}
{{- define "basin-gate.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "basin-gate.publicUrl" -}}
{{- default (printf "http://%s-api.%s.svc:%v" (include "basin-gate.fullname" .) .Release.Namespace .Values.api.port) .Values.publicUrl -}}
{{- end -}}

{{- define "basin-gate.hasDatabase" -}}
{{- if or .Values.database.url .Values.database.existingSecret }}true{{ end -}}
{{- end -}}

{{- /* Pods that share a volume which one node alone can mount, or a SQLite file, must run on one node. */ -}}
{{- define "basin-gate.oneNode" -}}
{{- if not (and (include "basin-gate.hasDatabase" .) (or .Values.state.existingClaim (has "ReadWriteMany" .Values.state.accessModes))) }}true{{ end -}}
{{- end -}}

{{- /* A GPU class: the CPU worker's common parts, then what the class says. Takes (root, class). */ -}}
{{- define "basin-gate.gpuClass" -}}
{{- $common := dict
      "image" .root.Values.image.worker
      "gpu" (dict "resource" "nvidia.com/gpu" "count" 1)
      "autoscaling" (dict "kind" "none" "minReplicas" 0 "maxReplicas" 1 "jobsPerReplica" 1 "cooldownSeconds" 900 "idleSeconds" 120 "targetCpuUtilization" 80)
      "shmSize" "1Gi"
      "replicas" 1
      "tolerations" list -}}
{{- toYaml (mergeOverwrite (deepCopy $common) (deepCopy .class)) -}}
{{- end -}}

{{- /* The sizes of all GPU classes, as GATE_GPU_MEMORY_GB takes them; nothing where they share one queue. */ -}}
{{- define "basin-gate.gpuSizes" -}}
{{- $sizes := list -}}
{{- range .Values.workers.gpu }}{{ with . }}{{ with .memoryGB }}{{ $sizes = append $sizes (int . | toString) }}{{ end }}{{ end }}{{ end -}}
{{- join "," (uniq $sizes) -}}
{{- end -}}

{{- /* The queue that a GPU class scales on. Takes the class. */ -}}
{{- define "basin-gate.gpuQueue" -}}
gpu{{ with .memoryGB }}-{{ int . }}{{ end }}
{{- end -}}

{{- /* The queues that a GPU class serves, its own first. Takes (root, class). */ -}}
{{- define "basin-gate.gpuQueues" -}}
{{- $class := .class -}}
{{- $queues := list (include "basin-gate.gpuQueue" $class) -}}
{{- if $class.takesSmaller -}}
{{- range .root.Values.workers.gpu }}{{ with . }}{{ if lt (int .memoryGB) (int $class.memoryGB) }}{{ $queues = append $queues (include "basin-gate.gpuQueue" .) }}{{ end }}{{ end }}{{ end -}}
{{- end -}}
{{- join "," (uniq $queues) -}}
{{- end -}}

{{- /* The ports that pods may connect to anywhere: those of the values, and what the values' own addresses name. */ -}}
{{- define "basin-gate.egressPorts" -}}
{{- $ports := .Values.networkPolicy.egressPorts -}}
{{- range compact (list .Values.tracing.endpoint .Values.access.oidc.issuer) -}}
{{- $parsed := urlParse . -}}
{{- $named := regexFind ":[0-9]+$" $parsed.host | trimPrefix ":" -}}
{{- $ports = append $ports (default (ternary 443 80 (eq $parsed.scheme "https")) $named | int) -}}
{{- end -}}
{{- if .Values.redis.sentinel.master -}}
{{- $ports = append $ports 26379 -}}
{{- end -}}
{{- toYaml (uniq $ports) -}}
{{- end -}}

{{- /* What GATE_SIGSTORE is: an instance's name, or where the configuration of one is mounted; empty where there is none. */ -}}
{{- define "basin-gate.sigstore" -}}
{{- with .Values.sigstore -}}
{{- if .trustConfigMap -}}
/etc/basin-gate/sigstore/{{ .key }}
{{- else -}}
{{ .instance }}
{{- end -}}
{{- end -}}
{{- end -}}

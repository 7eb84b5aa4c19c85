{{- /* The pod's part of every workload. Takes (root, component, values, usesState). */ -}}
{{- define "basin-gate.podSpec" -}}
serviceAccountName: {{ include "basin-gate.serviceAccount" .root }}
automountServiceAccountToken: false
{{- /* A release called "gate" would otherwise be given variables that look like settings. */}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- if .values.affinity }}
affinity: {{ toYaml .values.affinity | nindent 2 }}
{{- else if and .usesState (include "basin-gate.oneNode" .root) }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            app.kubernetes.io/instance: {{ .root.Release.Name }}
            basin-gate.dev/state: shared
{{- end }}
{{- end -}}

{{- define "basin-gate.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Labels of a pod. Takes (root, component, usesState). */ -}}
{{- define "basin-gate.podLabels" -}}
{{ include "basin-gate.labels" . }}
{{- if .usesState }}
basin-gate.dev/state: shared
{{- end }}
{{- end -}}

{{- /* A pod is replaced when what it read at its start has changed. */ -}}
{{- define "basin-gate.podAnnotations" -}}
checksum/settings: {{ include (print $.Template.BasePath "/settings.yaml") . | sha256sum }}
checksum/policies: {{ toJson .Values.policies | sha256sum }}
checksum/suites: {{ toJson .Values.suites | sha256sum }}
{{- end -}}

{{- define "basin-gate.env" -}}
envFrom:
  - configMapRef: {name: {{ include "basin-gate.fullname" . }}-settings}
env:
  {{- if .Values.database.existingSecret }}
  - name: GATE_DATABASE_URL
    valueFrom: {secretKeyRef: {name: {{ .Values.database.existingSecret }}, key: {{ .Values.database.key }}}}
  {{- end }}
  {{- if .Values.redis.bundled.enabled }}
  - name: VALKEY_PASSWORD
    valueFrom: {secretKeyRef: {name: {{ .Values.keys.existingSecret }}, key: {{ .Values.redis.bundled.passwordKey }}}}
  - name: GATE_BROKER_URL
    value: redis://:$(VALKEY_PASSWORD)@{{ include "basin-gate.fullname" . }}-valkey:6379/0
  {{- else if .Values.redis.existingSecret }}
  - name: GATE_BROKER_URL
    valueFrom: {secretKeyRef: {name: {{ .Values.redis.existingSecret }}, key: {{ .Values.redis.key }}}}
  {{- end }}
  {{- with .Values.redis.sentinel.existingSecret }}
  - name: GATE_BROKER_SENTINEL_PASSWORD
    valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $.Values.redis.sentinel.key }}}}
  {{- end }}
  {{- with .Values.tracing.existingSecret }}
  - name: OTEL_EXPORTER_OTLP_HEADERS
    valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $.Values.tracing.key }}}}
  {{- end }}
  {{- with .Values.mlflow.existingSecret }}
  {{- range $variable, $key := dict "MLFLOW_TRACKING_USERNAME" "username" "MLFLOW_TRACKING_PASSWORD" "password" "MLFLOW_TRACKING_TOKEN" "token" }}
  - name: {{ $variable }}
    valueFrom: {secretKeyRef: {name: {{ $.Values.mlflow.existingSecret }}, key: {{ $key }}, optional: true}}
  {{- end }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* Mounts of a container. Takes (root, usesState, keys: which entries of the keys' secret it is given,
       access: which entry of the access secret, if any; channels: whether it is given those of the notifications). */ -}}
{{- define "basin-gate.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: state, mountPath: /var/lib/basin-gate}
{{- with .keys }}
- {name: keys, mountPath: /etc/basin-gate/keys, readOnly: true}
{{- end }}
{{- if and (has "signingKey" .keys) (include "basin-gate.sigstore" .root) }}
- {name: sigstore-token, mountPath: /var/run/basin-gate/sigstore, readOnly: true}
{{- if .root.Values.sigstore.trustConfigMap }}
- {name: sigstore-trust, mountPath: /etc/basin-gate/sigstore, readOnly: true}
{{- end }}
{{- end }}
{{- if and .access .root.Values.access.existingSecret }}
- {name: access, mountPath: /etc/basin-gate/access, readOnly: true}
{{- end }}
{{- if and .channels .root.Values.notifications.existingSecret }}
- {name: channels, mountPath: /etc/basin-gate/channels, readOnly: true}
{{- end }}
{{- if .root.Values.policies }}
- {name: policies, mountPath: /etc/basin-gate/policies, readOnly: true}
{{- end }}
{{- range $name, $_ := .root.Values.suites }}
- {name: suite-{{ $name }}, mountPath: /etc/basin-gate/suites/{{ $name }}, readOnly: true}
{{- end }}
{{- if .root.Values.redis.tls.caSecret }}
- {name: redis-ca, mountPath: /etc/basin-gate/redis-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "basin-gate.volumes" -}}
- name: tmp
  emptyDir: {}
- name: state
  {{- if .usesState }}
  persistentVolumeClaim: {claimName: {{ default (printf "%s-state" (include "basin-gate.fullname" .root)) .root.Values.state.existingClaim }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- if .keys }}
- name: keys
  secret:
    secretName: {{ .root.Values.keys.existingSecret }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - {key: {{ index $.root.Values.keys . }}, path: {{ index $.root.Values.keys . }}}
      {{- end }}
{{- end }}
{{- if and (has "signingKey" .keys) (include "basin-gate.sigstore" .root) }}
- name: sigstore-token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, audience: {{ .root.Values.sigstore.audience | quote }}, expirationSeconds: 3600}
{{- with .root.Values.sigstore.trustConfigMap }}
- name: sigstore-trust
  configMap: {name: {{ . }}}
{{- end }}
{{- end }}
{{- if and .access .root.Values.access.existingSecret }}
- name: access
  secret:
    secretName: {{ .root.Values.access.existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ index .root.Values.access .access }}, path: {{ index .root.Values.access .access }}}
{{- end }}
{{- if .channels }}
{{- with .root.Values.notifications }}
{{- if .existingSecret }}
- name: channels
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .key }}, path: {{ .key }}}
{{- end }}
{{- end }}
{{- end }}
{{- if .root.Values.policies }}
- name: policies
  configMap: {name: {{ include "basin-gate.fullname" .root }}-policies}
{{- end }}
{{- range $name, $_ := .root.Values.suites }}
- name: suite-{{ $name }}
  configMap: {name: {{ include "basin-gate.fullname" $.root }}-suite-{{ $name }}}
{{- end }}
{{- with .root.Values.redis.tls.caSecret }}
- name: redis-ca
  secret: {secretName: {{ . }}}
{{- end }}
{{- end -}}

{{- /* Who may ask the API that this container serves. */ -}}
{{- define "basin-gate.accessEnv" -}}
{{- if .Values.access.open -}}
- name: GATE_API_OPEN
  value: "true"
{{- else -}}
- name: GATE_TOKENS_FILE
  value: /etc/basin-gate/access/{{ .Values.access.tokens }}
{{- end }}
{{- with .Values.access.oidc }}
{{- if .issuer }}
- name: GATE_OIDC_ISSUER
  value: {{ .issuer | quote }}
- name: GATE_OIDC_AUDIENCE
  value: {{ .audience | quote }}
- name: GATE_OIDC_ROLES_CLAIM
  value: {{ .rolesClaim | quote }}
- name: GATE_OIDC_ROLES
  value: {{ $words := list }}{{ range $word, $role := .roles }}{{ $words = append $words (printf "%s=%s" $word $role) }}{{ end }}{{ join "," $words | quote }}
- name: GATE_OIDC_NAME_CLAIM
  value: {{ .nameClaim | quote }}
- name: GATE_OIDC_LEEWAY_S
  value: {{ .leewaySeconds | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Alive while the file that the loop touches is young. */ -}}
{{- define "basin-gate.heartbeatProbe" -}}
exec:
  command: [sh, -c, 'find /tmp/heartbeat -mmin -10 | grep -q .']
initialDelaySeconds: 120
periodSeconds: 60
timeoutSeconds: 10
failureThreshold: 3
{{- end -}}

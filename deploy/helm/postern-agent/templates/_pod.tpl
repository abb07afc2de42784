{{/* Settings that come as environment variables.  A list of dicts is made first: its names are what container.extraEnv may not use.
Input: dict "root" and "suffix" (of the Secrets that the chart makes). */}}
{{- define "postern-agent.env" -}}
{{- $v := .root.Values }}
{{- $name := include "postern-agent.fullname" .root }}
{{- $env := list
	(dict "name" "POSTERN_GATEWAY_URL" "value" $v.container.backendServiceUrl)
	(dict "name" "POSTERN_TOKEN_FILE" "value" "/etc/secrets/postern-agent-token/contents.json")
	(dict "name" "POSTERN_LISTEN" "value" (printf "%s:%d" $v.container.listenAddress (int $v.container.port)))
	(dict "name" "POSTERN_SLOTS" "value" (toString $v.container.opsRunnerThreadCount))
	(dict "name" "POSTERN_PUBLISHERS" "value" (toString $v.container.publisherThreadCount))
	(dict "name" "POSTERN_SPOOL_DIR" "value" "/var/lib/postern/spool")
	(dict "name" "POSTERN_SPOOL_MAX_BYTES" "value" (include "postern-agent.spoolMaxBytes" .root))
	(dict "name" "POSTERN_STOP_ACTION" "value" $v.stop.action)
	(dict "name" "POSTERN_STOP_TIMEOUT" "value" (printf "%ds" (int64 $v.stop.timeoutSeconds)))
	(dict "name" "POSTERN_TERMINATION_GRACE_SECONDS" "value" (include "postern-agent.graceSeconds" .root))
	(dict "name" "POSTERN_LOG_FORMAT" "value" $v.logFormat)
	(dict "name" "POSTERN_LOG_LEVEL" "value" $v.logLevel)
	(dict "name" "POSTERN_SHIP_LOGS" "value" $v.shipLogs) }}
{{- if include "postern-agent.hasCa" .root }}
{{- $env = append $env (dict "name" "POSTERN_CA_FILE" "value" "/etc/postern/ca/ca.crt") }}
{{- end }}
{{- with $v.container }}
{{- if .storageType }}
{{- $env = append $env (dict "name" "POSTERN_STORAGE" "value" .storageType) }}
{{- range $key, $value := dict "BUCKET_NAME" .storageBucketName "ACCOUNT_NAME" .storageAccountName "ENDPOINT_URL" .storageEndpointUrl
	"REGION" .storageRegion "PREFIX" .storagePrefix }}
{{- if $value }}
{{- $env = append $env (dict "name" (printf "POSTERN_STORAGE_%s" $key) "value" $value) }}
{{- end }}
{{- end }}
{{- if or .storageAccessKey .storageExistingSecret.name }}
{{- $env = append $env (dict "name" "POSTERN_STORAGE_ACCESS_KEY_FILE" "value" "/etc/secrets/postern-storage/access-key") }}
{{- end }}
{{- if or .storageSecretKey (and .storageExistingSecret.name (ne .storageType "AZURE_BLOB")) }}
{{- $env = append $env (dict "name" "POSTERN_STORAGE_SECRET_KEY_FILE" "value" "/etc/secrets/postern-storage/secret-key") }}
{{- end }}
{{- end }}
{{- end }}
{{- with $v.proxy }}
{{- if .existingSecret.name }}
{{- $ref := dict "name" .existingSecret.name "key" .existingSecret.httpsProxyKey "optional" true }}
{{- $env = append $env (dict "name" "HTTPS_PROXY" "valueFrom" (dict "secretKeyRef" $ref)) }}
{{- $ref = dict "name" .existingSecret.name "key" .existingSecret.httpProxyKey "optional" true }}
{{- $env = append $env (dict "name" "HTTP_PROXY" "valueFrom" (dict "secretKeyRef" $ref)) }}
{{- else }}
{{- $secret := include "postern-agent.makesProxySecret" $.root }}
{{- range $key, $value := dict "HTTPS_PROXY" .httpsProxy "HTTP_PROXY" .httpProxy }}
{{- if and $value $secret }}
{{- $ref := dict "name" (printf "%s-proxy%s" $name $.suffix) "key" $key }}
{{- $env = append $env (dict "name" $key "valueFrom" (dict "secretKeyRef" $ref)) }}
{{- else if $value }}
{{- $env = append $env (dict "name" $key "value" $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- if or .httpsProxy .httpProxy .existingSecret.name }}
{{- $env = append $env (dict "name" "NO_PROXY" "value" (include "postern-agent.noProxy" $.root)) }}
{{- end }}
{{- end }}
{{- toYaml $env }}
{{- end }}

{{- define "postern-agent.hasCa" -}}
{{- with .Values.firewallCa }}
{{- if or .cert .externalSecretRef .existingSecret.name .existingConfigMap.name }}true{{ end }}
{{- end }}
{{- end }}

{{/* Volumes and their mounts, one after the other so that they cannot part. */}}
{{- define "postern-agent.mounts" -}}
- name: token
  mountPath: /etc/secrets/postern-agent-token
  readOnly: true
- name: integrations
  mountPath: /etc/secrets/integrations
  readOnly: true
- name: spool
  mountPath: /var/lib/postern/spool
- name: tmp
  mountPath: /tmp
{{- if include "postern-agent.hasCa" . }}
- name: ca
  mountPath: /etc/postern/ca
  readOnly: true
{{- end }}
{{- if or (include "postern-agent.makesStorageSecret" .) .Values.container.storageExistingSecret.name }}
- name: storage
  mountPath: /etc/secrets/postern-storage
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "postern-agent.volumes" -}}
{{- $v := .root.Values }}
{{- $name := include "postern-agent.fullname" .root -}}
- name: token
  secret:
    secretName: {{ $v.tokenSecret.name }}
    items:
      - key: {{ $v.tokenSecret.key }}
        path: contents.json
- name: integrations
  secret:
    secretName: {{ $v.integrationsSecrets.name }}
    optional: true
{{- if or (ne .component "agent") (eq $v.spool.type "emptyDir") }}
- name: spool
  emptyDir:
    sizeLimit: {{ $v.spool.size }}
    {{- with $v.spool.medium }}
    medium: {{ . }}
    {{- end }}
{{- else if eq $v.workload.kind "Deployment" }}
- name: spool
  persistentVolumeClaim:
    claimName: {{ $name }}-spool
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- if include "postern-agent.hasCa" .root }}
{{- with $v.firewallCa }}
- name: ca
  {{- if or .externalSecretRef .existingSecret.name }}
  secret:
    secretName: {{ default (printf "%s-ca" $name) .existingSecret.name }}
    items:
      - key: {{ ternary "ca.crt" .existingSecret.key (empty .existingSecret.name) }}
        path: ca.crt
  {{- else }}
  configMap:
    name: {{ default (printf "%s-ca%s" $name $.suffix) .existingConfigMap.name }}
    items:
      - key: {{ ternary "ca.crt" .existingConfigMap.key (empty .existingConfigMap.name) }}
        path: ca.crt
  {{- end }}
{{- end }}
{{- end }}
{{- with $v.container }}
{{- if include "postern-agent.makesStorageSecret" $.root }}
- name: storage
  secret:
    secretName: {{ $name }}-storage{{ $.suffix }}
{{- else if .storageExistingSecret.name }}
- name: storage
  secret:
    secretName: {{ .storageExistingSecret.name }}
    items:
      - key: {{ .storageExistingSecret.accessKeyKey }}
        path: access-key
      {{- if ne .storageType "AZURE_BLOB" }}
      - key: {{ .storageExistingSecret.secretKeyKey }}
        path: secret-key
      {{- end }}
{{- end }}
{{- end }}
{{- with $v.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "postern-agent.podSecurityContext" -}}
{{- ternary (omit .Values.podSecurityContext "runAsUser" "runAsGroup" "fsGroup" "fsGroupChangePolicy") .Values.podSecurityContext .Values.openshift | toYaml }}
{{- end }}

{{/* No version among them: a new chart with the same pods restarts none. */}}
{{- define "postern-agent.podLabels" -}}
{{ include "postern-agent.releaseLabels" .root }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: postern
{{- if .root.Values.workloadIdentity.azure.clientId }}
azure.workload.identity/use: "true"
{{- end }}
{{- with .root.Values.deploymentTemplateLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The spec of every pod that the chart makes.  Input: dict "root", "component" (agent, check, preflight), "args", "suffix",
"serviceAccount". */}}
{{- define "postern-agent.podSpec" -}}
{{- $v := .root.Values }}
{{- $agent := eq .component "agent" -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: {{ and $agent $v.serviceAccount.automountToken }}
enableServiceLinks: false
{{- if $agent }}
terminationGracePeriodSeconds: {{ include "postern-agent.graceSeconds" .root }}
{{- else }}
terminationGracePeriodSeconds: 5
restartPolicy: Never
{{- end }}
securityContext:
  {{- include "postern-agent.podSecurityContext" .root | nindent 2 }}
{{- with $v.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $v.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $agent }}
topologySpreadConstraints:
  {{- include "postern-agent.spread" .root | nindent 2 }}
{{- end }}
{{- with $v.extraInitContainers }}
initContainers:
  {{- range . }}
  {{- $container := deepCopy . }}
  {{- range $key, $value := dict "securityContext" $v.containerSecurityContext "resources" $v.container.resources }}
  {{- if not (hasKey $container $key) }}
  {{- $_ := set $container $key $value }}
  {{- end }}
  {{- end }}
  - {{ toYaml $container | nindent 4 | trim }}
  {{- end }}
{{- end }}
containers:
  - name: {{ ternary "postern-agent" .component $agent }}
    image: {{ include "postern-agent.image" .root }}
    imagePullPolicy: {{ $v.image.pullPolicy }}
    args: {{ toJson .args }}
    securityContext:
      {{- toYaml $v.containerSecurityContext | nindent 6 }}
    env:
      {{- include "postern-agent.env" . | nindent 6 }}
      {{- with $v.container.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    resources:
      {{- toYaml $v.container.resources | nindent 6 }}
    volumeMounts:
      {{- include "postern-agent.mounts" .root | nindent 6 }}
    {{- if $agent }}
    ports:
      - name: metrics
        containerPort: {{ $v.container.port }}
    startupProbe:
      httpGet:
        path: /livez
        port: metrics
      {{- toYaml $v.probes.startup | nindent 6 }}
    livenessProbe:
      httpGet:
        path: /livez
        port: metrics
      {{- toYaml $v.probes.liveness | nindent 6 }}
    readinessProbe:
      httpGet:
        path: /readyz
        port: metrics
      {{- toYaml $v.probes.readiness | nindent 6 }}
    {{- end }}
volumes:
  {{- include "postern-agent.volumes" . | nindent 2 }}
{{- end }}

{{- define "postern-agent.spread" -}}
{{- $selector := dict "matchLabels" (include "postern-agent.selectorLabels" . | fromYaml) }}
{{- $revision := ternary "pod-template-hash" "controller-revision-hash" (eq .Values.workload.kind "Deployment") }}
{{- $constraints := list }}
{{- range default (list (dict "topologyKey" "topology.kubernetes.io/zone") (dict "topologyKey" "kubernetes.io/hostname")) .Values.topologySpreadConstraints }}
{{- $defaults := dict "maxSkew" 1 "whenUnsatisfiable" "ScheduleAnyway" }}
{{- if not .labelSelector }}
{{- $_ := set $defaults "labelSelector" $selector }}
{{- $_ := set $defaults "matchLabelKeys" (list $revision) }}
{{- end }}
{{- $constraints = append $constraints (merge (deepCopy .) $defaults) }}
{{- end }}
{{- toYaml $constraints }}
{{- end }}

{{- define "postern-agent.podTemplate" -}}
metadata:
  labels:
    app: {{ include "postern-agent.name" . }}
    {{- include "postern-agent.podLabels" (dict "root" . "component" "agent") | nindent 4 }}
  {{- $checksum := include "postern-agent.checksum" . }}
  {{- if or $checksum .Values.podAnnotations }}
  annotations:
    {{- with $checksum }}
    checksum/config: {{ . }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  {{- include "postern-agent.podSpec" (dict "root" . "component" "agent" "args" (list "agent") "suffix" ""
	"serviceAccount" (include "postern-agent.serviceAccountName" .)) | nindent 2 }}
{{- end }}

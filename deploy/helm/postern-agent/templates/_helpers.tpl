{{/* Names and labels. */}}
{{- define "postern-agent.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 45 | trimSuffix "-" }}
{{- end }}

{{- define "postern-agent.fullname" -}}
{{- $name := include "postern-agent.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "postern-agent.namespace" -}}
{{- default .Release.Namespace .Values.namespace }}
{{- end }}

{{- define "postern-agent.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "postern-agent.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "postern-agent.workloadName" -}}
{{- printf "%s-%s" (include "postern-agent.fullname" .) (lower .Values.workload.kind) }}
{{- end }}

{{/* Every pod of a release: what the NetworkPolicy selects. */}}
{{- define "postern-agent.releaseLabels" -}}
app.kubernetes.io/name: {{ include "postern-agent.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The agent's pods.  Immutable in a Deployment: nothing with a version may be here. */}}
{{- define "postern-agent.selectorLabels" -}}
{{ include "postern-agent.releaseLabels" . }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "postern-agent.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "postern-agent.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: postern
{{- end }}

{{- define "postern-agent.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* ConfigMaps and Secrets that the chart makes: what in them, and whether.  The preflight Job has copies of its own, since it runs
before anything is installed. */}}
{{- define "postern-agent.makesStorageSecret" -}}
{{- if or .Values.container.storageAccessKey .Values.container.storageSecretKey }}true{{ end }}
{{- end }}

{{- define "postern-agent.makesProxySecret" -}}
{{- if or (contains "@" .Values.proxy.httpsProxy) (contains "@" .Values.proxy.httpProxy) }}true{{ end }}
{{- end }}

{{- define "postern-agent.storageSecretData" -}}
{{- with .Values.container.storageAccessKey }}
access-key: {{ . | b64enc }}
{{- end }}
{{- with .Values.container.storageSecretKey }}
secret-key: {{ . | b64enc }}
{{- end }}
{{- end }}

{{- define "postern-agent.proxySecretData" -}}
{{- with .Values.proxy.httpsProxy }}
HTTPS_PROXY: {{ . | b64enc }}
{{- end }}
{{- with .Values.proxy.httpProxy }}
HTTP_PROXY: {{ . | b64enc }}
{{- end }}
{{- end }}

{{/* What the agent reads at its start only: a change rolls the pods.  The token and the integrations' credentials are read again. */}}
{{- define "postern-agent.checksum" -}}
{{- $parts := list .Values.firewallCa.cert }}
{{- if include "postern-agent.makesStorageSecret" . }}
{{- $parts = append $parts (include "postern-agent.storageSecretData" .) }}
{{- end }}
{{- if include "postern-agent.makesProxySecret" . }}
{{- $parts = append $parts (include "postern-agent.proxySecretData" .) }}
{{- end }}
{{- if compact $parts }}
{{- join "\n" $parts | sha256sum }}
{{- end }}
{{- end }}

{{/* A quantity of memory or disk in bytes. */}}
{{- define "postern-agent.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $text := ternary (printf "%.0f" .) (toString .) (kindIs "float64" .) }}
{{- $unit := regexFind "[A-Za-z]*$" $text }}
{{- mulf (float64 (trimSuffix $unit $text)) (get $units $unit) | floor | int64 }}
{{- end }}

{{- define "postern-agent.graceSeconds" -}}
{{- with .Values.stop }}
{{- if kindIs "invalid" .terminationGracePeriodSeconds }}
{{- add (int64 .timeoutSeconds) (int64 .marginSeconds) }}
{{- else }}
{{- int64 .terminationGracePeriodSeconds }}
{{- end }}
{{- end }}
{{- end }}

{{/* 80 % of the spool's volume, without the outbox of log lines (64 MiB) that lies below it too. */}}
{{- define "postern-agent.spoolMaxBytes" -}}
{{- sub (div (mul (int64 (include "postern-agent.bytes" .Values.spool.size)) 8) 10) 67108864 }}
{{- end }}

{{- define "postern-agent.gatewayPort" -}}
{{- with urlParse .Values.container.backendServiceUrl }}
{{- $port := regexFind ":[0-9]+$" .host | trimPrefix ":" }}
{{- default (ternary "443" "80" (eq .scheme "https")) $port }}
{{- end }}
{{- end }}

{{/* What is reached without a proxy: this pod, the cluster, the clouds' own credentials. */}}
{{- define "postern-agent.noProxy" -}}
{{- $hosts := list "localhost" "127.0.0.1" "::1" ".svc" (printf ".%s" .Values.clusterDomain) }}
{{- if .Values.workloadIdentity.aws.podIdentity }}
{{- $hosts = concat $hosts (list "169.254.170.23" "fd00:ec2::23") }}
{{- end }}
{{- if .Values.workloadIdentity.gcp.serviceAccountEmail }}
{{- $hosts = concat $hosts (list "169.254.169.254" "metadata.google.internal") }}
{{- end }}
{{- with .Values.proxy.noProxy }}
{{- $hosts = concat $hosts (splitList "," (nospace .)) }}
{{- end }}
{{- join "," (uniq (compact $hosts)) }}
{{- end }}

{{- define "postern-agent.storeName" -}}
{{- default (include "postern-agent.fullname" .) .Values.secretStore.name }}
{{- end }}

{{- define "postern-agent.storeKind" -}}
{{- ternary "SecretStore" .Values.secretStore.kind (not (empty .Values.secretStore.provider)) }}
{{- end }}

{{/* External Secrets before 0.16 knows v1beta1 only. */}}
{{- define "postern-agent.externalSecretsApi" -}}
{{- if and (.Capabilities.APIVersions.Has "external-secrets.io/v1beta1") (not (.Capabilities.APIVersions.Has "external-secrets.io/v1")) }}
{{- "external-secrets.io/v1beta1" }}
{{- else }}
{{- "external-secrets.io/v1" }}
{{- end }}
{{- end }}

{{- define "postern-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- /* The release's name when it holds the chart's, else both. Room is left for suffixes. */ -}}
{{- define "postern-gateway.fullname" -}}
{{- $name := include "postern-gateway.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "postern-gateway.namespace" -}}
{{- default .Release.Namespace .Values.namespace -}}
{{- end }}

{{- define "postern-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "postern-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- /* The pod of `helm test`: outside the Service's selector, inside the network policy's. */ -}}
{{- define "postern-gateway.testLabels" -}}
app.kubernetes.io/name: {{ include "postern-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- /* Of the pod: nothing that changes with the chart's version, so that only real changes restart it. */ -}}
{{- define "postern-gateway.podLabels" -}}
app: {{ include "postern-gateway.name" . }}
{{ include "postern-gateway.selectorLabels" . }}
app.kubernetes.io/part-of: postern
{{- end }}

{{- define "postern-gateway.labels" -}}
{{ include "postern-gateway.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "postern-gateway.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "postern-gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "postern-gateway.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "postern-gateway.ownerSecret" -}}
{{- default (printf "%s-owner-token" (include "postern-gateway.fullname" .)) .Values.ownerToken.existingSecret.name -}}
{{- end }}

{{- define "postern-gateway.claim" -}}
{{- default (printf "%s-data" (include "postern-gateway.fullname" .)) .Values.persistence.existingClaim -}}
{{- end }}

{{- /* Inside the cluster. */ -}}
{{- define "postern-gateway.serviceUrl" -}}
{{ ternary "https" "http" (ne .Values.tls.existingSecret.name "") }}://{{ include "postern-gateway.fullname" . }}.{{ include "postern-gateway.namespace" . }}.svc.{{ .Values.clusterDomain }}:{{ .Values.service.port }}
{{- end }}

{{- define "postern-gateway.publicUrl" -}}
{{- if .Values.container.publicUrl -}}
{{- .Values.container.publicUrl -}}
{{- else if .Values.ingress.enabled -}}
https://{{ .Values.ingress.host }}
{{- end -}}
{{- end }}

{{- define "postern-gateway.stopSeconds" -}}
{{- add .Values.stop.timeoutSeconds .Values.stop.marginSeconds -}}
{{- end }}

{{- /* OpenShift gives each namespace a range of users and groups, and refuses others. */ -}}
{{- define "postern-gateway.podSecurityContext" -}}
{{- $own := deepCopy .Values.podSecurityContext -}}
{{- if .Values.openshift -}}
{{- $own = omit $own "runAsUser" "runAsGroup" "fsGroup" "fsGroupChangePolicy" -}}
{{- end -}}
{{- toYaml $own -}}
{{- end }}

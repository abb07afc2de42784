{{- define "gw.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- /* The release's name when it holds the chart's, else both. Room is left for suffixes. */ -}}
{{- define "gw.fullname" -}}
{{- $name := include "gw.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "gw.namespace" -}}
{{- default .Release.Namespace .Values.namespace -}}
{{- end }}

{{- define "gw.selector" -}}
app.kubernetes.io/name: {{ include "gw.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- /* The pod of `helm test`: outside the Service's selector, inside the network policy's. */ -}}
{{- define "gw.testLabels" -}}
app.kubernetes.io/name: {{ include "gw.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- /* Of the pod: nothing that changes with the chart's version, so that only real changes restart it. */ -}}
{{- define "gw.podLabels" -}}
app: {{ include "gw.name" . }}
{{ include "gw.selector" . }}
app.kubernetes.io/part-of: postern
{{- end }}

{{- define "gw.labels" -}}
{{ include "gw.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "gw.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "gw.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gw.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "gw.ownerSecret" -}}
{{- default (printf "%s-owner-token" (include "gw.fullname" .)) .Values.ownerToken.existingSecret.name -}}
{{- end }}

{{- define "gw.claim" -}}
{{- default (printf "%s-data" (include "gw.fullname" .)) .Values.persistence.existingClaim -}}
{{- end }}

{{- /* Inside the cluster. */ -}}
{{- define "gw.serviceUrl" -}}
{{ ternary "https" "http" (ne .Values.tls.existingSecret.name "") }}://{{ include "gw.fullname" . }}.{{ include "gw.namespace" . }}.svc.{{ .Values.clusterDomain }}:{{ .Values.service.port }}
{{- end }}

{{- define "gw.publicUrl" -}}
{{- if .Values.container.publicUrl -}}
{{- .Values.container.publicUrl -}}
{{- else if .Values.ingress.enabled -}}
https://{{ .Values.ingress.host }}
{{- end -}}
{{- end }}

{{- define "gw.stopSeconds" -}}
{{- add .Values.stop.timeoutSeconds .Values.stop.marginSeconds -}}
{{- end }}

{{- /* OpenShift gives each namespace a range of users and groups, and refuses others. */ -}}
{{- define "gw.podSecurityContext" -}}
{{- $own := deepCopy .Values.podSecurityContext -}}
{{- if .Values.openshift -}}
{{- $own = omit $own "runAsUser" "runAsGroup" "fsGroup" "fsGroupChangePolicy" -}}
{{- end -}}
{{- toYaml $own -}}
{{- end }}

{{- /* What the schema cannot say: contradictions between values. Each message says what to do; all are told at once. */ -}}
{{- define "postern-gateway.validate" -}}
{{- $v := .Values -}}
{{- $e := list -}}
{{- if or (eq $v.database.type "postgresql") $v.database.existingSecret.name -}}
{{- $e = append $e "database: this release of the gateway keeps its state in SQLite only. Set database.type: sqlite and leave database.existingSecret.name empty" -}}
{{- end -}}
{{- if gt (int $v.replicaCount) 1 -}}
{{- $e = append $e (printf "replicaCount %d: a SQLite database belongs to one gateway. Set replicaCount: 1" (int $v.replicaCount)) -}}
{{- end -}}
{{- if and (not $v.persistence.enabled) $v.persistence.existingClaim -}}
{{- $e = append $e "persistence.existingClaim is set, but persistence.enabled is false. Set one of the two" -}}
{{- end -}}
{{- if and $v.tls.existingSecret.caKey (not $v.tls.existingSecret.name) -}}
{{- $e = append $e "tls.existingSecret.caKey is an entry of the Secret tls.existingSecret.name, which is empty. Set both or none" -}}
{{- end -}}
{{- if eq $v.service.type "LoadBalancer" -}}
{{- if not $v.tls.existingSecret.name -}}
{{- $e = append $e "service.type LoadBalancer without TLS would carry tokens and keys in the clear. Set tls.existingSecret.name, or use an ingress" -}}
{{- end -}}
{{- if not $v.service.loadBalancerSourceRanges -}}
{{- $e = append $e "service.type LoadBalancer: say who may connect with service.loadBalancerSourceRanges; [0.0.0.0/0] is anybody" -}}
{{- end -}}
{{- else if $v.service.loadBalancerSourceRanges -}}
{{- $e = append $e (printf "service.loadBalancerSourceRanges does nothing with service.type %s. Set LoadBalancer, or remove the ranges" $v.service.type) -}}
{{- end -}}
{{- if $v.ingress.enabled -}}
{{- if not $v.ingress.host -}}
{{- $e = append $e "ingress.enabled needs ingress.host, the name that agents and clients use" -}}
{{- end -}}
{{- if and (not $v.ingress.tlsSecretName) (not (has $v.ingress.controller (list "alb" "gce"))) -}}
{{- $e = append $e "ingress: without TLS tokens and keys travel in the clear. Set ingress.tlsSecretName (cert-manager can make that Secret)" -}}
{{- end -}}
{{- end -}}
{{- if and $v.serviceMonitor.enabled (not $v.metrics.tokenSecret.name) -}}
{{- $e = append $e "serviceMonitor needs metrics.tokenSecret.name: /metrics asks for the API token of a viewer (postern ctl tokens create --user USER)" -}}
{{- end -}}
{{- with $v.stop.terminationGracePeriodSeconds -}}
{{- if lt (int .) (include "postern-gateway.stopSeconds" $ | int) -}}
{{- $e = append $e (printf "stop.terminationGracePeriodSeconds %d: a stop may take %s s (stop.timeoutSeconds + stop.marginSeconds). Set null, or lower stop.timeoutSeconds" (int .) (include "postern-gateway.stopSeconds" $)) -}}
{{- end -}}
{{- end -}}
{{- $own := list "POSTERN_LISTEN" "POSTERN_DATABASE" "POSTERN_BLOB_DIR" "POSTERN_PUBLIC_URL" "POSTERN_TLS_CERT" "POSTERN_TLS_KEY" "POSTERN_OWNER_TOKEN_FILE" "POSTERN_THREADS" "POSTERN_RETENTION" "POSTERN_LEASE" "POSTERN_LOG_RETENTION" "POSTERN_LOG_MAX_BYTES" "POSTERN_STOP_TIMEOUT" "POSTERN_LOG_LEVEL" "POSTERN_LOG_FORMAT" -}}
{{- range $v.container.extraEnv -}}
{{- if has .name $own -}}
{{- $e = append $e (printf "container.extraEnv: %s is set by a value of its own; use that" .name) -}}
{{- end -}}
{{- end -}}
{{- with $e -}}
{{- fail (printf "\n\nThese values cannot work:\n  - %s\n" (join "\n  - " .)) -}}
{{- end -}}
{{- end }}

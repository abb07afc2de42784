{{/* What the schema cannot say: contradictions, keys of other charts, placeholders, and whatever may hold a secret, since Helm
prints the value that a pattern of the schema refuses.  All problems are told at once. */}}

{{/* Keys of charts that this one takes the place of, and what does their work here. */}}
{{- define "postern-agent.legacyKeys" -}}
logsCollector: the agent sends its log lines itself; set shipLogs, and collect standard output as usual in your cluster
metricsCollector: "the agent serves its own metrics; see service, serviceMonitor and docs/metrics.md"
logShipping: "set shipLogs: off, operations or all"
inProcessLogs: set logLevel and shipLogs
oauthSecret: the agent has one key; give it by tokenSecret
tokenSecret.awsSecretsManager: "give the secret by tokenSecret.remoteRef and secretStore.provider.aws"
service.type: the Service is ClusterIP, for metrics only; nothing connects to an agent
service.loadBalancer: the Service is ClusterIP, for metrics only; nothing connects to an agent
hpa: see autoscaling
runnerSize: set container.resources
runnerSizes: set container.resources
applicationImageTag: set image.tag
cloudProvider: set container.storageType and workloadIdentity
config: give the agent's key by tokenSecret
dpcAgent: "see container, replicaCount, image and stop.timeoutSeconds"
scriptRunner: the agent needs none
agent: "set container.backendServiceUrl, tokenSecret and stop"
{{- end }}

{{/* What each kind of object storage needs, and what it takes besides. The agent has the same table, and would refuse at its start. */}}
{{- define "postern-agent.storageTypes" -}}
S3:
  needs: [storageBucketName]
  takes: [storageEndpointUrl, storageRegion, storagePrefix, storageAccessKey, storageSecretKey]
S3_COMPATIBLE:
  needs: [storageBucketName, storageEndpointUrl, storageAccessKey, storageSecretKey]
  takes: [storageRegion, storagePrefix]
AZURE_BLOB:
  needs: [storageBucketName, storageAccountName]
  takes: [storageEndpointUrl, storagePrefix, storageAccessKey]
GCS:
  needs: [storageBucketName]
  takes: [storageEndpointUrl, storagePrefix, storageAccessKey, storageSecretKey]
DIRECTORY:
  needs: [storageBucketName]
  takes: [storagePrefix]
{{- end }}

{{/* Paths of values that are still placeholders, one a line.  Input: dict "path" and "value". */}}
{{- define "postern-agent.placeholders" -}}
{{- $path := .path }}
{{- if kindIs "map" .value }}
{{- range $key, $value := .value }}
{{- include "postern-agent.placeholders" (dict "path" (printf "%s.%s" $path $key | trimPrefix ".") "value" $value) }}
{{- end }}
{{- else if kindIs "slice" .value }}
{{- range $i, $value := .value }}
{{- include "postern-agent.placeholders" (dict "path" (printf "%s[%d]" $path $i) "value" $value) }}
{{- end }}
{{- else if kindIs "string" .value }}
{{- if and (ne $path "firewallCa.cert") (regexMatch "(?i)<[a-z][^<>]*>|change[-_ ]?me|replace[-_ ]?me|^your[-_]" .value) }}
{{- printf "%s\n" $path }}
{{- end }}
{{- end }}
{{- end }}

{{- define "postern-agent.validate" -}}
{{- $v := .Values }}
{{- $e := list }}

{{- range $key, $instead := include "postern-agent.legacyKeys" . | fromYaml }}
{{- $found := $v }}
{{- range splitList "." $key }}
{{- $found = ternary (get (ternary $found dict (kindIs "map" $found)) .) "" (kindIs "map" $found) }}
{{- end }}
{{- if not (or (kindIs "invalid" $found) (and (kindIs "string" $found) (eq $found ""))) }}
{{- $e = append $e (printf "%s is not known here: %s" $key $instead) }}
{{- end }}
{{- end }}

{{- range splitList "\n" (include "postern-agent.placeholders" (dict "path" "" "value" $v) | trim) }}
{{- if . }}
{{- $e = append $e (printf "%s is still a placeholder: give the real value" .) }}
{{- end }}
{{- end }}

{{- with $v.container }}
{{- if not .backendServiceUrl }}
{{- $e = append $e "container.backendServiceUrl is missing: give the gateway's URL, as https://gateway.example.com" }}
{{- else if not (regexMatch "^https?://[^/?#@\\s]+(/[^?#\\s]*)?$" .backendServiceUrl) }}
{{- if not (contains "<" .backendServiceUrl) }}
{{- $e = append $e "container.backendServiceUrl is no URL of a gateway: it looks like https://gateway.example.com, without user, password, ? or #" }}
{{- end }}
{{- else if hasPrefix "http://" .backendServiceUrl }}
{{- $host := regexReplaceAll ":[0-9]+$" (urlParse .backendServiceUrl).host "" }}
{{- if not (regexMatch (printf "^[a-z0-9-]+$|\\.svc$|\\.svc\\.%s$|^10\\.|^127\\.|^192\\.168\\.|^172\\.(1[6-9]|2[0-9]|3[01])\\." (regexQuoteMeta $v.clusterDomain)) $host) }}
{{- $e = append $e (printf "container.backendServiceUrl: the agent's key would travel in the clear to %s: use https://" $host) }}
{{- end }}
{{- end }}

{{- $c := . }}
{{- range list "storageAccessKey" "storageSecretKey" }}
{{- if regexMatch "^\\s|\\s$" (get $c .) }}
{{- $e = append $e (printf "container.%s begins or ends with a blank or a line break: remove it" .) }}
{{- end }}
{{- end }}
{{- $fields := list "storageBucketName" "storageAccountName" "storageEndpointUrl" "storageRegion" "storagePrefix" "storageAccessKey" "storageSecretKey" }}
{{- $types := include "postern-agent.storageTypes" $ | fromYaml }}
{{- if not .storageType }}
{{- range $fields }}
{{- if get $c . }}
{{- $e = append $e (printf "container.%s does nothing without container.storageType: set it to %s, or remove both" . (keys $types | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- else }}
{{- $type := get $types .storageType }}
{{- $secret := .storageExistingSecret.name }}
{{- range $fields }}
{{- $is := get $c . }}
{{- if and $is (not (has . (concat $type.needs $type.takes))) }}
{{- $e = append $e (printf "container.storageType %s takes no container.%s: remove it" $c.storageType .) }}
{{- end }}
{{- if and (has . $type.needs) (not $is) (not (and $secret (has . (list "storageAccessKey" "storageSecretKey")))) }}
{{- $e = append $e (printf "container.storageType %s needs container.%s%s" $c.storageType . (ternary ", or a Secret with it by container.storageExistingSecret" "" (hasSuffix "Key" .))) }}
{{- end }}
{{- end }}
{{- if and (has "storageSecretKey" $type.takes) (ne (empty .storageAccessKey) (empty .storageSecretKey)) }}
{{- $e = append $e "container.storageAccessKey and container.storageSecretKey go together: give both or none" }}
{{- end }}
{{- if and $secret (or .storageAccessKey .storageSecretKey) }}
{{- $e = append $e "the storage's keys are given twice: remove either container.storageExistingSecret or container.storageAccessKey and storageSecretKey" }}
{{- end }}
{{- if and $secret (not (has "storageAccessKey" (concat $type.needs $type.takes))) }}
{{- $e = append $e (printf "container.storageType %s takes no keys: remove container.storageExistingSecret" .storageType) }}
{{- end }}
{{- end }}

{{- $ours := list "POSTERN_STORAGE_ACCESS_KEY" "POSTERN_STORAGE_SECRET_KEY" }}
{{- range include "postern-agent.env" (dict "root" $ "suffix" "") | fromYamlArray }}
{{- $ours = append $ours .name }}
{{- end }}
{{- $seen := list }}
{{- range .extraEnv }}
{{- if has .name $ours }}
{{- $e = append $e (printf "container.extraEnv: the chart sets %s itself: use the key that it is made from" .name) }}
{{- else if has .name $seen }}
{{- $e = append $e (printf "container.extraEnv has %s twice" .name) }}
{{- end }}
{{- $seen = append $seen .name }}
{{- end }}

{{- $request := dig "requests" "memory" "" .resources }}
{{- $limit := dig "limits" "memory" "" .resources }}
{{- if and $request $limit (gt (int64 (include "postern-agent.bytes" $request)) (int64 (include "postern-agent.bytes" $limit))) }}
{{- $e = append $e (printf "container.resources: the request for memory, %s, is above its limit, %s" (toString $request) (toString $limit)) }}
{{- end }}
{{- $size := int64 (include "postern-agent.bytes" $v.spool.size) }}
{{- if lt $size 268435456 }}
{{- $e = append $e (printf "spool.size %s is too small: give it 256Mi at least" $v.spool.size) }}
{{- end }}
{{- if eq $v.spool.medium "Memory" }}
{{- if and $limit (le (int64 (include "postern-agent.bytes" $limit)) $size) }}
{{- $e = append $e (printf "spool.medium Memory: a full spool of %s would exceed container.resources.limits.memory, %s: raise the limit, or lower spool.size" $v.spool.size (toString $limit)) }}
{{- end }}
{{- else if eq $v.spool.type "emptyDir" }}
{{- with dig "limits" "ephemeral-storage" "" .resources }}
{{- if le (int64 (include "postern-agent.bytes" .)) $size }}
{{- $e = append $e (printf "container.resources.limits.ephemeral-storage, %s, must be above spool.size, %s: the pod would be evicted before the spool is full" (toString .) $v.spool.size) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- if and $v.spool.medium (eq $v.spool.type "pvc") }}
{{- $e = append $e "spool.medium is for spool.type emptyDir: remove one" }}
{{- end }}
{{- if and $v.spool.storageClass (eq $v.spool.type "emptyDir") }}
{{- $e = append $e "spool.storageClass is for spool.type pvc: set that, or remove it" }}
{{- end }}
{{- if and (eq $v.spool.type "pvc") (eq $v.workload.kind "Deployment") (or $v.autoscaling.enabled (gt (int $v.replicaCount) 1)) }}
{{- $e = append $e "spool.type pvc: the pods of a Deployment would share one volume, and a spool belongs to one agent: set workload.kind to StatefulSet, or replicaCount to 1 without autoscaling" }}
{{- end }}

{{- with $v.stop }}
{{- $grace := int64 (include "postern-agent.graceSeconds" $) }}
{{- if lt $grace (add (int64 .timeoutSeconds) (int64 .marginSeconds)) }}
{{- $e = append $e (printf "stop.terminationGracePeriodSeconds %d would kill a stop that takes stop.timeoutSeconds %d + stop.marginSeconds %d: raise it, or lower those" $grace (int64 .timeoutSeconds) (int64 .marginSeconds)) }}
{{- end }}
{{- end }}

{{- with $v.autoscaling }}
{{- if .enabled }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- $e = append $e (printf "autoscaling.minReplicas %d is above autoscaling.maxReplicas %d" (int .minReplicas) (int .maxReplicas)) }}
{{- end }}
{{- if not (or .targetCPUUtilizationPercentage .targetMemoryUtilizationPercentage .backlog.enabled) }}
{{- $e = append $e "autoscaling has nothing to follow: set targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or backlog.enabled" }}
{{- end }}
{{- if and .targetCPUUtilizationPercentage (not (dig "requests" "cpu" "" $v.container.resources)) }}
{{- $e = append $e "autoscaling.targetCPUUtilizationPercentage is a share of container.resources.requests.cpu: set that, or the target to null" }}
{{- end }}
{{- if and .targetMemoryUtilizationPercentage (not (dig "requests" "memory" "" $v.container.resources)) }}
{{- $e = append $e "autoscaling.targetMemoryUtilizationPercentage is a share of container.resources.requests.memory: set that, or the target to null" }}
{{- end }}
{{- if and .keda.enabled .backlog.enabled (not .keda.serverAddress) }}
{{- $e = append $e "autoscaling.keda.serverAddress is missing: give the Prometheus that has the backlog" }}
{{- end }}
{{- $own := or (ne .backlog.metricName "postern_gateway_outstanding_operations") (and .keda.enabled .keda.query) }}
{{- if and .backlog.enabled (not $own) (not (dig "agent" "" (default dict .backlog.selector))) }}
{{- $e = append $e "autoscaling.backlog.selector.agent is missing: the metric has a series for each agent, and this one would scale with the work of all" }}
{{- end }}
{{- else if or .keda.enabled .backlog.enabled }}
{{- $e = append $e "autoscaling.keda and autoscaling.backlog do nothing without autoscaling.enabled: true" }}
{{- end }}
{{- end }}

{{- with $v.podDisruptionBudget }}
{{- $both := not (or (kindIs "invalid" .minAvailable) (kindIs "invalid" .maxUnavailable)) }}
{{- $none := and (kindIs "invalid" .minAvailable) (kindIs "invalid" .maxUnavailable) }}
{{- if and .enabled (or $both $none) }}
{{- $e = append $e "podDisruptionBudget takes either maxUnavailable or minAvailable: set the other to null" }}
{{- end }}
{{- $pods := int (ternary $v.autoscaling.minReplicas $v.replicaCount $v.autoscaling.enabled) }}
{{- if and .enabled (not (kindIs "string" .minAvailable)) (not (kindIs "invalid" .minAvailable)) (ge (int .minAvailable) $pods) }}
{{- $e = append $e (printf "podDisruptionBudget.minAvailable %d of %d pods lets no node be drained: lower it, or use maxUnavailable: 1" (int .minAvailable) $pods) }}
{{- end }}
{{- if and .enabled (has (toString .maxUnavailable) (list "0" "0%")) }}
{{- $e = append $e "podDisruptionBudget.maxUnavailable 0 lets no node be drained: use 1" }}
{{- end }}
{{- end }}

{{- if $v.skipExternalSecrets }}
{{- $given := dict "tokenSecret.remoteRef" $v.tokenSecret.remoteRef "integrationsSecrets.data" $v.integrationsSecrets.data
	"secretStore.provider" $v.secretStore.provider "secretStore.name" $v.secretStore.name "firewallCa.externalSecretRef" $v.firewallCa.externalSecretRef }}
{{- range $key, $value := $given }}
{{- if $value }}
{{- $e = append $e (printf "%s does nothing with skipExternalSecrets: true: remove one of them" $key) }}
{{- end }}
{{- end }}
{{- else }}
{{- if not $v.tokenSecret.remoteRef }}
{{- $e = append $e (printf "the agent's key has no source: set tokenSecret.remoteRef and secretStore for External Secrets, or make the Secret %s yourself and set skipExternalSecrets: true" $v.tokenSecret.name) }}
{{- else if not (or $v.secretStore.provider $v.secretStore.name) }}
{{- $e = append $e "secretStore has neither a provider (the chart makes a store) nor the name of a store that exists" }}
{{- end }}
{{- if and $v.secretStore.provider (ne $v.secretStore.kind "SecretStore") }}
{{- $e = append $e "secretStore.provider makes a SecretStore of this namespace: remove it, and name your ClusterSecretStore, or remove secretStore.kind" }}
{{- end }}
{{- end }}

{{- with $v.firewallCa }}
{{- if gt (len (compact (list .cert (ternary "" "x" (empty .externalSecretRef)) .existingSecret.name .existingConfigMap.name))) 1 }}
{{- $e = append $e "firewallCa is given more than once: keep one of cert, externalSecretRef, existingSecret and existingConfigMap" }}
{{- end }}
{{- end }}

{{- with $v.proxy }}
{{- range $key := list "httpsProxy" "httpProxy" }}
{{- if not (regexMatch "^$|^https?://\\S+$" (get $v.proxy $key)) }}
{{- $e = append $e (printf "proxy.%s is no URL of a proxy: it looks like http://proxy.example.com:3128" $key) }}
{{- end }}
{{- end }}
{{- if and .existingSecret.name (or .httpsProxy .httpProxy) }}
{{- $e = append $e "the proxy is given twice: remove either proxy.existingSecret or proxy.httpsProxy and proxy.httpProxy" }}
{{- end }}
{{- if and .noProxy (not (or .httpsProxy .httpProxy .existingSecret.name)) }}
{{- $e = append $e "proxy.noProxy does nothing without a proxy: set proxy.httpsProxy, or use container.extraEnv for all three" }}
{{- end }}
{{- end }}

{{- with $v.workloadIdentity }}
{{- $clouds := compact (list .aws.irsaRoleArn (ternary "x" "" .aws.podIdentity) .gcp.serviceAccountEmail .azure.clientId) }}
{{- if gt (len $clouds) 1 }}
{{- $e = append $e "workloadIdentity: a pod has one identity: keep one of aws.irsaRoleArn, aws.podIdentity, gcp.serviceAccountEmail and azure.clientId" }}
{{- end }}
{{- if and .azure.tenantId (not .azure.clientId) }}
{{- $e = append $e "workloadIdentity.azure.tenantId needs workloadIdentity.azure.clientId" }}
{{- end }}
{{- if and (not $v.serviceAccount.create) (or .aws.irsaRoleArn .gcp.serviceAccountEmail .azure.clientId) }}
{{- $e = append $e "workloadIdentity is written onto the ServiceAccount, which serviceAccount.create: false leaves alone: annotate yours instead (Azure: set the label by deploymentTemplateLabels), or let the chart make it" }}
{{- end }}
{{- end }}
{{- if and (not $v.serviceAccount.create) (or $v.serviceAccount.annotations) }}
{{- $e = append $e "serviceAccount.annotations does nothing with serviceAccount.create: false" }}
{{- end }}

{{- range $key, $value := $v.deploymentTemplateLabels }}
{{- if has $key (list "app" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component") }}
{{- $e = append $e (printf "deploymentTemplateLabels: pods are selected by %s: use another label" $key) }}
{{- end }}
{{- end }}

{{- with $v.networkPolicy }}
{{- if and .enabled (eq .egress "open") (or .dataSources .proxy.cidrs .proxy.peer .gateway.cidrs .gateway.peer .gateway.ports) }}
{{- $e = append $e "networkPolicy lists what may be reached, but with egress: open everything may: set networkPolicy.egress to listed" }}
{{- end }}
{{- if and .enabled (eq .egress "listed") (or .proxy.cidrs .proxy.peer) (not .proxy.ports) }}
{{- $e = append $e "networkPolicy.proxy.ports is missing" }}
{{- end }}
{{- $cidrs := concat .gateway.cidrs .proxy.cidrs }}
{{- range concat .dns.to .dataSources }}
{{- $cidrs = concat $cidrs (default list .cidrs) }}
{{- end }}
{{- range $cidrs }}
{{- $prefix := splitList "/" . | last | int }}
{{- if or (has . (splitList " " (include "postern-agent.metadataAddresses" $))) (hasPrefix "fd00:ec2:" .) }}
{{- $e = append $e (printf "networkPolicy: %s is a metadata address, which agents must not reach" .) }}
{{- else if and (contains ":" .) (ne . "::/0") (or (lt $prefix 16) (and (hasPrefix "fd00:" .) (le $prefix 32))) }}
{{- $e = append $e (printf "networkPolicy: %s may hold a metadata address: write it narrower, or ::/0" .) }}
{{- end }}
{{- end }}
{{- end }}

{{- if and $v.serviceMonitor.enabled (not $v.service.enabled) }}
{{- $e = append $e "serviceMonitor needs the Service that service.enabled: true makes" }}
{{- end }}

{{- if $v.preflight.enabled }}
{{- if not $v.skipExternalSecrets }}
{{- $e = append $e "preflight runs before External Secrets could make the token: set skipExternalSecrets: true and make it yourself, or leave preflight off and run helm test" }}
{{- end }}
{{- if $v.namespaceCreate }}
{{- $e = append $e "preflight runs before the chart could make the namespace: make it yourself, and set namespaceCreate: false" }}
{{- end }}
{{- if and $v.serviceAccount.create (or $v.workloadIdentity.aws.irsaRoleArn $v.workloadIdentity.aws.podIdentity $v.workloadIdentity.gcp.serviceAccountEmail $v.workloadIdentity.azure.clientId) }}
{{- $e = append $e "preflight runs before the chart could make the ServiceAccount, and would be without workloadIdentity: make it yourself and set serviceAccount.create: false and name, or leave preflight off and run helm test" }}
{{- end }}
{{- end }}

{{- with $e }}
{{- fail (printf "\n\nThese values cannot work:\n  - %s\n" (join "\n  - " .)) }}
{{- end }}
{{- end }}

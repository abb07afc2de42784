{{/* Addresses that hand out the credentials of a node or its cloud: no pod of ours goes there. */}}
{{- define "postern-agent.metadataAddresses" -}}
169.254.169.254/32 168.63.129.16/32 fd00:ec2::254/128
{{- end }}

{{/* An IPv4 address as a number. */}}
{{- define "postern-agent.ip4" -}}
{{- $n := 0 }}
{{- range splitList "." . }}
{{- $n = add (mul $n 256) (int64 .) }}
{{- end }}
{{- $n }}
{{- end }}

{{/* Metadata addresses within a range, as a YAML list.  Of IPv6 ranges only ::/0 can hold one: validation refuses the others. */}}
{{- define "postern-agent.except" -}}
{{- $within := list }}
{{- $parts := splitList "/" . }}
{{- range splitList " " (include "postern-agent.metadataAddresses" .) }}
{{- if contains ":" . }}
{{- if eq (join "/" $parts) "::/0" }}
{{- $within = append $within . }}
{{- end }}
{{- else if not (contains ":" (first $parts)) }}
{{- $size := 1 }}
{{- range until (sub 32 (int (last $parts)) | int) }}
{{- $size = mul $size 2 }}
{{- end }}
{{- $address := include "postern-agent.ip4" (splitList "/" . | first) }}
{{- if eq (div (int64 $address) $size) (div (int64 (include "postern-agent.ip4" (first $parts))) $size) }}
{{- $within = append $within . }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $within }}
{{- end }}

{{/* Peers of one entry: dict with "cidrs", and "podSelector" or "namespaceSelector". */}}
{{- define "postern-agent.peers" -}}
{{- range .cidrs }}
- ipBlock:
    cidr: {{ . | quote }}
    {{- with include "postern-agent.except" . | fromYamlArray }}
    except:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- with pick . "podSelector" "namespaceSelector" }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- end }}

{{- define "postern-agent.ports" -}}
{{- range . }}
- port: {{ . }}
  protocol: TCP
{{- end }}
{{- end }}

{{/* One egress rule: dict "peers" (a list of entries) and "ports". */}}
{{- define "postern-agent.egress" -}}
- to:
    {{- range .peers }}
    {{- include "postern-agent.peers" . | trim | nindent 4 }}
    {{- end }}
  {{- with .ports }}
  ports:
    {{- include "postern-agent.ports" . | trim | nindent 4 }}
  {{- end }}
{{- end }}

#!/bin/sh
# Check a release of Postern's agent in a cluster: first the cluster's side with kubectl, then `postern check` in a pod.
#
# Usage: run-check.sh --namespace NAMESPACE --release RELEASE [options]
#   -n, --namespace NAME   where the agent is, or is to be
#   -r, --release NAME     the Helm release
#   -p, --pod NAME         run `postern check` in this pod; without it, in a running pod of the release
#   -k, --kubeconfig FILE  for kubectl; --context NAME chooses one in it
#       --image IMAGE      the image that should run; a pod made for the check uses it
#   -o, --output FORM      text (default) or json
#       --cluster-only     leave the pod's side out
#
# Without a running pod it makes one from the release's own template, waits for it, and removes it.  Exit code: 0 without a
# FAIL, 1 with one, 64 when the command line is wrong.  It changes nothing else and reads no value of a Secret.
# shellcheck disable=SC2016 # the dollars are those of awk and of kubectl's templates
set -u

namespace='' release='' pod='' kubeconfig='' context='' image='' output=text cluster_only=''
container=postern-agent

usage_error()
{
	echo "run-check.sh: $1 (see --help)" >&2
	exit 64
}

while [ $# -gt 0 ]; do
	case $1 in
	--*=*)
		rest=${1#*=}
		flag=${1%%=*}
		shift
		set -- "$flag" "$rest" "$@"
		continue
		;;
	-h | --help)
		sed -n '2,/^set -u/{/^set -u/d;/shellcheck/d;s/^# \{0,1\}//;p;}' "$0"
		exit 0
		;;
	--cluster-only)
		cluster_only=1
		shift
		continue
		;;
	-n | --namespace | -r | --release | -p | --pod | -k | --kubeconfig | --context | --image | -o | --output)
		[ $# -ge 2 ] || usage_error "$1 needs a value"
		;;
	*) usage_error "there is no '$1'" ;;
	esac
	case $1 in
	-n | --namespace) namespace=$2 ;;
	-r | --release) release=$2 ;;
	-p | --pod) pod=$2 ;;
	-k | --kubeconfig) kubeconfig=$2 ;;
	--context) context=$2 ;;
	--image) image=$2 ;;
	-o | --output) output=$2 ;;
	esac
	shift 2
done
case ${namespace:+n}${release:+r} in
nr) ;;
n) usage_error "--release is missing" ;;
r) usage_error "--namespace is missing" ;;
*) usage_error "--namespace and --release are missing" ;;
esac
case $output in text | json) ;; *) usage_error "--output is text or json, not '$output'" ;; esac

work=$(mktemp -d) || exit 1
made=''
# shellcheck disable=SC2317 # the trap calls it
cleanup()
{
	[ -z "$made" ] || k delete pod "$made" --wait=false --grace-period=1 >/dev/null 2>&1
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
results=$work/results
: >"$results"
: >"$work/images"

k()
{
	kubectl ${kubeconfig:+--kubeconfig "$kubeconfig"} ${context:+--context "$context"} --namespace "$namespace" \
		--request-timeout=20s "$@"
}

# STATUS NAME DETAIL FIX, each one line
say()
{
	printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$(printf %s "$3" | tr '\t\n\r' '   ')" "$(printf %s "${4-}" | tr '\t\n\r' '   ')" >>"$results"
}

# What kubectl's words on standard error are about.  Without any configuration kubectl asks localhost:8080, where nothing is.
kind_of_error()
{
	case $(cat "$work/error") in
	*Forbidden* | *forbidden*) echo forbidden ;;
	*Unauthorized* | *"must be logged in"* | *"provide credentials"* | *"getting credentials"* | *"asked for the client to provide"* | *"token has expired"*) echo auth ;;
	*NotFound* | *"not found"* | *"doesn't have a resource type"*) echo absent ;;
	*"localhost:8080"* | *"does not exist"* | *"no such file"* | *"invalid configuration"* | *"error loading config"*) echo config ;;
	*) echo connection ;;
	esac
}

error_text()
{
	tail -n 1 "$work/error" | cut -c 1-300
}

# Ask kubectl; the answer is in $answer, the kind of failure in $why.
ask()
{
	why=''
	answer=$(k "$@" 2>"$work/error") && return 0
	why=$(kind_of_error)
	return 1
}

# A question whose failure is no problem of the release: not allowed to look is a WARN, all else a FAIL.
cannot_look()
{
	case $why in
	forbidden) say WARN "$1" "you may not look: $(error_text)" "Let your user get and list this, or ask somebody who may." ;;
	*) say FAIL "$1" "$(error_text)" "See what kubectl says." ;;
	esac
}

# --- the cluster's side

check_access()
{
	if ! command -v kubectl >/dev/null; then
		say FAIL kubectl "kubectl is not installed, or not in PATH" "Install kubectl: https://kubernetes.io/docs/tasks/tools/"
		return 1
	fi
	if ask get --raw /version; then
		version=$(printf %s "$answer" | sed -n 's/.*"gitVersion": *"\([^"]*\)".*/\1/p')
		minor=$(printf %s "$answer" | tr -d '\n' | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p')
		if [ "${minor:-99}" -lt 27 ]; then
			say WARN access "Kubernetes $version is older than 1.27, which the chart wants" "Upgrade the cluster."
		else
			say PASS access "Kubernetes $version answers"
		fi
		return 0
	fi
	case $why in
	auth) say FAIL access "the cluster does not accept your credentials: $(error_text)" "Log in again, or choose another --context." ;;
	config) say FAIL access "kubectl has no usable configuration: $(error_text)" "Give --kubeconfig and --context, or set KUBECONFIG." ;;
	forbidden)
		say WARN access "you may not ask for the version: $(error_text)" "Nothing, if the checks below work."
		return 0
		;;
	*) say FAIL access "the cluster's API cannot be reached: $(error_text)" "Check the address in your kubeconfig, VPN, proxy and firewall." ;;
	esac
	return 1
}

check_namespace()
{
	if ! ask get namespace "$namespace" -o 'jsonpath={.status.phase} {.metadata.labels.pod-security\.kubernetes\.io/enforce}'; then
		if [ "$why" = absent ]; then
			say FAIL namespace "there is no namespace '$namespace'" "kubectl create namespace $namespace"
			return 1
		fi
		cannot_look namespace
		return 0
	fi
	phase=${answer%% *}
	level=${answer#* }
	if [ "$phase" = Terminating ]; then
		say FAIL namespace "'$namespace' is being deleted" "Wait until it has gone, then install again."
		return 1
	fi
	say PASS namespace "Pod Security level: ${level:-none enforced}"
}

# Sets $workload (kind/name) and $images.
check_workload()
{
	selector="app.kubernetes.io/instance=$release"
	if ! ask get deployments,statefulsets -l "$selector" -o \
		"go-template={{range .items}}{{\$w := .}}{{range .spec.template.spec.containers}}{{if eq .name \"$container\"}}{{\$w.kind}}/{{\$w.metadata.name}} {{\$w.spec.replicas}} {{with \$w.status.readyReplicas}}{{.}}{{else}}0{{end}}{{\"\\n\"}}{{end}}{{end}}{{end}}"; then
		say FAIL workload "the release's workloads cannot be looked at: $(error_text)" "Let your user get and list Deployments, StatefulSets, Pods and Secrets here."
		return 1
	fi
	line=$(printf '%s\n' "$answer" | head -n 1)
	# shellcheck disable=SC2086 # words
	set -- $line
	workload=${1-}
	if [ -z "$workload" ]; then
		say FAIL workload "release '$release' has no Deployment or StatefulSet of an agent in '$namespace'" \
			"Install it: helm upgrade --install $release … --namespace $namespace. The chart's preflight.enabled runs \`postern check\` before."
		return 1
	fi
	if [ "${2:-1}" = 0 ]; then
		say WARN workload "$workload is scaled to 0" "kubectl scale --replicas=1 $workload"
	elif [ "${3:-0}" -lt "${2:-1}" ]; then
		say WARN workload "$workload: ${3:-0} of ${2:-1} pods are ready" "See the checks of pods and of the pod's side."
	else
		say PASS workload "$workload: ${3:-0} of ${2:-1} pods are ready"
	fi
}

# One reference of the pod template: secret|configmap NAME KEY OPTIONAL ("" or "-" is none)
check_reference()
{
	kind=$1 name=$2 key=$3 optional=$4
	[ -n "$name" ] || return 0
	if ! ask get "$kind" "$name" -o 'go-template={{range $k, $v := .data}}{{$k}}{{"\n"}}{{end}}'; then
		case $why-$optional in
		absent-true) return 0 ;;
		absent-*) say FAIL secrets "$kind '$name' does not exist" "Create it, or name the one there is in the chart's values." ;;
		*) cannot_look secrets ;;
		esac
		return 0
	fi
	seen=$((seen + 1))
	[ -n "$key" ] && [ "$key" != - ] || return 0
	printf '%s\n' "$answer" | grep -qxF -- "$key" || [ "$optional" = true ] ||
		say FAIL secrets "$kind '$name' has no key '$key'" "Put it in; keys that are there: $(printf %s "$answer" | tr '\n' ' ')"
}

check_secrets()
{
	seen=0
	if ! ask get "$workload" -o 'go-template={{with .spec.template.spec}}{{range .volumes}}{{with .secret}}{{$s := .}}{{if .items}}{{range .items}}secret {{$s.secretName}} {{.key}} {{$s.optional}}{{"\n"}}{{end}}{{else}}secret {{.secretName}} - {{.optional}}{{"\n"}}{{end}}{{end}}{{with .configMap}}{{$s := .}}{{if .items}}{{range .items}}configmap {{$s.name}} {{.key}} {{$s.optional}}{{"\n"}}{{end}}{{else}}configmap {{.name}} - {{.optional}}{{"\n"}}{{end}}{{end}}{{end}}{{range .containers}}{{range .env}}{{with .valueFrom}}{{with .secretKeyRef}}secret {{.name}} {{.key}} {{.optional}}{{"\n"}}{{end}}{{with .configMapKeyRef}}configmap {{.name}} {{.key}} {{.optional}}{{"\n"}}{{end}}{{end}}{{end}}{{range .envFrom}}{{with .secretRef}}secret {{.name}} - {{.optional}}{{"\n"}}{{end}}{{with .configMapRef}}configmap {{.name}} - {{.optional}}{{"\n"}}{{end}}{{end}}{{end}}{{range .imagePullSecrets}}secret {{.name}} - -{{"\n"}}{{end}}{{end}}'; then
		cannot_look secrets
		return 0
	fi
	printf '%s\n' "$answer" | sort -u >"$work/references"
	while read -r kind name key optional; do
		check_reference "$kind" "$name" "$key" "$optional"
	done <"$work/references"
	grep -q '	secrets	' "$results" || say PASS secrets "the Secrets and ConfigMaps that it refers to are there, with their keys ($seen)"
}

check_pods()
{
	mine="?(@.name==\"$container\")"
	status=".status.containerStatuses[$mine]"
	if ! ask get pods -l "$selector" -o "jsonpath={range .items[*]}{.metadata.name}|{.status.phase}|{.metadata.deletionTimestamp}|{.spec.containers[$mine].image}|{$status.restartCount}|{$status.state.waiting.reason}|{$status.lastState.terminated.reason}|{$status.imageID}|{.status.conditions[?(@.type==\"PodScheduled\")].message}{\"\\n\"}{end}"; then
		cannot_look pods
		return 0
	fi
	printf '%s\n' "$answer" >"$work/pods"
	before=$(wc -l <"$results")
	count=0
	running=''
	while IFS='|' read -r name phase going used restarts waiting last digest unscheduled; do
		# those that go, and those of hooks and tests
		if [ -n "$going" ] || [ -z "$used" ] || [ "$phase" = Succeeded ]; then continue; fi
		count=$((count + 1))
		if [ -n "$unscheduled" ] && [ "$phase" = Pending ]; then
			say FAIL pods "$name finds no node: $unscheduled" "Make room, or correct nodeSelector, tolerations and resources in the chart's values."
			continue
		fi
		case $waiting in
		'' | ContainerCreating | PodInitializing) ;;
		ImagePullBackOff | ErrImagePull | InvalidImageName | ErrImageNeverPull)
			say FAIL pods "$name waits: $waiting ($used)" "Correct image.repository and image.tag, give imagePullSecrets, or let the nodes reach the registry."
			;;
		CreateContainerConfigError) say FAIL pods "$name waits: $waiting" "A Secret or ConfigMap is missing, or the security context is refused: kubectl describe pod $name" ;;
		*) say FAIL pods "$name waits: $waiting (ended with ${last:-?}, $restarts restarts)" "kubectl logs --previous $name: the last line says why." ;;
		esac
		[ "$last" != OOMKilled ] || say WARN pods "$name was killed for want of memory" "Raise container.resources.limits.memory, or lower the slots."
		[ "${restarts:-0}" -le 5 ] || say WARN pods "$name has restarted $restarts times" "kubectl logs --previous $name"
		if [ "$phase" = Running ] && [ -z "$waiting" ]; then running="$running $name"; fi
		printf '%s %s\n' "$used" "${digest:--}" >>"$work/images"
	done <"$work/pods"
	[ "$(wc -l <"$results")" -gt "$before" ] || say PASS pods "$count $([ "$count" = 1 ] && echo pod || echo pods), none waits or restarts often"
	if [ -n "$pod" ]; then
		case "$running " in
		*" $pod "*) ;;
		*) say FAIL pods "pod '$pod' is none of the release's running ones:${running:- (none)}" "Choose one of those, or leave --pod out." ;;
		esac
	else
		# shellcheck disable=SC2086 # words
		set -- $running
		pod=${1-}
	fi
}

check_image()
{
	ask get "$workload" -o "jsonpath={.spec.template.spec.containers[?(@.name==\"$container\")].image}" || {
		cannot_look image
		return 0
	}
	template=$answer
	if [ -n "$image" ] && [ "$image" != "$template" ]; then
		say WARN image "the release says $template, not $image" "helm upgrade with image.repository and image.tag of the image that you want."
	elif cut -d ' ' -f 1 "$work/images" | grep -vqxF -- "$template"; then
		say WARN image "some pods run another image than $template: $(cut -d ' ' -f 1 "$work/images" | sort -u | tr '\n' ' ')" \
			"Wait for the rollout (kubectl rollout status $workload); a rollout that hangs has its reason above."
	elif [ "$(grep -v ' -$' "$work/images" | sort -u | wc -l)" -gt 1 ]; then
		say WARN image "the pods run different contents of $template: the tag was moved" "Give image.digest, or a tag that nobody moves, and restart the pods."
	else
		say PASS image "$template"
	fi
}

# Roughly: whether any policy that limits egress lets DNS and the gateway's port out.  The pod's own checks (dns, gateway) are the proof.
check_networkpolicy()
{
	if ! ask get networkpolicies -o 'go-template={{range .items}}{{$n := .metadata.name}}{{range .spec.policyTypes}}{{if eq . "Egress"}}policy {{$n}}{{"\n"}}{{end}}{{end}}{{range .spec.egress}}{{if .ports}}{{range .ports}}port {{.port}} {{.endPort}}{{"\n"}}{{end}}{{else}}port all{{"\n"}}{{end}}{{end}}{{end}}'; then
		cannot_look networkpolicy
		return 0
	fi
	policies=$(printf '%s\n' "$answer" | sed -n 's/^policy //p' | tr '\n' ' ')
	if [ -z "$policies" ]; then
		say PASS networkpolicy "no policy limits egress; the cloud's metadata address is then open to pods"
		return 0
	fi
	ask get "$workload" -o "jsonpath={.spec.template.spec.containers[?(@.name==\"$container\")].env[?(@.name==\"POSTERN_GATEWAY_URL\")].value}"
	url=$answer
	port=$(printf %s "$url" | sed -n 's|^[a-z]*://[^/]*:\([0-9][0-9]*\).*|\1|p')
	case $url in http://*) port=${port:-80} ;; *) port=${port:-443} ;; esac
	# answer was replaced by the last question
	ask get networkpolicies -o 'go-template={{range .items}}{{range .spec.egress}}{{if .ports}}{{range .ports}}{{.port}} {{.endPort}}{{"\n"}}{{end}}{{else}}all{{"\n"}}{{end}}{{end}}{{end}}'
	allows()
	{
		printf '%s\n' "$answer" | awk -v p="$1" '$1 == "all" || $1 == p || ($2 ~ /^[0-9]+$/ && $1 <= p && p <= $2) || $1 == "<no" { good = 1 } END { exit !good }'
	}
	bad=''
	allows 53 || allows 5353 || allows dns || bad="DNS (port 53)"
	allows "$port" || bad="${bad:+$bad and }the gateway (port $port), unless a proxy is used"
	if [ -n "$bad" ]; then
		say WARN networkpolicy "egress is limited (${policies% }), and no rule lets out to $bad" "Allow it: networkPolicy in the chart's values."
	else
		say PASS networkpolicy "egress is limited (${policies% }), with rules for DNS and port $port"
	fi
}

check_security()
{
	if ! ask get daemonsets --all-namespaces -o 'go-template={{range .items}}{{.metadata.namespace}}/{{.metadata.name}}{{range .spec.template.spec.containers}} {{.image}}{{end}}{{"\n"}}{{end}}'; then
		case $why in
		forbidden) say SKIP security "you may not list DaemonSets of all namespaces" ;;
		*) cannot_look security ;;
		esac
		return 0
	fi
	found=$(printf '%s\n' "$answer" | awk '
		BEGIN {
			n = split("crowdstrike=CrowdStrike Falcon|falcon-sensor=CrowdStrike Falcon|falcon-node=CrowdStrike Falcon|microsoft-defender=Microsoft Defender|azuredefender=Microsoft Defender|mdatp=Microsoft Defender|twistlock=Prisma Cloud|prisma=Prisma Cloud|neuvector=NeuVector|sysdig=Sysdig|aquasec=Aqua|aqua-enforcer=Aqua|kube-enforcer=Aqua|/falco=Falco|tetragon=Tetragon|tracee=Tracee|kubearmor=KubeArmor|sentinelone=SentinelOne|s1-agent=SentinelOne|cortex-agent=Cortex XDR|lacework=Lacework", pairs, "|")
			for (i = 1; i <= n; i++) { split(pairs[i], p, "="); word[i] = p[1]; product[i] = p[2] }
		}
		{ for (i = 1; i <= n; i++) if (index(tolower($0), word[i])) { print product[i] " (" $1 ")"; break } }' | sort -u | tr '\n' ',' | sed 's/,$//; s/,/, /g')
	if [ -n "$found" ]; then
		say WARN security "on the nodes: $found" "It can stop processes, hold files or open TLS: ask its owner for an exception for /usr/bin/postern and the spool."
	else
		say PASS security "no DaemonSet that is known to interfere"
	fi
}

# --- the pod's side

# A pod like the release's, which runs the check and ends.
make_pod()
{
	made=$(printf '%s' "$release" | cut -c 1-45)-check-$$
	spec=$(k get "$workload" -o 'jsonpath={.spec.template.spec}' 2>"$work/error") || return 1
	labels=$(k get "$workload" -o 'jsonpath={.spec.template.metadata.labels}' 2>"$work/error") || return 1
	args='"check"'
	[ "$output" = text ] || args="$args, \"-o\", \"json\""
	volumes=''
	# a StatefulSet makes its volume for each pod; the check takes an empty one in its place
	case $workload in StatefulSet/*) volumes=', "volumes": [{"name": "spool", "emptyDir": {}}]' ;; esac
	patch="{\"spec\": {\"restartPolicy\": \"Never\", \"activeDeadlineSeconds\": 180, \"containers\": [{\"name\": \"$container\", \"args\": [$args], \"livenessProbe\": null, \"readinessProbe\": null, \"startupProbe\": null${image:+, \"image\": \"$image\"}}]$volumes}}"
	printf '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "%s", "labels": %s}, "spec": %s}' "$made" "$labels" "$spec" >"$work/pod.json"
	k patch --local -f "$work/pod.json" --type=strategic -p "$patch" -o json >"$work/patched.json" 2>"$work/error" &&
		k create -f "$work/patched.json" >/dev/null 2>"$work/error"
}

# Wait until the pod has ended; true when it ran.
wait_for_pod()
{
	tries=0
	while [ $tries -lt 60 ]; do
		state=$(k get pod "$made" -o 'jsonpath={.status.phase} {.status.containerStatuses[*].state.waiting.reason}' 2>"$work/error")
		case $state in
		Succeeded* | Failed*) return 0 ;;
		*ImagePullBackOff* | *ErrImagePull* | *InvalidImageName* | *CreateContainer*Error* | *RunContainerError*) break ;;
		esac
		tries=$((tries + 1))
		sleep 1
	done
	say FAIL pod "the pod made for the check does not start: ${state:-nothing is known}" \
		"kubectl events in '$namespace' say why: $(k get events --field-selector "involvedObject.name=$made,type=Warning" -o 'jsonpath={.items[-1:].message}' 2>/dev/null | cut -c 1-200)"
	return 1
}

# Leaves the answer in $work/pod-answer and its exit code in $pod_code; "" when there is none.
check_in_pod()
{
	pod_code=''
	form=''
	[ "$output" = text ] || form='-o json'
	if [ -n "$pod" ] && [ -z "$image" ]; then
		where="pod $pod"
		# shellcheck disable=SC2086 # words
		kubectl ${kubeconfig:+--kubeconfig "$kubeconfig"} ${context:+--context "$context"} --namespace "$namespace" \
			exec "$pod" -c $container -- postern check $form >"$work/pod-answer" 2>"$work/error"
		pod_code=$?
	elif grep -q '^FAIL	secrets	' "$results"; then
		say SKIP pod "no pod of the release can start, see secrets"
		return 0
	else
		make_pod || {
			made=''
			say FAIL pod "no pod could be made for the check: $(error_text)" "Let your user create pods in '$namespace', or start the release first."
			return 0
		}
		where="pod $made, made for this from the release's template"
		wait_for_pod || return 0
		k logs "$made" -c $container >"$work/pod-answer" 2>"$work/error"
		pod_code=$(k get pod "$made" -o 'jsonpath={.status.containerStatuses[0].state.terminated.exitCode}' 2>/dev/null)
	fi
	case $pod_code in
	0 | 1)
		if grep -q . "$work/pod-answer"; then
			say "$([ "$pod_code" = 0 ] && echo PASS || echo FAIL)" pod "\`postern check\` in $where: $([ "$pod_code" = 0 ] && echo 'no FAIL' || echo 'at least one FAIL')" \
				"See what it says."
			return 0
		fi
		;;
	esac
	rm -f "$work/pod-answer"
	case $(kind_of_error) in
	forbidden) say FAIL pod "you may not run a command in $where: $(error_text)" "Let your user create pods/exec, or use the chart's preflight.enabled or \`helm test\`." ;;
	*) say FAIL pod "\`postern check\` did not run in $where: $(error_text)" "Does the image have postern at /usr/bin/postern, and a version that knows \`check\`?" ;;
	esac
}

# --- the answer

print='
	function text(s) { gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); gsub(/[\001-\037]/, " ", s); return "\"" s "\"" }
	{ n[$1]++; status[NR] = $1; name[NR] = $2; detail[NR] = $3; fix[NR] = ($1 == "WARN" || $1 == "FAIL") ? $4 : "" }
	END {
		if (json) {
			printf("{\"ok\":%s,\"checks\":[", (n["FAIL"] ? "false" : "true"))
			for (i = 1; i <= NR; i++)
				printf("%s{\"name\":%s,\"status\":%s,\"detail\":%s,\"fix\":%s}", (i > 1 ? "," : ""), text(name[i]), text(status[i]), text(detail[i]), (fix[i] == "" ? "null" : text(fix[i])))
			printf "],\"summary\":{\"passed\":%d,\"warnings\":%d,\"failed\":%d,\"skipped\":%d},\"pod\":", n["PASS"], n["WARN"], n["FAIL"], n["SKIP"]
		} else {
			for (i = 1; i <= NR; i++)
				printf "%s  %-13s  %s\n", status[i], name[i], detail[i]
			printf("\n%d passed, %d warning%s, %d failed", n["PASS"], n["WARN"], (n["WARN"] == 1 ? "" : "s"), n["FAIL"])
			if (n["SKIP"]) printf(", %d skipped", n["SKIP"])
			print ""
			k = 0
			for (pass = 1; pass <= 2; pass++)
				for (i = 1; i <= NR; i++)
					if (fix[i] != "" && status[i] == (pass == 1 ? "FAIL" : "WARN"))
						printf("%s%2d. %s: %s\n", (k ? "" : "\nWhat to do:\n"), ++k, name[i], fix[i])
		}
	}'

pod_code=''
workload=''
if check_access && check_namespace && check_workload; then
	check_secrets
	check_pods
	check_image
	check_networkpolicy
	check_security
	[ -n "$cluster_only" ] || check_in_pod
fi
if [ "$output" = json ]; then
	awk -F '\t' -v json=1 "$print" "$results"
	if [ -s "$work/pod-answer" ]; then cat "$work/pod-answer"; else echo null; fi
	echo '}'
else
	echo "The cluster's side: release $release in $namespace"
	echo
	awk -F '\t' -v json= "$print" "$results"
	if [ -s "$work/pod-answer" ]; then
		echo
		echo "In $where:"
		echo
		cat "$work/pod-answer"
	fi
fi
if grep -q '^FAIL' "$results"; then exit 1; fi
exit 0

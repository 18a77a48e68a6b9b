{{- /* The names of muster's objects: "muster" in a release of that name, else RELEASE-muster. */ -}}
{{- define "muster.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end -}}

{{- /* The pod selector of a component's Services and workloads; takes (list . COMPONENT). */ -}}
{{- define "muster.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* The labels of every object; takes (list . COMPONENT). */ -}}
{{- define "muster.labels" -}}
{{ include "muster.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end -}}

{{- /* The image of a program; takes (list . PROGRAM). */ -}}
{{- define "muster.image" -}}
{{- $image := (index . 0).Values.image -}}
{{ $image.repository }}-{{ index . 1 }}{{ with index $image.digests (index . 1) }}@{{ . }}{{ else }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}{{ end }}
{{- end -}}

{{- /* The API version of the gate's policy, empty if there is none. `helm template` has no server and hence no list of kinds
     (no "v1/Pod"), so the Kubernetes version decides. */ -}}
{{- define "muster.gateApi" -}}
{{- if ne (toString .Values.gate.enabled) "false" -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- $served := .Capabilities.APIVersions -}}
{{- $group := "admissionregistration.k8s.io" -}}
{{- if and (semverCompare ">=1.36.0-0" $version) (or (not ($served.Has "v1/Pod")) ($served.Has (printf "%s/v1/MutatingAdmissionPolicy" $group))) -}}
{{ $group }}/v1
{{- else if and (semverCompare ">=1.34.0-0" $version) ($served.Has (printf "%s/v1beta1/MutatingAdmissionPolicy" $group)) -}}
{{ $group }}/v1beta1
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Not empty if the server has ValidatingAdmissionPolicy, as every server that the chart supports unless it is switched off. */ -}}
{{- define "muster.policiesServed" -}}
{{- $served := .Capabilities.APIVersions -}}
{{- if or (not ($served.Has "v1/Pod")) ($served.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") -}}
true
{{- end -}}
{{- end -}}

{{- /* Two releases would plan the same GPUs and bind the same pods, so a second one is rejected. */ -}}
{{- define "muster.checkOnlyRelease" -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $release := index (.metadata.annotations | default dict) "meta.helm.sh/release-name" -}}
{{- $namespace := index (.metadata.annotations | default dict) "meta.helm.sh/release-namespace" -}}
{{- if and (eq (index $labels "app.kubernetes.io/name" | default "") $.Chart.Name) (eq (index $labels "app.kubernetes.io/component" | default "") "operator") -}}
{{- if not (and (eq $release $.Release.Name) (eq $namespace $.Release.Namespace)) -}}
{{- fail (printf "muster is in this cluster already, as release %s in namespace %s, and two releases would assign the same GPUs twice: upgrade that one (helm upgrade %s --namespace %s), or uninstall it first" $release $namespace $release $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Existing definitions outside this release: left by an uninstalled release, or installed manually. */ -}}
{{- define "muster.checkDefinitions" -}}
{{- if .Values.crds.enabled -}}
{{- range $path, $_ := .Files.Glob "files/crds/*.yaml" -}}
{{- $name := ($.Files.Get $path | fromYaml).metadata.name -}}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name -}}
{{- $annotations := .metadata.annotations | default dict -}}
{{- if .metadata.deletionTimestamp -}}
{{- fail (printf "the definition %s is being deleted, with all its objects: wait for that, then install (kubectl wait --for=delete crd/%s)" $name $name) -}}
{{- end -}}
{{- if not (and (eq (index $annotations "meta.helm.sh/release-name" | default "") $.Release.Name) (eq (index $annotations "meta.helm.sh/release-namespace" | default "") $.Release.Namespace)) -}}
{{- fail (printf "the definition %s exists and does not belong to release %s in namespace %s: hand it over (kubectl annotate --overwrite crd dljobs.muster.dev dlqueues.muster.dev meta.helm.sh/release-name=%s meta.helm.sh/release-namespace=%s && kubectl label --overwrite crd dljobs.muster.dev dlqueues.muster.dev app.kubernetes.io/managed-by=Helm), or set crds.enabled=false and keep managing it yourself" $name $.Release.Name $.Release.Namespace $.Release.Name $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The API server's version without a provider's suffix: v1.36.3-gke.100 is built from v1.36.3. */ -}}
{{- define "muster.kubeSchedulerImage" -}}
{{- $version := semver .Capabilities.KubeVersion.Version -}}
{{- $own := printf "v%d.%d.%d" $version.Major $version.Minor $version.Patch -}}
{{- with .Values.scheduler.kubeScheduler.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $own }}{{ end }}{{ end -}}
{{- end -}}

{{- /* Pod Security Standard "restricted", at the level of the pod. */ -}}
{{- define "muster.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ . | int64 }}
runAsGroup: {{ . | int64 }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* Pod Security Standard "restricted", at the level of a container, and a read-only root filesystem. */ -}}
{{- define "muster.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The common part of all pod specs. */ -}}
{{- define "muster.podSpec" -}}
priorityClassName: {{ .Values.priorityClassName | quote }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "muster.podSecurity" . | nindent 2 }}
{{- end -}}

{{- /* The tolerations of a Deployment's pods; takes those of the values. On a node that is lost, a pod is replaced after 30
     seconds, where Kubernetes would wait for 300, unless the values say otherwise. */ -}}
{{- define "muster.tolerations" -}}
{{- $given := . -}}
{{- range list "node.kubernetes.io/not-ready" "node.kubernetes.io/unreachable" }}
{{- $key := . }}
{{- $own := false }}
{{- range $given }}{{ if eq (.key | default "") $key }}{{ $own = true }}{{ end }}{{ end }}
{{- if not $own }}
- {key: {{ $key }}, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
{{- end }}
{{- end }}
{{- with $given }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The startup probe of a container; takes its port. The kubelet's first probe precedes the start of Python; without a
     startup probe the next one would follow five to ten seconds later. */ -}}
{{- define "muster.startupProbe" -}}
httpGet: {path: /healthz, port: {{ . }}}
periodSeconds: 1
timeoutSeconds: 10
failureThreshold: 120
{{- end -}}

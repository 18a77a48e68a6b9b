{{- /* The names of muster's objects: "muster" in a release of that name, else RELEASE-muster. */ -}}
{{- define "muster.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end -}}

{{- /* What a Service or Deployment knows its pods by; takes (list . COMPONENT). */ -}}
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

{{- define "muster.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- /* The API server's version without what a provider appends to it: v1.36.3-gke.100 is built from v1.36.3. */ -}}
{{- define "muster.kubeSchedulerImage" -}}
{{- $version := semver .Capabilities.KubeVersion.Version -}}
{{- $own := printf "v%d.%d.%d" $version.Major $version.Minor $version.Patch -}}
{{- with .Values.scheduler.kubeScheduler.image }}{{ .repository }}:{{ .tag | default $own }}{{ end -}}
{{- end -}}

{{- /* Pod Security Standard "restricted", the pod's part. */ -}}
{{- define "muster.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ . | int64 }}
runAsGroup: {{ . | int64 }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* Pod Security Standard "restricted", each container's part, and no writing to its image. */ -}}
{{- define "muster.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* What the pods of all components have in common. */ -}}
{{- define "muster.podSpec" -}}
priorityClassName: {{ .Values.priorityClassName | quote }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "muster.podSecurity" . | nindent 2 }}
{{- end -}}

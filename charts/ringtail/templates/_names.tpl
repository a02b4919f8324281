{{/* The name of all objects. */}}
{{- define "ringtail.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains "ringtail-operator" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else if contains "ringtail" .Release.Name -}}
{{- printf "%s-operator" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-ringtail-operator" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ringtail.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "ringtail.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "ringtail.leaseName" -}}
{{- .Values.leaderElection.leaseName | default (include "ringtail.fullname" .) -}}
{{- end -}}

{{- define "ringtail.leaseNamespace" -}}
{{- .Values.leaderElection.namespace | default .Release.Namespace -}}
{{- end -}}

{{/* Labels that never change, for selectors. The operator's are not those of a pipeline's pods (name: ringtail). */}}
{{- define "ringtail.selectorLabels" -}}
app.kubernetes.io/name: ringtail-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object. Without what selects pods: the pods of the Deployment and of the test add that. */}}
{{- define "ringtail.commonLabels" -}}
app.kubernetes.io/part-of: ringtail
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ringtail.labels" -}}
{{ include "ringtail.selectorLabels" . }}
app.kubernetes.io/component: operator
{{ include "ringtail.commonLabels" . }}
{{- end -}}

{{/* An image's reference, of (dict "image" .Values.image "context" $). A digest goes before a tag. */}}
{{- define "ringtail.image" -}}
{{- $registry := .image.registry | default .context.Values.global.imageRegistry -}}
{{- $name := .image.repository -}}
{{- if $registry -}}
{{- $name = printf "%s/%s" (trimSuffix "/" $registry) $name -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .context.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* What the schema cannot say: `global` is open for the globals of a parent chart, and closed without a parent. */}}
{{- define "ringtail.closedGlobal" -}}
{{- if .Chart.IsRoot -}}
{{- range $key := keys (omit .Values.global "imageRegistry" "imagePullSecrets") | sortAlpha -}}
{{- fail (printf "values: at '/global': additional property '%s' not allowed" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

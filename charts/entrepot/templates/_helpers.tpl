{{- define "entrepot.name" -}}
{{- printf "%s-operator" (.Release.Name | trunc 50 | trimSuffix "-") -}}
{{- end -}}

{{- define "entrepot.selector" -}}
app.kubernetes.io/name: entrepot-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "entrepot.labels" -}}
{{ include "entrepot.selector" . }}
app.kubernetes.io/part-of: entrepot
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

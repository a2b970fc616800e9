{{- define "hfpeer.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "hfpeer.selector" -}}
app.kubernetes.io/name: hfpeer
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hfpeer.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

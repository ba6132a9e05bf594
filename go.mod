module github.com/docevents/docevents-go

go 1.26.0

require (
	github.com/google/uuid v1.6.0
	github.com/jarcoal/httpmock v1.4.2
	github.com/sirupsen/logrus v1.10.2
	github.com/supabase-community/postgrest-go v0.0.12
)

require golang.org/x/sys v0.13.0 // indirect

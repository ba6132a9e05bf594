module github.com/docevents/docevents-go/examples

go 1.25.0

require github.com/docevents/docevents-go v0.0.0

replace github.com/docevents/docevents-go => ../

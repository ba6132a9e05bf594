package docevents_test

import (
	"testing"

	"github.com/jarcoal/httpmock"
)

func TestX(t *testing.T) { _ = httpmock.NewMockTransport() }

package localstack_test

import (
	"testing"

	"github.com/docevents/docevents-go/examples/internal/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

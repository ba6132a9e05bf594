//go:build !unix || aix || solaris

package spool

import (
	"errors"
	"fmt"
	"os"
)

func lock(*os.File) error { return fmt.Errorf("no file locks here: %w", errors.ErrUnsupported) }

//go:build !unix || aix || solaris

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// lock always fails, so the spool can't be used.
func lock(*os.File, bool) error {
	return fmt.Errorf("no file locks on this platform: %w", errors.ErrUnsupported)
}

func private(fs.FileInfo) bool { return true }

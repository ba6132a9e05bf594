//go:build !unix || aix || solaris

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// lock always fails, so nothing can be appended.
func lock(*os.File, bool) error {
	return fmt.Errorf("no file locks on this platform: %w", errors.ErrUnsupported)
}

func private(fs.FileInfo) bool { return true }
